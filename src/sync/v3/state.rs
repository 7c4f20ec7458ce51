//! The state of a room in an answer.
//!
//! Promise: a client that applies the state of an answer, and then the state events of its timeline in order, has the
//! room's state as of the end of the answer. This holds for every key that the state filter accepts, and for the
//! members that lazy loading must send. With `state_after` the state alone suffices. The promise holds even if a
//! filter, a limit or the history visibility hides events from the timeline.
//!
//! The rule is in [`find`], and nowhere else. The state of an answer is the state before the timeline, or the part of
//! it that changed since the client's last request, as the specification says. But for a key whose newest event the
//! timeline does not show, it has that newest event. If the timeline shows an older event of such a key, the client
//! would apply that one last; so the timeline begins after it, and has a gap.

use std::collections::{BTreeMap, BTreeSet};

use ruma::api::client::filter::LazyLoadOptions;
use sabha_federation::state_log::StateEntry;

use super::{
    Look,
    budget::written_bytes,
    membership::RoomLook,
    timeline::{Timeline, write_event},
};
use crate::{
    room::event::{StoredEvent, View},
    store::{Error, EventNid, KeyNid, Position},
    sync::json::Array,
};

/// The maximum number of state events in memory at a time: 16 MiB of the largest. Most rooms have fewer.
const READ_AT_ONCE: usize = 256;

type Entries = BTreeMap<KeyNid, StateEntry>;

/// Finds the state events for the answer; the filter may not accept all of them. May shorten the timeline. With lazy
/// loading, the members whose keys are `owed` are included, unless the client has them.
pub(super) async fn find(
    look: &Look<'_>,
    room: &RoomLook,
    timeline: &mut Timeline,
    owed: &[KeyNid],
) -> Result<Vec<EventNid>, Error> {
    let filter = &look.request.filter.room.state;
    if !filter.accepts_room(&room.room.room_id) {
        return Ok(Vec::new());
    }
    if room.only_departure {
        return departure(look, room, timeline).await;
    }
    let full = room.since.is_none() || look.request.full_state;
    let (at, mut entries) = if look.request.state_after {
        (room.upto, entries(look, room, room.upto, full).await?)
    } else {
        let hidden = hidden(look, room, timeline).await?;
        let is_outdated = |event: &StoredEvent| event.key.is_some_and(|key| hidden.contains_key(&key));
        let outdated = timeline.events.iter().rev().find(|(_, event)| is_outdated(event)).map(|(pos, _)| *pos);
        if let Some(pos) = outdated {
            timeline.begin_after(pos);
        }
        let at = timeline.start.line_upto();
        let mut entries = entries(look, room, at, full).await?;
        entries.extend(hidden);
        (at, entries)
    };
    if let LazyLoadOptions::Enabled { include_redundant_members } = filter.lazy_load {
        let lazy = Lazy { look, room, timeline, at, full, redundant: include_redundant_members };
        lazy.apply(&mut entries, owed).await?;
    }
    Ok(entries.values().map(|entry| entry.event_nid).collect())
}

