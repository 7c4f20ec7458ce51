//! `POST /_matrix/client/v3/delete_devices` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices

use axum::extract::State;
use ruma::api::client::device::delete_devices::v3::{Request, Response};

use crate::{
    account::session::new_session::MAX_DEVICE_ID_BYTES,
    app::App,
    client_api::uiaa::{self, Interactive},
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The maximum number of devices in one request: twice the default limit of devices per account.
const MAX_DEVICES: usize = 1_000;

/// Signs out and deletes devices of the caller.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Interactive(request), address, .. }: Authed<Interactive<Request>>,
) -> Result<Reply<Response>, ApiError> {
    if request.devices.len() > MAX_DEVICES || request.devices.iter().any(|id| id.as_str().len() > MAX_DEVICE_ID_BYTES) {
        let limits = format!("At most {MAX_DEVICES} devices, with IDs of at most {MAX_DEVICE_ID_BYTES} bytes.");
        return Err(ApiError::invalid_param(limits));
    }
    // JSON keeps the IDs apart, whatever characters they contain.
    let operation = format!("POST delete_devices {}", serde_json::json!(request.devices));
    uiaa::require_password_of_person(&app, &caller, &operation, request.auth.as_ref(), address).await?;
    app.accounts.delete_devices(caller.user.nid, &request.devices).await?;
    Ok(Reply(Response::new()))
}
