//! `GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid

use axum::extract::State;
use ruma::api::client::backup::get_backup_keys_for_session::v3::{Request, Response};

use super::stored_key;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::backup::{BackupError, parse_version},
    store::key_backup::Part,
};

/// One room key.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let version = parse_version(&request.version)?;
    let part = Part::Session(request.room_id.to_string(), request.session_id);
    let found = app.keys.backup_page(caller.user.nid, version, &part, None).await?.0.pop();
    let (_, _, json) = found.ok_or(BackupError::NoSuchKey)?;
    Ok(Reply(Response::new(stored_key(json)?)))
}
