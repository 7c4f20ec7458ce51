//! `POST /_matrix/client/v3/rooms/{roomId}/leave` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave

use axum::extract::State;
use ruma::api::client::membership::leave_room::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Leaves a room, declines an invitation, or withdraws a request to join.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    app.rooms.leave(&caller, &request.room_id, request.reason.as_deref()).await?;
    Ok(Reply(Response::new()))
}
