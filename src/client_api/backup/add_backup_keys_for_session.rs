//! `PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid

use axum::extract::State;
use ruma::api::client::backup::add_backup_keys_for_session::v3::{Request, Response};

use super::answer;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::backup::{RoomKey, parse_version},
};

/// Stores one room key.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let keys = vec![RoomKey::check(&request.room_id, &request.session_id, &request.session_data)?];
    let (etag, count) =
        answer(app.keys.put_backup_keys(caller.user.nid, parse_version(&request.version)?, keys).await?);
    Ok(Reply(Response::new(etag, count)))
}
