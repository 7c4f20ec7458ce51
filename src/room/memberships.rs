//! The rooms that users are in, kept in memory for live users. Of users of other servers, only the rooms that they are
//! joined to are known.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use ruma::{OwnedRoomId, RoomId};
use sabha_federation::state_log::Membership;

use super::Rooms;
use crate::store::{
    Conn, Database, Error, EventNid, Position, RoomNid, Transaction, UserNid, ids::lock, log::Touch, members as rows,
    remote_members,
};

/// A local user's membership in one room.
#[derive(Debug, Clone)]
pub struct MemberEntry {
    pub room: RoomNid,
    pub membership: Membership,
    pub event_nid: EventNid,
    /// The position of the last change of the membership.
    pub pos: Position,
    pub forgotten: bool,
    /// The stripped state that an invited or knocking user sees, as a JSON array.
    pub invite_state: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct UserRooms {
    loaded: bool,
    /// The rooms of a local user.
    rooms: HashMap<RoomNid, MemberEntry>,
    /// The rooms of another server's user, and whether the user is joined.
    of_remote: HashMap<RoomNid, bool>,
    /// Rooms whose row has a value that we never write, with the error.
    unreadable: Vec<(RoomNid, Error)>,
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

    fn joined(&self) -> impl Iterator<Item = RoomNid> {
        let local = self.rooms.values().filter(|entry| entry.membership == Membership::Join).map(|entry| entry.room);
        let remote = self.of_remote.iter().filter(|(_, joined)| **joined).map(|(room, _)| *room);
        local.chain(remote)
    }

    fn is_joined_to(&self, room: RoomNid) -> bool {
        let is_join = |entry: &MemberEntry| entry.membership == Membership::Join;
        self.rooms.get(&room).is_some_and(is_join) || self.of_remote.get(&room).is_some_and(|joined| *joined)
    }
}

type Users = Mutex<HashMap<UserNid, Arc<Mutex<UserRooms>>>>;

/// The memberships of users that have been asked for.
pub(crate) struct Memberships {
    db: Arc<Database>,
    users: Arc<Users>,
}

/// A handle to the memberships in memory, with which the committer updates them after a commit.
pub(crate) struct MembershipsHandle(Arc<Users>);

impl MembershipsHandle {
    pub(crate) fn update(&self, user: UserNid, entry: MemberEntry) {
        let rooms = lock(&self.0).get(&user).cloned();
        if let Some(rooms) = rooms {
            lock(&rooms).update(entry);
        }
    }

    /// Notes that a user of another server has joined a room, or is out of it.
    pub(super) fn update_remote(&self, user: UserNid, room: RoomNid, joined: bool) {
        let rooms = lock(&self.0).get(&user).cloned();
        if let Some(rooms) = rooms {
            lock(&rooms).of_remote.insert(room, joined);
        }
    }

