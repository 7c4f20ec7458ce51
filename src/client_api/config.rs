//! Account data, of the account and of its rooms: [`ruma::api::client::config`].

mod get_global_account_data;
mod get_room_account_data;
mod set_global_account_data;
mod set_room_account_data;

use std::sync::Arc;

use axum::http::StatusCode;
use ruma::{RoomId, UserId, api::error::ErrorKind};
use serde_json::value::RawValue;

use crate::{
    account::LocalDevice, account_data::SERVER_MANAGED, app::App, endpoint::Routes, http::ApiError,
    limits::rate_limits::Action, room::Room,
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_global_account_data::handle)
        .serve(Action::Other, get_room_account_data::handle)
        .serve(Action::Other, set_global_account_data::handle)
        .serve(Action::Other, set_room_account_data::handle)
}

/// Refuses access to another user's data.
pub(super) fn check_own(caller: &LocalDevice, user_id: &UserId) -> Result<(), ApiError> {
    if caller.user_id() == user_id { Ok(()) } else { Err(ApiError::forbidden("That belongs to another user.")) }
}

/// Finds a room in which the caller has or had a membership. Any other room looks unknown.
pub(super) async fn own_room(app: &App, caller: &LocalDevice, room_id: &RoomId) -> Result<Arc<Room>, ApiError> {
    let unknown = || ApiError::not_found("You have nothing to do with that room.");
    let room = app.rooms.find(room_id).await?.ok_or_else(unknown)?;
    app.rooms.membership(caller.user.nid, room.nid).await?.ok_or_else(unknown)?;
    Ok(room)
}

/// Refuses types that the server manages, and content that is not an object.
fn check_settable(event_type: &str, content: &RawValue) -> Result<(), ApiError> {
    if SERVER_MANAGED.contains(&event_type) {
        return Err(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::BadJson,
            format!("{event_type} cannot be set through this API."),
        ));
    }
    if !content.get().starts_with('{') {
        return Err(ApiError::bad_json("Account data must be a JSON object."));
    }
    Ok(())
}
