//! Messages from device to device: [`ruma::api::client::to_device`].

mod send_event_to_device;

use crate::{endpoint::Routes, http::ApiError, keys::to_device::SendToDeviceError, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Send, send_event_to_device::handle)
}

impl From<SendToDeviceError> for ApiError {
    fn from(error: SendToDeviceError) -> Self {
        match error {
            SendToDeviceError::TooMany | SendToDeviceError::BadName => Self::invalid_param(error.to_string()),
            SendToDeviceError::TooLarge => Self::too_large(error.to_string()),
            SendToDeviceError::NotAnObject => Self::bad_json(error.to_string()),
            SendToDeviceError::Storage(error) => error.into(),
        }
    }
}
