//! `GET /_matrix/client/v3/directory/list/room/{roomId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid

use axum::extract::State;
use ruma::api::client::{
    directory::get_room_visibility::v3::{Request, Response},
    room::Visibility,
};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Returns whether the room is in the public directory.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let room = app.rooms.find(&request.room_id).await?;
    let room = room.ok_or_else(|| ApiError::not_found("There is no such room here."))?;
    let is_published = app.rooms.is_published(room.nid).await?;
    Ok(Reply(Response::new(if is_published { Visibility::Public } else { Visibility::Private })))
}
