//! `DELETE /_matrix/client/v3/room_keys/keys/{roomId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeysroomid

use axum::extract::State;
use ruma::api::client::backup::delete_backup_keys_for_room::v3::{Request, Response};

use super::answer;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::backup::parse_version,
    store::key_backup::Part,
};

/// Deletes the room keys of one room.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let version = parse_version(&request.version)?;
    let (etag, count) =
        answer(app.keys.delete_backup_keys(caller.user.nid, version, Part::Room(request.room_id.to_string())).await?);
    Ok(Reply(Response::new(etag, count)))
}