/// The amount of state that was written.
#[derive(Debug, Default)]
pub(super) struct WrittenState {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// Writes the state events that the filter accepts, without holding all of them in memory at once. Returns `None` if
/// they have more than `most` bytes.
pub(super) async fn write(
    look: &Look<'_>,
    room: &RoomLook,
    nids: &[EventNid],
    most: usize,
    array: &mut Array<'_>,
) -> Result<Option<WrittenState>, Error> {
    let filter = &look.request.filter.room.state;
    let view = View { now_ms: look.now_ms, ..View::default() };
    let mut written = WrittenState::default();
    for part in nids.chunks(READ_AT_ONCE) {
        let events = look.app.rooms.events.list_some(&room.room, part, nids.len()).await?;
        for event in events.iter().filter(|event| filter.accepts(event)) {
            written.events += 1;
            written.bytes += written_bytes(event);
            if written.bytes > most {
                return Ok(None);
            }
            write_event(look, event, view, array);
        }
    }
    Ok(Some(written))
}

/// The state for a user outside the room whose invitation, knock or ban ends: their own member event, unless the
/// timeline shows it.
async fn departure(look: &Look<'_>, room: &RoomLook, timeline: &Timeline) -> Result<Vec<EventNid>, Error> {
    let own = look.caller.user_id().as_str();
    let event = look.app.rooms.state_event(&room.room, "m.room.member", own, room.upto).await?;
    let is_told = |event: EventNid| !look.request.state_after && timeline.shows(event);
    Ok(event.into_iter().map(|event| event.nid).filter(|event| !is_told(*event)).collect())
}

/// The state at `at`, or the part of it that changed since the client's last request.
async fn entries(look: &Look<'_>, room: &RoomLook, at: Position, full: bool) -> Result<Entries, Error> {
    let rooms = &look.app.rooms;
    match room.since {
        Some(since) if !full => {
            if since >= at {
                return Ok(Entries::new());
            }
            let changes = rooms.state_changes(&room.room, since, at).await?;
            Ok(changes.into_iter().filter_map(|(key, entry)| entry.map(|entry| (key, entry))).collect())
        }
        _ => Ok(rooms.state_at(&room.room, at).await?.into_iter().collect()),
    }
}

/// The keys that change within the timeline and whose newest event the timeline does not show, each with that event.
/// Only keys that the state filter accepts are included.
async fn hidden(look: &Look<'_>, room: &RoomLook, timeline: &Timeline) -> Result<Entries, Error> {
    let rooms = &look.app.rooms;
    let start = timeline.start.line_upto();
    if start >= room.upto {
        return Ok(Entries::new());
    }
    let changes = rooms.state_changes(&room.room, start, room.upto).await?;
    let mut hidden: Entries = changes
        .into_iter()
        .filter_map(|(key, entry)| Some((key, entry?)))
        .filter(|(_, entry)| !timeline.shows(entry.event_nid))
        .collect();
    if hidden.is_empty() {
        return Ok(hidden);
    }
    let nids: Vec<_> = hidden.values().map(|entry| entry.event_nid).collect();
    for part in nids.chunks(READ_AT_ONCE) {
        let events = rooms.events.list_some(&room.room, part, nids.len()).await?;
        let unwanted = events.iter().filter(|event| !look.request.filter.room.state.accepts(event));
        for key in unwanted.filter_map(|event| event.key) {
            hidden.remove(&key);
        }
    }
    Ok(hidden)
}

/// Lazy loading of the members of one room.
struct Lazy<'a> {
    look: &'a Look<'a>,
    room: &'a RoomLook,
    timeline: &'a Timeline,
    at: Position,
    full: bool,
    redundant: bool,
}

impl Lazy<'_> {
    /// Keeps the members whose events the client sees, those that are owed, and the client's own, and adds those of
    /// them that the client does not know yet. Keeps all changes even if the client gets the full state: it may know
    /// any member, from earlier timelines or from `/members`.
    async fn apply(&self, entries: &mut Entries, owed: &[KeyNid]) -> Result<(), Error> {
        let Look { app, caller, .. } = self.look;
        let (device, room) = (caller.device_nid, self.room.room.nid);
        match self.room.since {
            None => app.lazy_members.forget(device, room),
            Some(since) => app.lazy_members.rewind(device, room, since),
        }
        let mut senders: BTreeSet<&str> =
            self.timeline.events.iter().map(|(_, event)| event.sender().as_str()).collect();
        if self.full {
            senders.insert(caller.user_id().as_str());
        }
        let senders = app.db.find_state_keys("m.room.member", senders).await?;
        let keys: BTreeSet<KeyNid> = senders.into_iter().chain(owed.iter().copied()).collect();
        // In a room that could not be read for a while, the client may know members that have changed since.
        if self.full && !self.look.was_left_out(room) {
            let known_up_to = self.known_up_to();
            let has_changed = |entry: &StateEntry| known_up_to.is_some_and(|pos| entry.pos > pos);
            entries.retain(|key, entry| entry.membership.is_none() || keys.contains(key) || has_changed(entry));
        }
        for key in keys {
            let entry = match entries.get(&key) {
                Some(entry) => *entry,
                None => {
                    let Some(entry) = app.rooms.entry_at(&self.room.room, key, self.at).await? else { continue };
                    let known = app.lazy_members.knows(device, room, key, entry.event_nid, self.look.since_pos());
                    if (known && !self.redundant) || self.timeline.shows(entry.event_nid) {
                        continue;
                    }
                    entries.insert(key, entry);
                    entry
                }
            };
            app.lazy_members.send(device, room, key, entry.event_nid, self.look.upto);
        }
        if !self.look.request.state_after {
            // The client knows these members from the timeline.
            for (_, event) in self.timeline.events.iter().filter(|(_, event)| event.membership().is_some()) {
                if let Some(key) = event.key {
                    app.lazy_members.send(device, room, key, event.nid, self.look.upto);
                }
            }
        }
        Ok(())
    }

    /// A position up to which the client surely knows all changes of the members that it knows. `None` if it knows no
    /// members.
    ///
    /// A client whose user rejoins a room keeps its knowledge from an earlier stay. How far that reaches is not
    /// recorded: the token is from after it, and the end of a stay is not sent to a user who was invited again at once,
    /// or who forgot the room. But a member that has not changed since the user first joined cannot be outdated.
    fn known_up_to(&self) -> Option<Position> {
        let asked_after = |came: &Position| !self.look.is_initial() && *came <= self.look.since_pos();
        self.room.since.or_else(|| self.room.sight.first_joined().filter(asked_after))
    }
}
