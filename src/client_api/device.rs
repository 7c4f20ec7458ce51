//! Devices: [`ruma::api::client::device`].

mod delete_device;
mod delete_devices;
mod get_device;
mod get_devices;
mod update_device;

use crate::http::{Action, ApiError, Routes};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_devices::handle)
        .serve(Action::Other, get_device::handle)
        .serve(Action::Other, update_device::handle)
        .serve(Action::Other, delete_device::handle)
        .serve(Action::Other, delete_devices::handle)
}

fn unknown_device() -> ApiError {
    ApiError::not_found("You have no such device.")
}
