//! The wake-up bus: tells `/sync` requests in which rooms something was committed, and wakes the parked ones.
//!
//! It carries hints, never data: a request reads what was committed. Users who sync are *live* ([`LiveUser`]). Each live
//! user watches their rooms ([`rooms`]), so that an event concerns only users who are here to see it. The marks of a user
//! name the rooms with news, so that a look visits only these ([`LiveUser::dirty_since`]).
//!
//! News comes in two steps. A commit first *marks* the users whom it concerns, before its position is visible. When it is
//! visible, a task of its own wakes them ([`notify`]). So a request that sees a position finds the marks of everything up
//! to it, and a request that is woken sees the position. Changes that are only in memory, such as typing, have numbers
//! instead of positions, and the same order: first the marks, then the number is visible.
//!
//! Marks that come before a user is live, or before they watch a room, miss the user. So these two read the latest mark
//! of anyone under the lock that a mark takes: the user's set then does not claim to know what came before.

#[cfg(test)]
mod counted;
mod live;
mod marks;
pub mod notify;
mod rooms;

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use self::{
    live::Urgency,
    notify::ToWake,
    rooms::{Shards, Watchers},
};
use crate::store::{Position, RoomNid, UserNid, ids::lock};

pub use self::{
    live::{DirtyRooms, LiveUser},
    marks::Marks,
};

/// A function that is called with a user who is no longer in a room.
type OnDeparture = Box<dyn Fn(&Bus, UserNid, RoomNid) + Send + Sync>;

/// The listener for departures, if there is one.
#[derive(Default)]
struct Departures(OnceLock<OnDeparture>);

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Departures").field(&self.0.get().is_some()).finish()
    }
}

/// The numbers of changes that are only in memory.
#[derive(Debug, Default)]
struct EphemeralNumbers {
    /// Held from taking a number until it is visible.
    turn: Mutex<()>,
    /// The latest number that anyone may have been marked for, visible or not.
    begun: AtomicU64,
    visible: AtomicU64,
}

/// The live users of this process and the rooms that they watch.
#[derive(Debug, Default)]
pub struct Bus {
    users: Shards<UserNid, Arc<LiveUser>>,
    watchers: Watchers,
    to_wake: ToWake,
    /// The latest position that anyone was marked for, visible or not.
    latest: AtomicI64,
    ephemeral: EphemeralNumbers,
    departures: Departures,
}

impl Bus {
    /// Makes the user live and returns them. `latest` is the visible position.
    pub fn live(&self, user: UserNid, latest: Position, now_ms: i64) -> Arc<LiveUser> {
        let mut users = self.users.of(user.0);
        let mut is_newly_due = false;
        let live = users.entry(user).or_insert_with(|| {
            // A commit that is not visible yet may have looked for this user and not found them.
            let (position, ephemeral) = self.latest_marks();
            let live = LiveUser::new(user, (latest.max(position), ephemeral), now_ms);
            is_newly_due = live.is_newly_due(Urgency::Now);
            Arc::new(live)
        });
        live.used_at.store(now_ms, Ordering::Release);
        let live = Arc::clone(live);
        if is_newly_due {
            // Under the lock: once another request of the user has found the entry, a commit finds the user in the list.
            self.to_wake.add(Urgency::Now, vec![Arc::clone(&live)]);
        }
        drop(users);
        live
    }

    fn find(&self, user: UserNid) -> Option<Arc<LiveUser>> {
        self.users.of(user.0).get(&user).cloned()
    }

    /// Returns whether the user has synced lately.
    pub fn is_live(&self, user: UserNid) -> bool {
        self.users.of(user.0).contains_key(&user)
    }

    /// Forgets users who have not synced since `before_ms`: no more marks and wake-ups, until they sync again.
    pub fn forget_idle(&self, before_ms: i64) {
        for mut users in self.users.all() {
            users.retain(|_, live| {
                let stays = live.used_at.load(Ordering::Acquire) >= before_ms;
                if !stays {
                    // Before it is removed: a request that still has this entry must not take it for complete.
                    live.retire();
                    live.wake();
                }
                stays
            });
        }
        self.watchers.forget_retired();
    }

    /// Forgets all live users and what they watch, because commits up to `upto` may have marked nobody. Their requests become
    /// live again, and look at the database.
    pub fn forget_all(&self, upto: Position) {
        // Before they are gone: a user who becomes live again knows of nothing up to here.
        self.mark_begins(upto);
        for mut users in self.users.all() {
            for (_, live) in users.drain() {
                live.retire();
                live.wake();
            }
        }
        self.watchers.forget_retired();
    }

