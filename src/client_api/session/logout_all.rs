//! `POST /_matrix/client/v3/logout/all` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall

use axum::extract::State;
use ruma::api::client::session::logout_all::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Ends all sessions of the caller and deletes all their devices.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    app.accounts.delete_all_devices(caller.user.nid).await?;
    Ok(Reply(Response::new()))
}
