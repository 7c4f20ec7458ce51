//! The memberships of users in memory: read when somebody asks for them, and changed by each commit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use sabha_federation::state_log::Membership;

use super::MemberEntry;
use crate::store::{Database, Error, EventNid, Position, RoomNid, UserNid, ids::lock, members as rows, remote_members};

#[derive(Debug, Default)]
pub(super) struct UserRooms {
    pub(super) loaded: bool,
    /// The rooms of a local user.
    pub(super) rooms: HashMap<RoomNid, MemberEntry>,
    /// The rooms of another server's user, and whether the user is joined.
    of_remote: HashMap<RoomNid, bool>,
    /// Rooms whose row has a value that we never write, with the error.
    pub(super) unreadable: Vec<(RoomNid, Error)>,
}

impl UserRooms {
    /// Keeps the later of two entries for a room. At the same position, keeps the forgotten one: the row of the other
    /// one may have been read just before.
    fn update(&mut self, entry: MemberEntry) {
        let known = self.rooms.get(&entry.room);
        if known.is_none_or(|known| (known.pos, known.forgotten) <= (entry.pos, entry.forgotten)) {
            self.unreadable.retain(|(room, _)| *room != entry.room);
            self.rooms.insert(entry.room, entry);
        }
    }

    pub(super) fn joined(&self) -> impl Iterator<Item = RoomNid> {
        let local = self.rooms.values().filter(|entry| entry.membership == Membership::Join).map(|entry| entry.room);
        let remote = self.of_remote.iter().filter(|(_, joined)| **joined).map(|(room, _)| *room);
        local.chain(remote)
    }

    /// The rooms that the user may have been joined to at `at`, and is out of now.
    pub(super) fn left_since(&self, at: Position) -> Vec<RoomNid> {
        let is_left = |entry: &&MemberEntry| entry.membership != Membership::Join && entry.pos > at;
        let local = self.rooms.values().filter(is_left).map(|entry| entry.room);
        // The time at which another server's user has left is not known.
        let remote = self.of_remote.iter().filter(|(_, joined)| !**joined).map(|(room, _)| *room);
        local.chain(remote).collect()
    }

    pub(super) fn is_joined_to(&self, room: RoomNid) -> bool {
        let is_join = |entry: &MemberEntry| entry.membership == Membership::Join;
        self.rooms.get(&room).is_some_and(is_join) || self.of_remote.get(&room).is_some_and(|joined| *joined)
    }
}

pub(super) type RoomsByUser = Mutex<HashMap<UserNid, Arc<Mutex<UserRooms>>>>;

/// The memberships of users that have been asked for.
pub(crate) struct Memberships {
    db: Arc<Database>,
    pub(super) users: Arc<RoomsByUser>,
}

/// A handle to the memberships in memory, with which the committer updates them after a commit.
pub(crate) struct MembershipsHandle(Arc<RoomsByUser>);

impl MembershipsHandle {
    pub(in crate::room) fn update(&self, user: UserNid, entry: MemberEntry) {
        let rooms = lock(&self.0).get(&user).cloned();
        if let Some(rooms) = rooms {
            lock(&rooms).update(entry);
        }
    }

    /// Notes that a user of another server has joined a room, or is out of it.
    pub(in crate::room) fn update_remote(&self, user: UserNid, room: RoomNid, joined: bool) {
        let rooms = lock(&self.0).get(&user).cloned();
        if let Some(rooms) = rooms {
            lock(&rooms).of_remote.insert(room, joined);
        }
    }

    /// Marks the membership in a room as forgotten by the commit at `at`, if it is in memory.
    pub(in crate::room) fn forget(&self, user: UserNid, room: RoomNid, at: Position) {
        let Some(rooms) = lock(&self.0).get(&user).cloned() else { return };
        let mut rooms = lock(&rooms);
        match rooms.rooms.get_mut(&room) {
            // A later one was read already, and is not forgotten.
            Some(entry) => entry.forgotten |= entry.pos < at,
            None => {
                // Its row may have been read just before, and is not here yet.
                drop(rooms);
                self.evict(user);
            }
        }
    }

    /// Evicts a user whose memberships have changed elsewhere.
    pub(in crate::room) fn evict(&self, user: UserNid) {
        lock(&self.0).remove(&user);
    }

    pub(in crate::room) fn evict_all(&self) {
        lock(&self.0).clear();
    }

    /// The rooms that the user is joined to; `None` if they are not in memory.
    pub(crate) fn joined_rooms(&self, user: UserNid) -> Option<Vec<RoomNid>> {
        let rooms = lock(&self.0).get(&user).cloned()?;
        let rooms = lock(&rooms);
        rooms.loaded.then(|| rooms.joined().collect())
    }
}

impl Memberships {
    pub(in crate::room) fn new(db: Arc<Database>) -> Self {
        Self { db, users: Arc::default() }
    }

    pub(in crate::room) fn handle(&self) -> MembershipsHandle {
        MembershipsHandle(Arc::clone(&self.users))
    }

    /// Evicts users whom `keep` does not accept. They are read again when somebody asks for them.
    pub(in crate::room) fn retain(&self, keep: impl Fn(UserNid) -> bool) {
        lock(&self.users).retain(|user, _| keep(*user));
    }

    pub(super) async fn of(&self, user: UserNid) -> Result<Arc<Mutex<UserRooms>>, Error> {
        // The entry is added before the rows are read, so that a commit in between finds it.
        let rooms = Arc::clone(lock(&self.users).entry(user).or_default());
        if lock(&rooms).loaded {
            return Ok(rooms);
        }
        if self.db.user_by_nid(user).await?.is_local() {
            self.load_local(user, &rooms).await?;
        } else {
            self.load_remote(user, &rooms).await?;
        }
        Ok(rooms)
    }

    async fn load_local(&self, user: UserNid, rooms: &Mutex<UserRooms>) -> Result<(), Error> {
        let mut reader = self.db.read().await?;
        let stored = rows::memberships(&mut reader.conn(), user).await?;
        let mut held = lock(rooms);
        for row in stored {
            let Some(membership) = u8::try_from(row.membership).ok().and_then(Membership::from_code) else {
                // Damage of one room must not affect the others.
                held.unreadable.push((RoomNid(row.room_nid), Error::damaged("membership", row.membership)));
                continue;
            };
            held.update(MemberEntry {
                room: RoomNid(row.room_nid),
                membership,
                event_nid: EventNid(row.event_nid),
                pos: Position(row.pos),
                forgotten: row.forgotten,
            });
        }
        held.loaded = true;
        Ok(())
    }

    async fn load_remote(&self, user: UserNid, rooms: &Mutex<UserRooms>) -> Result<(), Error> {
        let mut reader = self.db.read().await?;
        let stored = remote_members::joined_rooms(&mut reader.conn(), user).await?;
        let mut held = lock(rooms);
        for room in stored {
            // An entry that is there already comes from a commit after these rows were read, or from one that they hold.
            held.of_remote.entry(RoomNid(room)).or_insert(true);
        }
        held.loaded = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
