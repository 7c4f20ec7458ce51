//! `GET /_matrix/client/v3/devices` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices

use axum::extract::State;
use ruma::api::client::device::get_devices::v3::{Request, Response};

use crate::{
    app::App,
    http::{ApiError, Authed, Reply},
};

/// All devices of the caller.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    Ok(Reply(Response::new(app.accounts.list_devices(caller.user.nid).await?)))
}
