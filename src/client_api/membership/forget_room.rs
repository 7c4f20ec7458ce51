//! `POST /_matrix/client/v3/rooms/{roomId}/forget` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget

use axum::{extract::State, http::StatusCode};
use ruma::api::{
    client::membership::forget_room::v3::{Request, Response},
    error::ErrorKind,
};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Forgets a room that the caller has left.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let forgotten = match app.rooms.find(&request.room_id).await? {
        Some(room) => app.rooms.forget(caller.user.nid, room.nid).await?,
        None => false,
    };
    if !forgotten {
        let message = "Only a room that you have left can be forgotten.";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::Unknown, message));
    }
    Ok(Reply(Response::new()))
}
