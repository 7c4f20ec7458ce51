//! Devices: [`ruma::api::client::device`].

mod delete_device;
mod delete_devices;
mod get_device;
mod get_devices;
mod update_device;

use ruma::api::client::device::Device;
use serde_json::{Value as JsonValue, json};

use crate::{
    endpoint::{Routes, WaitsFor},
    http::ApiError,
    limits::rate_limits::Action,
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_devices::handle)
        .serve(Action::Other, get_device::handle)
        .serve(Action::Other, update_device::handle)
        .serve_waiting(WaitsFor::Password, Action::Other, delete_device::handle)
        .serve_waiting(WaitsFor::Password, Action::Other, delete_devices::handle)
}

fn unknown_device() -> ApiError {
    ApiError::not_found("You have no such device.")
}

/// A device as clients see it. Unknown fields are `null`, as in other servers: matrix-nio fails if a field is missing.
/// Ruma leaves one of them out.
fn described(device: &Device) -> JsonValue {
    json!({
        "device_id": device.device_id,
        "display_name": device.display_name,
        "last_seen_ip": device.last_seen_ip,
        "last_seen_ts": device.last_seen_ts,
    })
}
