//! Reading a room: single events, pages of history, the surroundings of an event, and state.
//!
//! Promise: nothing is returned that the reader may not see, and hidden events look as if they did not exist.

use std::{collections::HashSet, sync::Arc};

use ruma::{EventId, OwnedRoomId, RoomId, UserId};

use super::{
    Room, Rooms,
    event::StoredEvent,
    relations::Related,
    scan::{MAX_SCANNED, Scan},
    state_log::Membership,
    timeline::{Part, TimelineEvent},
    visibility::Sight,
};
use crate::{
    account::LocalDevice,
    store::{self, EventNid, Position, TimelinePlace, events as rows},
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

/// A page of history.
#[derive(Debug, Default)]
pub struct Page {
    /// The events in the order of reading: newest first when going back.
    pub events: Vec<TimelineEvent>,
    /// The start of the next page. `None` if this is the last one.
    pub next: Option<TimelinePlace>,
}

impl Rooms {
    /// The room and what the caller may see of it.
    ///
    /// # Errors
    /// [`ReadError::NotInRoom`] also for rooms that do not exist.
    pub async fn readable(&self, caller: &LocalDevice, room_id: &RoomId) -> Result<(Arc<Room>, Arc<Sight>), ReadError> {
        let not_in_room = || ReadError::NotInRoom { room_id: room_id.to_owned() };
        let room = self.find(room_id).await?.ok_or_else(not_in_room)?;
        let sight = self.sight(&room, &caller.user).await?;
        let now = self.db.committer().published();
        let entry = self.member_entry(caller.user.nid, room.nid).await?;
        // A former member who was invited again, or who knocks, may still read: the spec only asks that they were a
        // member.
        let was_in = entry.is_some_and(|entry| !entry.forgotten) && sight.ever_joined();
        if was_in || sight.sees_now(now) { Ok((room, sight)) } else { Err(not_in_room()) }
    }

    /// The position up to which a user sees the room's state: now, or when they left.
    pub fn state_horizon(&self, sight: &Sight) -> Position {
        let now = self.db.committer().published();
        if sight.sees_now(now) { now } else { sight.joined_until(now).unwrap_or(Position::ZERO) }
    }

    /// One event of a readable room.
    ///
    /// # Errors
    /// [`ReadError::UnknownEvent`] also for one that the reader may not see.
    pub async fn event(&self, room: &Room, sight: &Sight, event_id: &EventId) -> Result<TimelineEvent, ReadError> {
        let mut reader = self.db.read().await?;
        let found = rows::find_event(&mut reader.conn(), event_id.as_str()).await?;
        drop(reader);
        let (nid, _) = found.filter(|(_, of)| *of == room.nid).ok_or(ReadError::UnknownEvent)?;
        let event = self.events.get(room, nid).await?;
        match event.place() {
            Some(place) if sight.sees(&event) => Ok((place, event)),
            _ => Err(ReadError::UnknownEvent),
        }
    }

    /// The position of the line at which an event is read: its own, or that of the event before its gap. Without the
    /// visibility check.
    pub async fn find_event(&self, room: &Room, event_id: &EventId) -> Result<Option<Position>, store::Error> {
        let mut reader = self.db.read().await?;
        let found = rows::find_event(&mut reader.conn(), event_id.as_str()).await?;
        drop(reader);
        match found.filter(|(_, of)| *of == room.nid) {
            Some((nid, _)) => Ok(self.events.get(room, nid).await?.place().map(TimelinePlace::line_upto)),
            None => Ok(None),
        }
    }

    /// Reads back from `from` (inclusive) to `until` (exclusive): at most `limit` events that `wanted` accepts. With
    /// `related`, only events to which such another one relates.
    pub async fn read_back(
        &self,
        room: &Room,
        sight: &Sight,
        range: (TimelinePlace, TimelinePlace),
        limit: usize,
        related: Option<Related<'_>>,
        wanted: impl Fn(&StoredEvent) -> bool,
    ) -> Result<Page, ReadError> {
        let accepts = |event: &StoredEvent| sight.sees(event) && wanted(event);
        Ok(self.scan_back_at_most((room, Part::WithHistory), range, (limit, MAX_SCANNED), related, accepts).await?.0)
    }

    /// Reads a part of the timeline back from `from` (inclusive) to `until` (exclusive) without the visibility check;
    /// `accepts` must do it. Reads no more than `max_scanned` events and relations, and also returns the number that it read.
    pub(crate) async fn scan_back_at_most(
        &self,
        (room, part): (&Room, Part),
        (from, until): (TimelinePlace, TimelinePlace),
        (limit, max_scanned): (usize, usize),
        related: Option<Related<'_>>,
        accepts: impl Fn(&StoredEvent) -> bool,
    ) -> Result<(Page, usize), store::Error> {
        let mut scan = Scan::new(from, limit, max_scanned);
        while let Some(mut count) = scan.next_count() {
            let mut events = self.page_back(room, part, (scan.next, until), count).await?;
            let parents = match related {
                Some(related) => {
                    let found = Box::pin(self.related_until(room, &events, related, scan.left(), &accepts)).await?;
                    Some(scan.settle(&mut events, &mut count, found))
                }
                None => None,
            };
            let accepts = |event: &StoredEvent| accepts(event) && is_among(parents.as_ref(), event);
            if scan.take(events, count, TimelinePlace::just_before, accepts) {
                break;
            }
        }
        Ok(scan.end())
    }

    /// Reads forward from `after` (exclusive) to `upto` (inclusive): at most `limit` events, as [`Self::read_back`]
    /// does.
    pub async fn read_forward(
        &self,
        room: &Room,
        sight: &Sight,
        (after, upto): (TimelinePlace, TimelinePlace),
        limit: usize,
        related: Option<Related<'_>>,
        wanted: impl Fn(&StoredEvent) -> bool,
    ) -> Result<Page, ReadError> {
        let accepts = |event: &StoredEvent| sight.sees(event) && wanted(event);
        let mut scan = Scan::new(after, limit, MAX_SCANNED);
        while let Some(mut count) = scan.next_count() {
            let mut events = self.page_forward(room, (scan.next, upto), count).await?;
            let parents = match related {
                Some(related) => {
                    let found = Box::pin(self.related_until(room, &events, related, scan.left(), &accepts)).await?;
                    Some(scan.settle(&mut events, &mut count, found))
                }
                None => None,
            };
            let accepts = |event: &StoredEvent| accepts(event) && is_among(parents.as_ref(), event);
            if scan.take(events, count, |place| place, accepts) {
                break;
            }
        }
        Ok(scan.end().0)
    }

    /// The whole state as of `upto`.
    pub async fn state_events(&self, room: &Room, upto: Position) -> Result<Vec<Arc<StoredEvent>>, store::Error> {
        let nids: Vec<_> = self.state_at(room, upto).await?.into_iter().map(|(_, entry)| entry.event_nid).collect();
        self.events.list(room, &nids).await
    }

    /// The state as of `upto`, with the member events of these users only.
    pub async fn state_events_with_members(
        &self,
        room: &Room,
        upto: Position,
        users: &HashSet<&UserId>,
    ) -> Result<Vec<Arc<StoredEvent>>, store::Error> {
        let users = users.iter().map(|user| user.as_str());
        let members: HashSet<_> = self.db.find_state_keys("m.room.member", users).await?.into_iter().collect();
        let state = self.state_at(room, upto).await?;
        let nids: Vec<_> = state
            .into_iter()
            .filter(|(key, entry)| entry.membership.is_none() || members.contains(key))
            .map(|(_, entry)| entry.event_nid)
            .collect();
        self.events.list(room, &nids).await
    }

    /// The member events as of `upto`, of those whose membership `wanted` accepts.
    pub async fn member_events(
        &self,
        room: &Room,
        upto: Position,
        wanted: impl Fn(Membership) -> bool,
    ) -> Result<Vec<Arc<StoredEvent>>, store::Error> {
        let state = self.state_at(room, upto).await?;
        let nids: Vec<_> = state
            .into_iter()
            .filter(|(_, entry)| entry.membership.is_some_and(&wanted))
            .map(|(_, entry)| entry.event_nid)
            .collect();
        self.events.list(room, &nids).await
    }

    /// The numbers of joined and of invited users as of `upto`.
    pub async fn member_counts(&self, room: &Room, upto: Position) -> Result<(usize, usize), store::Error> {
        {
            let view = room.view();
            if view.state.latest() <= upto {
                return Ok((view.state.joined(), view.state.invited()));
            }
        }
        let state = self.state_at(room, upto).await?;
        let count = |wanted| state.iter().filter(|(_, entry)| entry.membership == Some(wanted)).count();
        Ok((count(Membership::Join), count(Membership::Invite)))
    }
}

fn is_among(parents: Option<&HashSet<EventNid>>, event: &StoredEvent) -> bool {
    parents.is_none_or(|parents| parents.contains(&event.nid))
}
