//! `DELETE /_matrix/client/v3/room_keys/version/{version}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion

use axum::extract::State;
use ruma::api::client::backup::delete_backup_version::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::backup::parse_version,
};

/// Deletes a version with all its room keys.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    app.keys.delete_backup(caller.user.nid, parse_version(&request.version)?).await?;
    Ok(Reply(Response::new()))
}
