//! The rooms of a user that changed while nobody watched, and everything that a look at many rooms reads, many at once.
//!
//! Promise: what is read here is what a look would read for each room alone. A room that cannot be read so is left for
//! that, which reports it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{OwnedRoomId, RoomId};
use sabha_federation::state_log::Membership;

use super::{
    Room, Rooms,
    load::{self, RoomRows, StoredExtremity},
    registry::lock_of,
    ring::Ring,
};
use crate::store::{
    Error, EventNid, Position, RoomNid, UserNid,
    changed_rooms::{self as rows, AT_ONCE},
    ids::unpack,
    members,
};

/// The number of events of a room that are read with it, for a client that was away: its timeline has ten, and the
/// unread messages are mostly among them.
const LATEST_EVENTS: usize = 20;

/// The events that are read with the rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithEvents {
    None,
    Latest,
}

impl Rooms {
    /// The rooms of the user with news in the database after `since`: all of those that a look at every room would find,
    /// and perhaps some more. It finds no account data, and nothing that is only in memory. The rooms are loaded.
    pub async fn changed_since(
        &self,
        user: UserNid,
        since: Position,
        events: WithEvents,
    ) -> Result<Vec<RoomNid>, Error> {
        let mut reader = self.db.read().await?;
        let changed = rows::changed_rooms(&mut reader.conn(), user, since, Membership::Join.code()).await?;
        drop(reader);
        let with_id = changed.iter().filter_map(|(room, room_id)| Some((*room, room_id.as_deref()?)));
        self.load_many(with_id, events).await?;
        Ok(changed.into_iter().map(|(room, _)| room).collect())
    }

    /// Loads all rooms that the user is joined to, and returns them.
    pub async fn load_joined(&self, user: UserNid) -> Result<Vec<RoomNid>, Error> {
        let joined = self.joined_rooms(user).await?;
        if joined.iter().any(|room| self.in_memory(*room).is_none()) {
            let mut reader = self.db.read().await?;
            let room_ids = members::room_ids(&mut reader.conn(), user, Membership::Join.code()).await?;
            drop(reader);
            let with_id = room_ids.iter().map(|(room, room_id)| (RoomNid(*room), room_id.as_str()));
            self.load_many(with_id, WithEvents::None).await?;
        }
        Ok(joined)
    }

    /// Loads those of these rooms that are not in memory.
    pub(super) async fn load_many(
        &self,
        rooms: impl Iterator<Item = (RoomNid, &str)> + Send,
        events: WithEvents,
    ) -> Result<(), Error> {
        let parsed = rooms.filter_map(|(room, room_id)| Some((room, RoomId::parse(room_id).ok()?)));
        let missing: Vec<(RoomNid, OwnedRoomId)> = parsed.filter(|(room, _)| self.may_load(*room)).collect();
        for chunk in missing.chunks(AT_ONCE) {
            leave_damage(self.load_chunk(chunk, events).await)?;
        }
        Ok(())
    }

    /// Returns whether the room is not in memory, and nothing speaks against loading it together with others. A broken
    /// room must first be settled, and one that could not be loaded a moment ago is not asked for again.
    fn may_load(&self, room: RoomNid) -> bool {
        let registry = self.registry.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        !registry.by_nid.contains_key(&room) && self.damage.lately(room, self.clock.now_ms()).is_none()
    }

    async fn load_chunk(&self, chunk: &[(RoomNid, OwnedRoomId)], events: WithEvents) -> Result<(), Error> {
        // As in `find`, and always in the same order: two tasks that wait for each other would wait for ever.
        let locks: BTreeSet<usize> = chunk.iter().map(|(_, room_id)| lock_of(room_id.as_bytes())).collect();
        let mut loading = Vec::with_capacity(locks.len());
        for lock in locks {
            loading.push(self.loading[lock].lock().await);
        }
        let nids: Vec<RoomNid> = chunk.iter().map(|(room, _)| *room).filter(|room| self.may_load(*room)).collect();
        if nids.is_empty() {
            return Ok(());
        }
        let read_at = self.db.committer().published();
        let mut reader = self.db.read().await?;
        let stored = rows::rooms(&mut reader.conn(), &nids).await?;
        let mut changes: HashMap<RoomNid, Vec<_>> = HashMap::new();
        for change in rows::state_logs(&mut reader.conn(), &nids).await? {
            changes.entry(change.room).or_default().push(change.row);
        }
        let mut places: HashMap<RoomNid, Vec<(Position, EventNid)>> = HashMap::new();
        if events == WithEvents::Latest {
            for (room, pos, event) in rows::latest_places(&mut reader.conn(), &nids, LATEST_EVENTS).await? {
                places.entry(room).or_default().push((pos, event));
            }
        }
        // Damaged extremities make the room fail below.
        let extremities = |blob: &[u8]| unpack(blob).unwrap_or_default();
        let mut wanted: BTreeSet<EventNid> = places.values().flatten().map(|(_, event)| *event).collect();
        wanted.extend(stored.iter().flat_map(|stored| extremities(&stored.row.extremities)));
        let read = self.events.read(&mut reader, &wanted.into_iter().collect::<Vec<_>>()).await?;
        drop(reader);
        let by_nid: HashMap<EventNid, _> = read.rows.iter().map(|row| (EventNid(row.event_nid), row)).collect();
        for stored in stored {
            let room = RoomNid(stored.row.room_nid);
            let nids = extremities(&stored.row.extremities);
            let rows = RoomRows {
                extremities: nids
                    .iter()
                    .filter_map(|nid| by_nid.get(nid))
                    .map(|row| StoredExtremity::of(row))
                    .collect(),
                row: stored.row,
                checkpoint: stored.checkpoint,
                changes: changes.remove(&room).unwrap_or_default(),
            };
            let mut loaded = match load::from_rows(self, rows) {
                Ok(loaded) => loaded,
                // Another process may have written between the statements. A room that is read alone bears that.
                Err(_) if self.db.committer().is_following() => continue,
                Err(error) => {
                    self.damage.not_loaded(room, &error, self.clock.now_ms());
                    continue;
                }
            };
            let places = places.remove(&room).unwrap_or_default();
            let latest = places.iter().map(|(pos, nid)| {
                let event = read.parse(&loaded.rules, by_nid.get(nid)?).ok()?;
                Some((*pos, self.events.keep(event, read.before)))
            });
            // With one event missing, the ring stays empty: whoever asks for the events is told what is wrong.
            if let Some(latest) = latest.collect::<Option<Vec<_>>>() {
                let mut ring = Ring::new(loaded.last_pos(), Arc::clone(&self.rings));
                ring.fill(&latest, latest.len() < LATEST_EVENTS);
                loaded.begin_ring(ring);
            }
            self.damage.loaded(room);
            self.register(loaded, read_at);
        }
        drop(loading);
        Ok(())
    }
}

impl Room {
    fn begin_ring(&mut self, ring: Ring) {
        self.view.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).ring = ring;
    }
}

/// Turns damage into success: the rows of one room must not keep the others from being read, one by one.
pub(super) fn leave_damage(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_damage() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
