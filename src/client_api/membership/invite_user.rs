//! `POST /_matrix/client/v3/rooms/{roomId}/invite` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite

use axum::extract::State;
use ruma::api::client::membership::invite_user::v3::{InvitationRecipient, Request, Response};

use super::{check_is_local, no_third_party_invites};
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Invites a user of this server.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let InvitationRecipient::UserId(invitee) = request.recipient else {
        return Err(no_third_party_invites());
    };
    check_is_local(&app, &invitee.user_id)?;
    let profile = app.rooms.find_profile_of(&invitee.user_id).await?;
    app.rooms.invite(&caller, &request.room_id, &invitee.user_id, &profile, invitee.reason.as_deref()).await?;
    Ok(Reply(Response::new()))
}
