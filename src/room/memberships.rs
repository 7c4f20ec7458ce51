//! The rooms that users are in, kept in memory for live users ([`in_memory`]). For users of other servers, only the rooms
//! that they are joined to are known.

mod in_memory;

use std::collections::{BTreeSet, HashMap};

use ruma::{OwnedRoomId, RoomId};
use sabha_federation::state_log::Membership;

pub(crate) use self::in_memory::{Memberships, MembershipsHandle};
use super::{Room, Rooms};
use crate::store::{
    Conn, Error, EventNid, Position, RoomNid, Transaction, UserNid, device_keys::USERS_PER_STATEMENT, ids::lock,
    log::Touch, members as rows,
};

/// A local user's membership in one room. The stripped state of an invitation or a knock is only in the database
/// ([`super::read::stripped`]): it is larger than all else together, and strangers decide how many a user has.
#[derive(Debug, Clone)]
pub struct MemberEntry {
    pub room: RoomNid,
    pub membership: Membership,
    pub event_nid: EventNid,
    /// The position of the last change of the membership.
    pub pos: Position,
    pub forgotten: bool,
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

    /// The number of rooms in which each of these local users has this membership; users with none may be missing.
    /// Memberships that are not in memory are counted by the database and not loaded: invitations must not fill the
    /// memory with users who are not here.
    pub(super) async fn count_memberships(
        &self,
        users: &[UserNid],
        membership: Membership,
    ) -> Result<HashMap<UserNid, usize>, Error> {
        let in_memory = |user: UserNid| {
            let is_counted = |entry: &&MemberEntry| entry.membership == membership;
            self.with_memberships(user, |rooms| Some(rooms.values().filter(is_counted).count()))
        };
        let (mut counts, mut others) = (HashMap::new(), Vec::new());
        for &user in users {
            if let Some(count) = in_memory(user) {
                counts.insert(user, count);
            } else {
                others.push(user);
            }
        }
        if others.is_empty() {
            return Ok(counts);
        }
        let mut reader = self.db.read().await?;
        for chunk in others.chunks(USERS_PER_STATEMENT) {
            for (user, count) in rows::counts(&mut reader.conn(), chunk, membership.code()).await? {
                counts.insert(UserNid(user), usize::try_from(count).unwrap_or_default());
            }
        }
        Ok(counts)
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

    /// Returns whether the two users, local or not, are joined to a common room, or were at `at`, a moment ago.
    pub async fn share_a_room_since(&self, a: UserNid, b: UserNid, at: Position) -> Result<bool, Error> {
        if self.share_a_room(a, b).await? {
            return Ok(true);
        }
        let of_a = self.memberships.of(a).await?;
        let of_b = self.memberships.of(b).await?;
        // In this order, because nobody holds the locks of two.
        let of_a = lock(&of_a).left_since(at);
        let of_b = lock(&of_b).left_since(at);
        let was_joined = async |user: UserNid, room: &Room| {
            let user = self.db.user_by_nid(user).await?;
            let Some(key) = self.find_key(room, "m.room.member", user.user_id.as_str()).await? else {
                return Ok(false);
            };
            let entry = self.entry_at(room, key, at).await?;
            Ok::<_, Error>(entry.is_some_and(|entry| entry.membership == Some(Membership::Join)))
        };
        for nid in of_a.into_iter().chain(of_b) {
            let shared = async {
                let room = self.by_nid(nid).await?;
                Ok(was_joined(a, &room).await? && was_joined(b, &room).await?)
            };
            if self.contain(nid, shared.await)? == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
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
        let entry = MemberEntry { forgotten: true, ..entry };
        self.db.committer().transact(Forget { user, entry }).await
    }
}
