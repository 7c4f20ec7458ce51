//! Entering a room: by joining it, by creating it, or by upgrading another one. The user keeps their settings of the room
//! that it replaces ([`super::predecessor`]).

use ruma::{OwnedRoomId, RoomId};
use serde_json::{Map, Value};

use super::predecessor;
use crate::{
    account::LocalDevice,
    app::App,
    room::write::{
        create::{CreateError, NewRoom},
        send::SendError,
        upgrade::{Upgrade, UpgradeError},
    },
};

/// Joins the caller with their current profile, an optional reason and additional content. Joining again changes nothing.
///
/// # Errors
/// As [`Rooms::join_with`](crate::room::Rooms::join_with).
pub async fn join(
    app: &App,
    caller: &LocalDevice,
    room_id: &RoomId,
    (reason, more): (Option<&str>, &Map<String, Value>),
) -> Result<(), SendError> {
    let room_id = app.rooms.join_with(caller, room_id, (reason, more)).await?;
    predecessor::carry_over(app, caller, &room_id).await;
    Ok(())
}

/// Creates a room with the caller in it.
///
/// # Errors
/// As [`Rooms::create`](crate::room::Rooms::create).
pub async fn create(app: &App, caller: &LocalDevice, new: NewRoom) -> Result<OwnedRoomId, CreateError> {
    let room_id = app.rooms.create(caller, new).await?;
    predecessor::carry_over(app, caller, &room_id).await;
    Ok(room_id)
}

/// Replaces a room with a new one, and returns that.
///
/// # Errors
/// As [`Rooms::upgrade`](crate::room::Rooms::upgrade).
pub async fn upgrade(
    app: &App,
    caller: &LocalDevice,
    room_id: &RoomId,
    upgrade: Upgrade,
) -> Result<OwnedRoomId, UpgradeError> {
    let replacement = app.rooms.upgrade(caller, room_id, upgrade).await?;
    predecessor::carry_over(app, caller, &replacement).await;
    Ok(replacement)
}
