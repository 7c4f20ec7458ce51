//! `GET /_matrix/client/v3/devices/{deviceId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid

use axum::extract::State;
use ruma::api::client::device::get_device::v3::{Request, Response};

use super::unknown_device;
use crate::{
    app::App,
    http::{ApiError, Authed, Reply},
};

/// One device of the caller.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let device = app.accounts.find_device(caller.user.nid, &request.device_id).await?;
    Ok(Reply(Response::new(device.ok_or_else(unknown_device)?)))
}
