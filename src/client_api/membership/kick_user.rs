//! `POST /_matrix/client/v3/rooms/{roomId}/kick` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick

use axum::extract::State;
use ruma::api::client::membership::kick_user::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Removes another user from the room, or withdraws their invitation.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    app.rooms.kick(&caller, &request.room_id, &request.user_id, request.reason.as_deref()).await?;
    Ok(Reply(Response::new()))
}
