//! `DELETE /_matrix/client/v3/room_keys/keys` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys

use axum::extract::State;
use ruma::api::client::backup::delete_backup_keys::v3::{Request, Response};

use super::answer;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::backup::parse_version,
    store::key_backup::Part,
};

/// Deletes all room keys of a version.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let version = parse_version(&request.version)?;
    let (etag, count) = answer(app.keys.delete_backup_keys(caller.user.nid, version, Part::All).await?);
    Ok(Reply(Response::new(etag, count)))
}
