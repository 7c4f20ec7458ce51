//! `GET /_matrix/client/v3/rooms/{roomId}/aliases` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases

use axum::extract::State;
use ruma::api::client::room::aliases::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The aliases of this server that point to the room, for users who may see the room.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let viewer = app.rooms.viewer(&app.account_data, &caller, &request.room_id).await?;
    Ok(Reply(Response::new(app.rooms.aliases(&viewer.room).await?)))
}
