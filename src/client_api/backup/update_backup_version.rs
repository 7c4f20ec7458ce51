//! `PUT /_matrix/client/v3/room_keys/version/{version}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion

use axum::extract::State;
use ruma::api::client::backup::update_backup_version::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::backup::{Algorithm, parse_version},
};

/// Replaces the public data of a version.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let algorithm = Algorithm::check(&request.algorithm)?;
    app.keys.update_backup(caller.user.nid, parse_version(&request.version)?, algorithm).await?;
    Ok(Reply(Response::new()))
}
