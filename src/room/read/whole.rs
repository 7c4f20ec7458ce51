//! Reads whole rooms for a client that knows nothing of them: the state and the latest events of many rooms at once.
//!
//! Promise: the look would read the same for each room alone. A room that cannot be read here is left to it, and it reports
//! why.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::timeline::Placed;
use crate::{
    room::{Room, Rooms, changed::leave_damage, event::StoredEvent},
    store::{Error, EventNid, Position, RoomNid, changed_rooms as rows},
};

pub(crate) use crate::store::changed_rooms::AT_ONCE;

/// The number of state events that are read together for [`AT_ONCE`] rooms. They go through the cache, and more would evict
/// each other before they are written. The rooms beyond it read their state alone.
const MAX_STATE_EVENTS: usize = 1_024;

/// The state that names a room. Most rooms have one of them, or neither.
const NAMING: [&str; 2] = ["m.room.name", "m.room.canonical_alias"];

/// The members whose events a look shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShownMembers {
    All,
    /// The members who name the room.
    Heroes,
}

/// The latest events of a room's line.
#[derive(Debug, Clone, Default)]
pub(crate) struct LatestEvents {
    /// Oldest first.
    events: Vec<Placed>,
    /// True if the line has no others.
    is_all: bool,
}

impl LatestEvents {
    /// At most the `limit` latest events, and whether there are more. `None` if that is not known.
    pub(crate) fn latest(&self, limit: usize) -> Option<(Vec<Placed>, bool)> {
        let left_out = self.events.len().saturating_sub(limit);
        (self.is_all || left_out > 0).then(|| (self.events[left_out..].to_vec(), left_out > 0))
    }
}

impl Room {
    /// The events of the current state that a first look shows.
    fn shown_state(&self, members: ShownMembers) -> Vec<EventNid> {
        let view = self.view();
        let is_shown = |membership: Option<_>| membership.is_none() || members == ShownMembers::All;
        let entries =
            view.state.iter().filter(|(_, entry)| is_shown(entry.membership)).map(|(_, entry)| entry.event_nid);
        entries.take(MAX_STATE_EVENTS + 1).chain(view.heroes.events().iter().copied()).collect()
    }
}

impl Rooms {
    /// Reads what the first look at these rooms shows, at most [`AT_ONCE`] of them: the state, which is in the cache
    /// afterwards, and the latest `limit` events up to `upto` with one more, which are returned for the rooms that do not have
    /// them in memory.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn read_whole(
        &self,
        rooms: &[&Room],
        (upto, limit): (Position, usize),
        members: ShownMembers,
    ) -> Result<HashMap<RoomNid, LatestEvents>, Error> {
        for kind in NAMING {
            self.prepare_key(rooms, kind, "").await?;
        }
        let wanted = limit + 1;
        let lacks_events = |room: &&&Room| limit > 0 && room.latest(upto, wanted).is_none();
        let mut places: HashMap<RoomNid, Vec<(Position, EventNid)>> = HashMap::new();
        let mut unknown = Vec::new();
        for room in rooms.iter().filter(lacks_events) {
            match room.latest_places(upto, wanted) {
                Some(known) => _ = places.insert(room.nid, known),
                None => unknown.push(room.nid),
            }
        }
        if !unknown.is_empty() {
            let found = rows::latest_places(&mut self.db.read().await?.conn(), &unknown, wanted).await?;
            found.into_iter().for_each(|(room, pos, event)| places.entry(room).or_default().push((pos, event)));
        }
        let (mut events, mut state_events) = (Vec::new(), 0);
        let mut seen = BTreeSet::new();
        for room in rooms {
            let state = room.shown_state(members);
            if state_events + state.len() <= MAX_STATE_EVENTS {
                state_events += state.len();
                events.extend(state.into_iter().filter(|event| seen.insert(*event)).map(|event| (*room, event)));
            }
            let latest = places.get(&room.nid).into_iter().flatten().map(|(_, event)| *event);
            events.extend(latest.filter(|event| seen.insert(*event)).map(|event| (*room, event)));
        }
        let mut found = HashMap::new();
        leave_damage(self.events.prefetch(&events).await.map(|events| found = events))?;
        let complete = places.into_iter().filter_map(|(room, places)| {
            let is_all = places.len() < wanted;
            Some((room, LatestEvents { events: placed(places, upto, &found)?, is_all }))
        });
        Ok(complete.collect())
    }
}

/// The events of these places up to a position. `None` if one was not read.
fn placed(
    places: Vec<(Position, EventNid)>,
    upto: Position,
    found: &HashMap<EventNid, Arc<StoredEvent>>,
) -> Option<Vec<Placed>> {
    let places = places.into_iter().filter(|(pos, _)| *pos <= upto);
    places.map(|(pos, event)| Some((pos, Arc::clone(found.get(&event)?)))).collect()
}