    /// Tells `listener` of every departure from now on, after its commit. There is one listener; a second is ignored.
    pub fn on_departure(&self, listener: impl Fn(&Self, UserNid, RoomNid) + Send + Sync + 'static) {
        let _: Result<(), OnDeparture> = self.departures.0.set(Box::new(listener));
    }

    /// Notes that the user has left the room, or never was in it, and tells the listener.
    pub fn departed(&self, user: UserNid, room: RoomNid) {
        self.watchers.remove(user, room);
        if let Some(listener) = self.departures.0.get() {
            listener(self, user, room);
        }
    }

    /// The latest position and ephemeral number that anyone was marked for. Read it under the lock of a shard: marks that
    /// have used the shard before are included.
    fn latest_marks(&self) -> (Position, u64) {
        (Position(self.latest.load(Ordering::Acquire)), self.ephemeral.begun.load(Ordering::Acquire))
    }

    /// Must come before the first lock that a mark takes.
    fn mark_begins(&self, position: Position) {
        self.latest.fetch_max(position.0, Ordering::AcqRel);
    }

    /// Marks a user whom a commit concerns in no room. Like the other marks, call this before the position is visible.
    pub fn mark_user(&self, user: UserNid, position: Position) {
        self.mark_one(user, None, position, Urgency::Now);
    }

    /// Marks a user for whom a commit changes a room: their own membership, or data that only they see.
    pub fn mark_user_in(&self, user: UserNid, room: RoomNid, position: Position) {
        self.mark_one(user, Some(room), position, Urgency::Now);
    }

    /// Marks those who see a user's receipts in a room: the user, and everyone there if one is `public`. They are woken a
    /// little later than for other news.
    pub fn mark_receipts(&self, user: UserNid, room: RoomNid, public: bool, position: Position) {
        if public {
            self.mark_watchers(&[room], Some(room), position, Urgency::Receipts);
        }
        self.mark_one(user, Some(room), position, Urgency::Receipts);
    }

    fn mark_one(&self, user: UserNid, room: Option<RoomNid>, position: Position, urgency: Urgency) {
        self.mark_begins(position);
        if let Some(live) = self.find(user)
            && live.mark(room, position, urgency)
        {
            self.to_wake.add(urgency, vec![live]);
        }
    }

    /// Marks all live users, for a commit that may concern anyone and changes no room.
    pub fn mark_everyone(&self, position: Position) {
        self.mark_begins(position);
        for users in self.users.all() {
            let newly_due = users.values().filter(|live| live.mark(None, position, Urgency::Now));
            self.to_wake.add(Urgency::Now, newly_due.cloned().collect());
        }
    }

    /// The number of the latest ephemeral change of this process.
    pub fn ephemeral(&self) -> u64 {
        self.ephemeral.visible.load(Ordering::Acquire)
    }

    /// Returns a number for a change that is only kept in memory and belongs to no room, such as presence. Larger is
    /// later. The number is visible at once, so take it under the lock of the data that changes: a reader that sees the
    /// number and then waits for that lock sees the change.
    pub fn next_ephemeral(&self) -> u64 {
        self.number_change(|_| {})
    }

    /// As [`Self::next_ephemeral`], for a change of a room, such as typing. Marks everyone who watches the room before
    /// the number is visible.
    pub fn next_ephemeral_in(&self, room: RoomNid) -> u64 {
        self.number_change(|number| self.watchers.of_room(room, |live| live.mark_ephemeral(room, number)))
    }

    fn number_change(&self, mark: impl FnOnce(u64)) -> u64 {
        let EphemeralNumbers { turn, begun, visible } = &self.ephemeral;
        let _turn = lock(turn);
        let number = begun.load(Ordering::Acquire) + 1;
        begun.store(number, Ordering::Release);
        mark(number);
        visible.store(number, Ordering::Release);
        number
    }

    /// Wakes everyone who watches the room, for an ephemeral change.
    pub fn wake_room_ephemeral(&self, room: RoomNid, number: u64) {
        self.watchers.of_room(room, |live| live.wake_ephemeral(number));
    }

    /// Wakes all live users, for an ephemeral change that may concern anyone.
    pub fn wake_everyone_ephemeral(&self, number: u64) {
        for users in self.users.all() {
            users.values().for_each(|live| live.wake_ephemeral(number));
        }
    }

    /// Wakes one user, for an ephemeral change.
    pub fn wake_user_ephemeral(&self, user: UserNid, number: u64) {
        if let Some(live) = self.find(user) {
            live.wake_ephemeral(number);
        }
    }

    /// Wakes everyone, for instance because the server stops.
    pub fn wake_all(&self) {
        for users in self.users.all() {
            users.values().for_each(|live| live.wake());
        }
    }
}

#[cfg(test)]
mod tests;
