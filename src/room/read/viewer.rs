//! A user who reads a room, and the events that they are shown of it.
//!
//! Promise: nothing is shown that the user may not see, nor messages of users whom they ignore. Hidden events look as if
//! they did not exist.

use std::sync::Arc;

use ruma::{EventId, OwnedRoomId, RoomId};

use super::{timeline::TimelineEvent, visibility::Sight};
use crate::{
    account::LocalDevice,
    account_data::{AccountData, ignored::Ignored},
    room::{Room, Rooms, event::StoredEvent},
    store::{self, Position},
};

/// Errors of reading a room.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the user is not in {room_id} and never was")]
    NotInRoom { room_id: OwnedRoomId },
    #[error("there is no such event")]
    UnknownEvent,
    #[error("it could not be read")]
    Storage(#[from] store::Error),
}

impl ReadError {
    /// The error of an endpoint that is asked for an event. Its only refusal is that the event is not found, also for a
    /// room that may not be read.
    #[must_use]
    pub fn of_event(self) -> Self {
        match self {
            Self::NotInRoom { .. } => Self::UnknownEvent,
            error => error,
        }
    }
}

/// A user who reads a room that they may read.
pub struct Viewer<'a> {
    pub room: Arc<Room>,
    pub caller: &'a LocalDevice,
    pub sight: Arc<Sight>,
    ignored: Arc<Ignored>,
}

impl Viewer<'_> {
    /// Returns whether the user is shown the event.
    pub fn is_shown(&self, event: &StoredEvent) -> bool {
        self.sight.sees(event) && !event.is_hidden_by(&self.ignored)
    }
}

impl Rooms {
    /// The caller as a reader of the room.
    ///
    /// # Errors
    /// [`ReadError::NotInRoom`] also for rooms that do not exist.
    pub async fn viewer<'a>(
        &self,
        data: &AccountData,
        caller: &'a LocalDevice,
        room_id: &RoomId,
    ) -> Result<Viewer<'a>, ReadError> {
        let not_in_room = || ReadError::NotInRoom { room_id: room_id.to_owned() };
        let room = self.find(room_id).await?.ok_or_else(not_in_room)?;
        let sight = self.sight(&room, &caller.user).await?;
        let now = self.db.committer().published();
        let entry = self.member_entry(caller.user.nid, room.nid).await?;
        // A former member who was invited again, or who knocks, may still read: the spec only asks that they were a
        // member.
        let was_in = entry.is_some_and(|entry| !entry.forgotten) && sight.ever_joined();
        if !was_in && !sight.sees_now(now) {
            return Err(not_in_room());
        }
        let ignored = data.ignored(&caller.user).await?;
        Ok(Viewer { room, caller, sight, ignored })
    }

    /// The position up to which a user sees the room's state: now, or when they left.
    pub fn state_horizon(&self, sight: &Sight) -> Position {
        let now = self.db.committer().published();
        if sight.sees_now(now) { now } else { sight.joined_until(now).unwrap_or(Position::BEFORE_ALL) }
    }

    /// One event of the room's timeline.
    ///
    /// # Errors
    /// [`ReadError::UnknownEvent`] also for one that the viewer is not shown.
    pub async fn event(&self, viewer: &Viewer<'_>, event_id: &EventId) -> Result<TimelineEvent, ReadError> {
        let event = self.find_in_timeline(&viewer.room, event_id).await?.ok_or(ReadError::UnknownEvent)?;
        match event.place() {
            Some(place) if viewer.is_shown(&event) => Ok((place, event)),
            _ => Err(ReadError::UnknownEvent),
        }
    }
}
