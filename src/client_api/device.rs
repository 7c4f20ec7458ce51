//! Devices: [`ruma::api::client::device`].

mod delete_device;
mod delete_devices;
mod get_device;
mod get_devices;
mod update_device;

use ruma::api::client::device::Device;
use serde_json::{Value as JsonValue, json};

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

/// A device as clients see it. Ruma writes what is not known as `null`, which the specification does not allow.
fn described(device: &Device) -> JsonValue {
    let mut json = json!({ "device_id": device.device_id });
    let known = [
        ("display_name", device.display_name.as_deref().map(JsonValue::from)),
        ("last_seen_ip", device.last_seen_ip.as_deref().map(JsonValue::from)),
        ("last_seen_ts", device.last_seen_ts.map(|at| u64::from(at.0).into())),
    ];
    for (name, value) in known {
        if let Some(value) = value {
            json[name] = value;
        }
    }
    json
}
