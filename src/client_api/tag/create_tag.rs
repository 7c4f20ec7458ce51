//! `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag

use axum::extract::State;
use ruma::api::client::tag::create_tag::v3::{Request, Response};

use crate::{
    app::App,
    client_api::config::{check_own, own_room},
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Adds a tag to a room.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    check_own(&caller, &request.user_id)?;
    let room = own_room(&app, &caller, &request.room_id).await?;
    app.account_data.set_tag(caller.user.nid, room.nid, request.tag, &request.tag_info).await?;
    Ok(Reply(Response::new()))
}
