//! What a user who comes into a room takes along from the room that it replaces.

use ruma::{OwnedRoomId, RoomId};
use serde::Deserialize;

use crate::{account::LocalDevice, app::App, push::ChangeError, store};

/// Gives the caller the push rules for a room that they had for its predecessor, if it has one. The caller is in the room
/// already, so what goes wrong here is only logged.
pub(super) async fn carry_over(app: &App, caller: &LocalDevice, room_id: &RoomId) {
    if let Err(error) = try_carry_over(app, caller, room_id).await {
        tracing::warn!(%room_id, user_id = %caller.user_id(), %error, "push rules not carried over");
    }
}

async fn try_carry_over(app: &App, caller: &LocalDevice, room_id: &RoomId) -> Result<(), ChangeError> {
    let Some(predecessor) = find(app, room_id).await.map_err(crate::account::data::PutError::Storage)? else {
        return Ok(());
    };
    app.push.carry_over(&caller.user, &predecessor, room_id).await
}

/// The room that this one says it replaces.
async fn find(app: &App, room_id: &RoomId) -> Result<Option<OwnedRoomId>, store::Error> {
    #[derive(Deserialize)]
    struct Content {
        predecessor: Option<Predecessor>,
    }
    #[derive(Deserialize)]
    struct Predecessor {
        room_id: OwnedRoomId,
    }
    let Some(room) = app.rooms.find(room_id).await? else { return Ok(None) };
    let create = app.rooms.current_state_event(&room, "m.room.create", "").await?;
    let content = create.and_then(|create| create.content::<Content>());
    Ok(content.and_then(|content| content.predecessor).map(|predecessor| predecessor.room_id))
}
