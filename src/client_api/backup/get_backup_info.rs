//! `GET /_matrix/client/v3/room_keys/version/{version}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion

use axum::extract::State;
use ruma::{
    api::client::backup::get_backup_info::v3::{Request, Response},
    serde::Raw,
};

use super::count;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::backup::parse_version,
};

/// The algorithm, key count and etag of a version.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let version = app.keys.backup(caller.user.nid, parse_version(&request.version)?).await?;
    Ok(Reply(Response::new(
        Raw::from_json(version.algorithm),
        count(version.count),
        version.etag.to_string(),
        version.number.to_string(),
    )))
}
