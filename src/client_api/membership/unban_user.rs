//! `POST /_matrix/client/v3/rooms/{roomId}/unban` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidunban

use axum::extract::State;
use ruma::api::client::membership::unban_user::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Lets a banned user come back.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    app.rooms.unban(&caller, &request.room_id, &request.user_id, request.reason.as_deref()).await?;
    Ok(Reply(Response::new()))
}
