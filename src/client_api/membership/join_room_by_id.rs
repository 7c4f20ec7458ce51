//! `POST /_matrix/client/v3/rooms/{roomId}/join` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin

use axum::extract::State;
use ruma::api::client::membership::join_room_by_id::v3::{Request, Response};

use super::{unknown_room_is_not_found, with_content::Content};
use crate::{
    app::App,
    client_api::with::With,
    endpoint::Authed,
    http::{ApiError, Reply},
    use_cases::joining,
};

/// Joins a room. Joining again changes nothing.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<With<Content, Request>>,
) -> Result<Reply<Response>, ApiError> {
    let With { besides: Content(content), request } = request;
    let member = (request.reason.as_deref(), &content);
    joining::join(&app, &caller, &request.room_id, member).await.map_err(unknown_room_is_not_found)?;
    Ok(Reply(Response::new(request.room_id)))
}
