//! `GET /_matrix/client/v3/devices/{deviceId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid

use axum::extract::State;
use ruma::api::client::device::get_device::v3::Request;

use super::{described, unknown_device};
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// One device of the caller.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    let device = app.accounts.find_device(caller.user.nid, &request.device_id).await?;
    Ok(RawJson(described(&device.ok_or_else(unknown_device)?).to_string().into()))
}