    /// Marks the membership in a room as forgotten by the commit at `at`, if it is in memory.
    pub(super) fn forget(&self, user: UserNid, room: RoomNid, at: Position) {
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
    pub(super) fn evict(&self, user: UserNid) {
        lock(&self.0).remove(&user);
    }

    pub(super) fn evict_all(&self) {
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
    pub(super) fn new(db: Arc<Database>) -> Self {
        Self { db, users: Arc::default() }
    }

    pub(super) fn handle(&self) -> MembershipsHandle {
        MembershipsHandle(Arc::clone(&self.users))
    }

    /// Evicts users whom `keep` does not accept. They are read again when somebody asks for them.
    pub(super) fn retain(&self, keep: impl Fn(UserNid) -> bool) {
        lock(&self.users).retain(|user, _| keep(*user));
    }

    async fn of(&self, user: UserNid) -> Result<Arc<Mutex<UserRooms>>, Error> {
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
                invite_state: row.invite_state.map(Into::into),
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

/// Forgets a membership, unless a newer one was queued before.
struct Forget {
    user: UserNid,
    entry: MemberEntry,
}

impl Transaction for Forget {
    type Output = bool;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<bool, Error> {
        let MemberEntry { room, membership, pos, .. } = self.entry;
        let found = rows::forget_membership(conn, self.user, room, pos).await?;
        if found {
            conn.touch(Touch::Member { room, user: self.user, membership: membership.code(), forgotten: true });
        }
        Ok(found)
    }
}

impl Rooms {
    /// All rooms in which the local user has or had a membership, sorted by room.
    pub async fn memberships(&self, user: UserNid) -> Result<Vec<MemberEntry>, Error> {
        let rooms = self.memberships.of(user).await?;
        let mut entries: Vec<_> = lock(&rooms).rooms.values().cloned().collect();
        entries.sort_unstable_by_key(|entry| entry.room);
        Ok(entries)
    }

    /// The local user's memberships in some of `rooms`, sorted by room. Rooms without one are left out.
    pub async fn memberships_in(&self, user: UserNid, rooms: &BTreeSet<RoomNid>) -> Result<Vec<MemberEntry>, Error> {
        let held = self.memberships.of(user).await?;
        let held = lock(&held);
        Ok(rooms.iter().filter_map(|room| held.rooms.get(room).cloned()).collect())
    }

    /// The rooms of the user whose membership is damaged in the database. They are in no other list.
    pub async fn unreadable_memberships(&self, user: UserNid) -> Result<Vec<RoomNid>, Error> {
        let rooms = self.memberships.of(user).await?;
        let unreadable = lock(&rooms).unreadable.clone();
        for (room, error) in &unreadable {
            self.contain::<()>(*room, Err(error.clone()))?;
        }
        Ok(unreadable.into_iter().map(|(room, _)| room).collect())
    }

    /// The local user's membership entry for one room.
    pub async fn member_entry(&self, user: UserNid, room: RoomNid) -> Result<Option<MemberEntry>, Error> {
        let rooms = self.memberships.of(user).await?;
        let rooms = lock(&rooms);
        match rooms.unreadable.iter().find(|(unreadable, _)| *unreadable == room) {
            Some((_, error)) => Err(error.clone()),
            None => Ok(rooms.rooms.get(&room).cloned()),
        }
    }

    /// Calls `read` with the user's memberships by room, if they are in memory and none is damaged.
    pub fn with_memberships<T>(
        &self,
        user: UserNid,
        read: impl FnOnce(&HashMap<RoomNid, MemberEntry>) -> Option<T>,
    ) -> Option<T> {
        let rooms = lock(&self.memberships.users).get(&user).cloned()?;
        let rooms = lock(&rooms);
        if rooms.loaded && rooms.unreadable.is_empty() { read(&rooms.rooms) } else { None }
    }

    /// The local user's membership in one room; `None` if they never had one.
    pub async fn membership(&self, user: UserNid, room: RoomNid) -> Result<Option<Membership>, Error> {
        Ok(self.member_entry(user, room).await?.map(|entry| entry.membership))
    }

    /// The rooms that the user, local or not, is joined to.
    pub async fn joined_rooms(&self, user: UserNid) -> Result<Vec<RoomNid>, Error> {
        let rooms = self.memberships.of(user).await?;
        let rooms = lock(&rooms);
        Ok(rooms.joined().collect())
    }

    /// Loads the rooms of the user into memory, for a commit that marks those who share one.
    pub async fn load_memberships(&self, user: UserNid) -> Result<(), Error> {
        self.memberships.of(user).await.map(drop)
    }

    /// A handle to the memberships in memory, for code that must not wait for the database.
    pub(crate) fn memberships_in_memory(&self) -> MembershipsHandle {
        self.memberships.handle()
    }

    /// The IDs of the rooms that the user is joined to, in order. Unlike [`Self::joined_rooms`], this loads no room.
    pub async fn joined_room_ids(&self, user: UserNid) -> Result<Vec<OwnedRoomId>, Error> {
        let mut reader = self.db.read().await?;
        let room_ids = rows::room_ids(&mut reader.conn(), user, Membership::Join.code()).await?;
        let mut readable = Vec::with_capacity(room_ids.len());
        for (room, room_id) in room_ids {
            let room_id = RoomId::parse(&room_id).map_err(|error| Error::damaged("room ID", error));
            readable.extend(self.contain(RoomNid(room), room_id)?);
        }
        Ok(readable)
    }

    /// The local users who are joined to the room.
    pub async fn local_joined_members(&self, room: RoomNid) -> Result<Vec<UserNid>, Error> {
        let mut reader = self.db.read().await?;
        let members = rows::local_members(&mut reader.conn(), room).await?;
        let joined = i64::from(Membership::Join.code());
        Ok(members.into_iter().filter(|(_, code)| *code == joined).map(|(user, _)| UserNid(user)).collect())
    }

    /// Returns whether the two users, local or not, are joined to a common room.
    pub async fn share_a_room(&self, a: UserNid, b: UserNid) -> Result<bool, Error> {
        let a = self.joined_rooms(a).await?;
        let b = self.memberships.of(b).await?;
        let b = lock(&b);
        Ok(a.iter().any(|room| b.is_joined_to(*room)))
    }

    /// Returns whether the two users certainly are in no common room, as far as memory knows.
    pub fn are_strangers(&self, a: UserNid, b: UserNid) -> bool {
        // First all of one user, because nobody holds the locks of two.
        let Some(rooms) = self.memberships_in_memory().joined_rooms(a) else { return false };
        let Some(held) = lock(&self.memberships.users).get(&b).cloned() else { return false };
        let held = lock(&held);
        held.loaded && held.unreadable.is_empty() && !rooms.iter().any(|room| held.is_joined_to(*room))
    }

    /// Forgets a room that the user has left.
    ///
    /// # Errors
    /// Database errors only. Returns `false` and changes nothing if the user never was in the room, is in it now, or
    /// was let in meanwhile.
    pub async fn forget(&self, user: UserNid, room: RoomNid) -> Result<bool, Error> {
        match self.member_entry(user, room).await? {
            Some(entry) => self.forget_entry(user, entry).await,
            None => Ok(false),
        }
    }

    /// Forgets a membership that was looked up before, as [`Self::forget`] does.
    pub(super) async fn forget_entry(&self, user: UserNid, entry: MemberEntry) -> Result<bool, Error> {
        if !matches!(entry.membership, Membership::Leave | Membership::Ban) {
            return Ok(false);
        }
        let entry = MemberEntry { forgotten: true, invite_state: None, ..entry };
        self.db.committer().transact(Forget { user, entry }).await
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;
    use crate::store::{Write, remote_members::RemoteMemberColumns, tests::NewDatabase};

    fn entry(membership: Membership, pos: i64, forgotten: bool) -> MemberEntry {
        let (room, event_nid) = (RoomNid(1), EventNid(pos));
        MemberEntry { room, membership, event_nid, pos: Position(pos), forgotten, invite_state: None }
    }

    #[test]
    fn the_later_entry_is_right_in_whatever_order_they_come() {
        let (left, forgotten) = (entry(Membership::Leave, 5, false), entry(Membership::Leave, 5, true));
        let joined = entry(Membership::Join, 7, false);
        let orders = [
            [&left, &forgotten, &joined],
            [&left, &joined, &forgotten],
            [&forgotten, &left, &joined],
            [&forgotten, &joined, &left],
            [&joined, &left, &forgotten],
            [&joined, &forgotten, &left],
        ];
        for order in orders {
            let mut rooms = UserRooms::default();
            rooms.update(order[0].clone());
            rooms.update(order[1].clone());
            let both = &rooms.rooms[&RoomNid(1)];
            let has_joined = order[..2].iter().any(|entry| entry.membership == Membership::Join);
            assert_eq!((both.pos.0, both.forgotten), if has_joined { (7, false) } else { (5, true) });
            rooms.update(order[2].clone());
            assert_eq!(rooms.rooms[&RoomNid(1)].pos, Position(7));
        }
    }

    #[tokio::test]
    async fn rows_that_were_read_before_a_commit_do_not_undo_it() {
        for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
            let carol = db.user(user_id!("@carol:remote.test"), false).await.expect("a user");
            let mut write = Write::default();
            carol.write_if_new(&mut write);
            let [first, second] = [1, 2].map(RoomNid);
            for room in [first, second] {
                write.push(RemoteMemberColumns { user_nid: carol.nid, room_nid: room, joined: true }.row());
                write.touch(Touch::RemoteMember { room, user: carol.nid, joined: true });
            }
            db.committer().write(write).await.expect("stored");
            let memberships = Memberships::new(Arc::clone(&db));
            // Somebody is about to read the rows.
            lock(&memberships.users).entry(carol.nid).or_default();
            memberships.handle().update_remote(carol.nid, first, false);
            memberships.of(carol.nid).await.expect("read");
            assert_eq!(memberships.handle().joined_rooms(carol.nid), Some(vec![second]));
        }
    }
}
