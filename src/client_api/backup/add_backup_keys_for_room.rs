//! `PUT /_matrix/client/v3/room_keys/keys/{roomId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomid

use axum::extract::State;
use ruma::api::client::backup::add_backup_keys_for_room::v3::{Request, Response};

use super::answer;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::backup::{BackupError, RoomKey, parse_version},
};

/// Stores room keys of one room.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let keys = request
        .sessions
        .iter()
        .map(|(session_id, key)| RoomKey::check(&request.room_id, session_id, key))
        .collect::<Result<Vec<_>, BackupError>>()?;
    let (etag, count) =
        answer(app.keys.put_backup_keys(caller.user.nid, parse_version(&request.version)?, keys).await?);
    Ok(Reply(Response::new(etag, count)))
}
