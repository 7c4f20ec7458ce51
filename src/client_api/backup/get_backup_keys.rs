//! `GET /_matrix/client/v3/room_keys/keys` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys

use std::collections::BTreeMap;

use axum::extract::State;
use ruma::{
    OwnedRoomId,
    api::client::backup::{
        RoomKeyBackup,
        get_backup_keys::v3::{Request, Response},
    },
};

use super::stored_key;
use crate::{
    app::App,
    http::{ApiError, Authed, Reply},
    keys::backup::parse_version,
    store::{Error, key_backup::Part},
};

/// All room keys of a version.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let version = parse_version(&request.version)?;
    let mut rooms: BTreeMap<OwnedRoomId, RoomKeyBackup> = BTreeMap::new();
    for (room_id, session_id, json) in app.keys.backup_keys(caller.user.nid, version, &Part::All).await? {
        let room_id = room_id.as_str().try_into().map_err(|error| Error::damaged("room ID of a backup", error))?;
        let room = rooms.entry(room_id).or_insert_with(|| RoomKeyBackup::new(BTreeMap::new()));
        room.sessions.insert(session_id, stored_key(json)?);
    }
    Ok(Reply(Response::new(rooms)))
}
