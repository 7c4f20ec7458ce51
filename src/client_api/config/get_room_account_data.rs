//! `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridroomsroomidaccount_datatype

use axum::extract::State;
use ruma::{
    api::client::config::get_room_account_data::v3::{Request, Response},
    serde::Raw,
};

use super::{check_own, own_room};
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// One type of account data of a room.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    check_own(&caller, &request.user_id)?;
    let room = own_room(&app, &caller, &request.room_id).await?;
    let content = app.account_data.find(caller.user.nid, room.nid, &request.event_type.to_string()).await?;
    let content = content.ok_or_else(|| ApiError::not_found("There is no such account data."))?;
    Ok(Reply(Response::new(Raw::from_json(content))))
}
