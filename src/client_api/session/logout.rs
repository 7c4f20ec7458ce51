//! `POST /_matrix/client/v3/logout` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout

use axum::extract::State;
use ruma::api::client::session::logout::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Ends the caller's session and deletes its device.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    // Only the operator can revoke the token of an application service.
    let device_id = caller.device_id.clone().ok_or_else(|| ApiError::forbidden("There is no session to end."))?;
    app.accounts.delete_devices(caller.user.nid, &[device_id]).await?;
    Ok(Reply(Response::new()))
}
