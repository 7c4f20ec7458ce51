//! The rooms of live users: who watches which room.

#[cfg(not(test))]
use std::hash::RandomState as Hashing;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard},
};

#[cfg(test)]
use super::counted::{self, Hashing};
use super::{Bus, LiveUser, live::Urgency};
use crate::store::{Position, RoomNid, UserNid, ids::lock};

/// The number of parts of each map, every one under its own lock. The committer and the syncs of a dozen cores then
/// rarely wait for each other.
const SHARDS: usize = 16;

/// A map whose look-ups a test can count.
pub(super) type Map<K, V> = HashMap<K, V, Hashing>;

/// A map from short ids in parts under their own locks. A lock is held for the length of a loop, and never two at once.
#[derive(Debug)]
pub(super) struct Shards<K, V>([Mutex<Map<K, V>>; SHARDS]);

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

/// The number of the part with this short id. Ids are given out one after the other, so the parts fill evenly.
fn shard_of(nid: i64) -> usize {
    usize::try_from(nid.unsigned_abs() % SHARDS as u64).unwrap_or_default()
}

impl<K: Hash + Eq, V> Shards<K, V> {
    /// The part of the map with this short id.
    pub(super) fn of(&self, nid: i64) -> MutexGuard<'_, Map<K, V>> {
        self.part(shard_of(nid))
    }

    fn part(&self, shard: usize) -> MutexGuard<'_, Map<K, V>> {
        #[cfg(test)]
        counted::locked();
        lock(&self.0[shard])
    }

    /// All parts, one after the other, for a loop over their entries.
    pub(super) fn all(&self) -> impl Iterator<Item = MutexGuard<'_, Map<K, V>>> {
        (0..SHARDS).map(|shard| {
            let part = self.part(shard);
            #[cfg(test)]
            counted::visited(part.len());
            part
        })
    }
}

/// The live users who watch a room.
type OfRoom = Map<UserNid, Arc<LiveUser>>;

/// The watchers of each room.
#[derive(Debug, Default)]
pub(super) struct Watchers(Shards<RoomNid, OfRoom>);

impl Watchers {
    /// Adds a watcher, unless the user was forgotten: there may be a newer entry of the user, which must stay.
    fn add(rooms: &mut Map<RoomNid, OfRoom>, room: RoomNid, live: &Arc<LiveUser>) -> bool {
        if live.is_retired() {
            return false;
        }
        rooms.entry(room).or_default().insert(live.user, Arc::clone(live));
        true
    }

    pub(super) fn remove(&self, user: UserNid, room: RoomNid) {
        let mut rooms = self.0.of(room.0);
        if let Some(users) = rooms.get_mut(&room) {
            users.remove(&user);
            if users.is_empty() {
                rooms.remove(&room);
            }
        }
    }

    /// Removes users who were forgotten.
    pub(super) fn forget_retired(&self) {
        for mut rooms in self.0.all() {
            rooms.retain(|_, users| {
                users.retain(|_, live| !live.is_retired());
                !users.is_empty()
            });
        }
    }

    /// Calls `each` with everyone who watches the room.
    pub(super) fn of_room(&self, room: RoomNid, each: impl FnMut(&Arc<LiveUser>)) {
        let rooms = self.0.of(room.0);
        let Some(users) = rooms.get(&room) else { return };
        #[cfg(test)]
        counted::visited(users.len());
        users.values().for_each(each);
    }
}

impl Bus {
    /// Makes a live user watch a room. Ignores users who are not live.
    pub fn watch(&self, user: UserNid, room: RoomNid) {
        let Some(live) = self.find(user) else { return };
        let mut rooms = self.watchers.0.of(room.0);
        if !Watchers::add(&mut rooms, room, &live) {
            return;
        }
        // Earlier marks of this room have not reached the user; later ones wait for the lock.
        let (position, ephemeral) = self.latest_marks();
        let is_newly_due = live.may_have_missed_in(room, position, ephemeral);
        drop(rooms);
        if is_newly_due {
            self.to_wake.add(Urgency::Now, vec![live]);
        }
    }

    /// Makes a user watch all rooms that they are joined to. The rooms must have been read after the user became live,
    /// or a join in between is missed.
    pub fn watch_all(&self, live: &Arc<LiveUser>, joined: &[RoomNid]) {
        let (mut position, mut ephemeral) = (Position::BEFORE_ALL, 0);
        for shard in 0..SHARDS {
            let mut of_shard = joined.iter().filter(|room| shard_of(room.0) == shard).peekable();
            if of_shard.peek().is_none() {
                continue;
            }
            let mut rooms = self.watchers.0.part(shard);
            for room in of_shard {
                if !Watchers::add(&mut rooms, *room, live) {
                    return;
                }
            }
            // As in `watch`.
            let marks = self.latest_marks();
            (position, ephemeral) = (position.max(marks.0), ephemeral.max(marks.1));
        }
        if live.may_have_missed(position, ephemeral) {
            self.to_wake.add(Urgency::Now, vec![Arc::clone(live)]);
        }
    }

    /// Marks everyone who watches the room, for a commit that changes it for them.
    pub fn mark_room(&self, room: RoomNid, position: Position) {
        self.mark_watchers(&[room], Some(room), position, Urgency::Now);
    }

    /// Marks everyone who watches one of these rooms, for a commit that concerns them but changes none of the rooms,
    /// such as a member's new device.
    pub fn mark_members(&self, rooms: &[RoomNid], position: Position) {
        self.mark_watchers(rooms, None, position, Urgency::Now);
    }

    pub(super) fn mark_watchers(
        &self,
        rooms: &[RoomNid],
        changed: Option<RoomNid>,
        position: Position,
        urgency: Urgency,
    ) {
        let _span = tracing::debug_span!("bus.mark").entered();
        self.mark_begins(position);
        let mut newly_due = Vec::new();
        for room in rooms {
            self.watchers.of_room(*room, |live| {
                if live.mark(changed, position, urgency) {
                    newly_due.push(Arc::clone(live));
                }
            });
        }
        self.to_wake.add(urgency, newly_due);
    }
}
