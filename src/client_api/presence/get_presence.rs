//! `GET /_matrix/client/v3/presence/{userId}/status` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus

use axum::extract::State;
use ruma::api::client::presence::get_presence::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The presence of the caller, or of someone who shares a room with the caller.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let hidden = || ApiError::forbidden("You are not allowed to see their presence.");
    let user = app.db.find_user(&request.user_id).await?.ok_or_else(hidden)?;
    if user.nid != caller.user.nid && !app.rooms.share_a_room(caller.user.nid, user.nid).await? {
        return Err(hidden());
    }
    let status = app.ephemeral.presence(user.nid);
    let mut response = Response::new(status.availability.into());
    response.status_msg = status.status_msg;
    response.currently_active = Some(status.currently_active);
    response.last_active_ago = status.last_active_ago;
    Ok(Reply(response))
}
