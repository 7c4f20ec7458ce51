//! `PUT /_matrix/client/v3/devices/{deviceId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid

use axum::{extract::State, http::StatusCode, response::IntoResponse as _};
use ruma::api::client::device::update_device::v3::{Request, Response};

use super::unknown_device;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Renames a device of the caller. Without a name in the request, its name stays. For an application service, a missing
/// device is created.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<axum::response::Response, ApiError> {
    if caller.appservice.is_some() {
        let name = request.display_name.clone();
        if app.accounts.create_device(caller.user.nid, &request.device_id, name).await?? {
            return Ok((StatusCode::CREATED, Reply(Response::new())).into_response());
        }
    }
    let found = match request.display_name {
        Some(name) => app.accounts.rename_device(caller.user.nid, &request.device_id, Some(name)).await??,
        None => app.accounts.find_device(caller.user.nid, &request.device_id).await?.is_some(),
    };
    if found { Ok(Reply(Response::new()).into_response()) } else { Err(unknown_device()) }
}
