//! `GET /_matrix/client/v3/room_keys/keys/{roomId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomid

use std::collections::BTreeMap;

use axum::extract::State;
use ruma::api::client::backup::get_backup_keys_for_room::v3::{Request, Response};

use super::stored_key;
use crate::{
    app::App,
    http::{ApiError, Authed, Reply},
    keys::backup::parse_version,
    store::key_backup::Part,
};

/// The room keys of one room.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let version = parse_version(&request.version)?;
    let part = Part::Room(request.room_id.to_string());
    let mut sessions = BTreeMap::new();
    for (_, session_id, json) in app.keys.backup_keys(caller.user.nid, version, &part).await? {
        sessions.insert(session_id, stored_key(json)?);
    }
    Ok(Reply(Response::new(sessions)))
}
