//! `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidtags

use axum::extract::State;
use ruma::api::client::tag::get_tags::v3::Request;
use serde_json::json;

use crate::{
    app::App,
    client_api::config::{check_own, own_room},
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// The tags of a room, as they were stored.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    check_own(&caller, &request.user_id)?;
    let room = own_room(&app, &caller, &request.room_id).await?;
    let tags = app.account_data.tags(caller.user.nid, room.nid).await?;
    Ok(RawJson(json!({ "tags": tags }).to_string().into()))
}
