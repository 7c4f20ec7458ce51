//! `DELETE /_matrix/client/v3/devices/{deviceId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3devicesdeviceid

use axum::extract::State;
use ruma::api::client::device::delete_device::v3::{Request, Response};

use crate::{
    app::App,
    client_api::uiaa::{self, Interactive},
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Signs out and deletes a device of the caller. A device that does not exist counts as deleted.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Interactive(request), address, .. }: Authed<Interactive<Request>>,
) -> Result<Reply<Response>, ApiError> {
    let operation = format!("DELETE devices/{}", request.device_id);
    uiaa::require_password_of_person(&app, &caller, &operation, request.auth.as_ref(), address).await?;
    app.accounts.delete_devices(caller.user.nid, &[request.device_id]).await?;
    Ok(Reply(Response::new()))
}
