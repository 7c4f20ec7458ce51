//! `PUT /_matrix/client/v3/room_keys/keys` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys

use axum::extract::State;
use ruma::api::client::backup::add_backup_keys::v3::{Request, Response};

use super::answer;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::backup::{BackupError, RoomKey, parse_version},
};

/// Stores room keys of any rooms.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let keys = request
        .rooms
        .iter()
        .flat_map(|(room_id, room)| {
            room.sessions.iter().map(move |(session_id, key)| RoomKey::check(room_id, session_id, key))
        })
        .collect::<Result<Vec<_>, BackupError>>()?;
    let (etag, count) =
        answer(app.keys.put_backup_keys(caller.user.nid, parse_version(&request.version)?, keys).await?);
    Ok(Reply(Response::new(etag, count)))
}
