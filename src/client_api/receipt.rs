//! Read receipts: [`ruma::api::client::receipt`].

mod create_receipt;

use std::sync::Arc;

use ruma::RoomId;
use sabha_federation::state_log::Membership;

use crate::{
    account::LocalDevice, app::App, endpoint::Routes, http::ApiError, limits::rate_limits::Action, room::Room,
};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Send, create_receipt::handle)
}

/// A room that the caller is joined to.
pub(super) async fn joined_room(app: &App, caller: &LocalDevice, room_id: &RoomId) -> Result<Arc<Room>, ApiError> {
    let not_joined = || ApiError::forbidden("You are not in this room.");
    let room = app.rooms.find(room_id).await?.ok_or_else(not_joined)?;
    match app.rooms.membership(caller.user.nid, room.nid).await? {
        Some(Membership::Join) => Ok(room),
        _ => Err(not_joined()),
    }
}
