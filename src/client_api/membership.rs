//! Membership: [`ruma::api::client::membership`].

mod ban_user;
mod forget_room;
mod get_member_events;
mod invite_user;
mod join_room_by_id;
mod join_room_by_id_or_alias;
mod joined_members;
mod joined_rooms;
mod kick_user;
mod leave_room;
mod unban_user;
mod with_content;

use axum::http::StatusCode;
use ruma::{UserId, api::error::ErrorKind};

use crate::{app::App, endpoint::Routes, http::ApiError, limits::rate_limits::Action, room::write::send::SendError};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Join, join_room_by_id::handle)
        .serve(Action::Join, join_room_by_id_or_alias::handle)
        .serve(Action::Invite, invite_user::handle)
        .serve(Action::Other, leave_room::handle)
        .serve(Action::Other, kick_user::handle)
        .serve(Action::Other, ban_user::handle)
        .serve(Action::Other, unban_user::handle)
        .serve(Action::Other, forget_room::handle)
        .serve(Action::Other, get_member_events::handle)
        .serve(Action::Other, joined_members::handle)
        .serve(Action::Other, joined_rooms::handle)
}

/// Turns the error for an unknown room into `404`. This reveals nothing more: any other answer also shows whether the
/// room exists.
pub(super) fn unknown_room_is_not_found(error: SendError) -> ApiError {
    match error {
        SendError::UnknownRoom { .. } => ApiError::not_found("This server has no such room."),
        error => error.into(),
    }
}

/// Refuses a user of another server, whom this server cannot reach.
pub(super) fn check_is_local(app: &App, user_id: &UserId) -> Result<(), ApiError> {
    if user_id.server_name() == app.rooms.server_name() {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("{user_id} is on another server, and this server does not federate.")))
}

/// The error for invitations by email address or telephone number, which need an identity server.
pub(super) fn no_third_party_invites() -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        ErrorKind::ThreepidDenied,
        "This server invites by user ID only, not by email address or telephone number.",
    )
}
