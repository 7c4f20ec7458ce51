//! The settings of a user that are carried over from a replaced room to the new one: push rules, tags, and the entry
//! among the direct chats.

use ruma::{OwnedRoomId, RoomId};
use serde::Deserialize;

use crate::{account::LocalDevice, account_data::PutError, app::App, push::ChangeError, report::Report, store};

/// Copies the caller's settings from the room's predecessor, if it has one. The caller is already in the room, so a
/// failure here is only logged.
pub(super) async fn carry_over(app: &App, caller: &LocalDevice, room_id: &RoomId) {
    let predecessor = match find(app, room_id).await {
        Ok(Some(predecessor)) => predecessor,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(%room_id, user_id = %caller.user_id(), error = %Report(&error), "predecessor of a room not looked up");
            return;
        }
    };
    if let Err(error) = carry_push_rules_over(app, caller, &predecessor, room_id).await {
        tracing::warn!(%room_id, user_id = %caller.user_id(), error = %Report(&error), "push rules not carried over");
    }
    if let Err(error) = carry_account_data_over(app, caller, &predecessor, room_id).await {
        tracing::warn!(%room_id, user_id = %caller.user_id(), error = %Report(&error), "tags not carried over");
    }
}

async fn carry_push_rules_over(app: &App, caller: &LocalDevice, old: &RoomId, new: &RoomId) -> Result<(), ChangeError> {
    app.push.carry_over(&caller.user, old, new).await
}

/// Copies tags and the direct-chat entry, if the old room names the new one. Tags order the user's room list, so a room
/// must not get them by only claiming to replace another.
async fn carry_account_data_over(app: &App, caller: &LocalDevice, old: &RoomId, new: &RoomId) -> Result<(), PutError> {
    #[derive(Deserialize)]
    struct Tombstone {
        replacement_room: OwnedRoomId,
    }
    let (Some(old), Some(new)) = (app.rooms.find(old).await?, app.rooms.find(new).await?) else { return Ok(()) };
    let tombstone = app.rooms.current_state_event(&old, "m.room.tombstone", "").await?;
    let tombstone = tombstone.and_then(|tombstone| tombstone.content::<Tombstone>());
    if tombstone.is_none_or(|tombstone| tombstone.replacement_room != new.room_id) {
        return Ok(());
    }
    app.account_data.carry_tags_over(caller.user.nid, old.nid, new.nid).await?;
    app.account_data.carry_direct_over(caller.user.nid, &old.room_id, &new.room_id).await
}

/// The predecessor that the room names in its create event.
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
