//! The wake-up bus: tells parked `/sync` requests that something was committed.
//!
//! It carries hints, never data: a request that is woken reads what was committed. Users who sync are *live*. Each live
//! user watches their rooms, so that an event wakes only users who are here to see it.
//!
//! News comes in two steps. A commit first *marks* the users whom it concerns, before its position is visible, and
//! wakes them when it is visible. So a request that sees a position finds the marks of everything up to it, and a
//! request that is woken sees the position.

mod marks;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, OnceCell};

pub use marks::Marks;

use crate::store::{Position, RoomNid, UserNid};

/// A user who syncs, with the position of the latest news for them and their parked requests.
#[derive(Debug)]
pub struct LiveUser {
    pub user: UserNid,
    latest: AtomicI64,
    latest_ephemeral: AtomicU64,
    parked: Notify,
    /// Set while the user is among those to be woken with the next position. Changes under the lock of the bus.
    marked: AtomicBool,
    /// Set once the user's rooms are watched.
    pub watching: OnceCell<()>,
    /// The time of the user's last sync, in milliseconds since 1970. Written under the lock of the bus, so that a user
    /// who has just come back is not forgotten.
    used_at: AtomicI64,
}

impl LiveUser {
    /// The position of the latest thing that concerns this user. Before it there may be news; after it there is none.
    pub fn latest(&self) -> Position {
        Position(self.latest.load(Ordering::Acquire))
    }

    /// The number of the latest typing or presence change that concerns this user.
    pub fn latest_ephemeral(&self) -> u64 {
        self.latest_ephemeral.load(Ordering::Acquire)
    }

    /// Resolves at the next wake-up after this call. Look for news between calling and waiting, or one may be missed.
    pub fn next_wake(&self) -> tokio::sync::futures::Notified<'_> {
        self.parked.notified()
    }

    /// Notes that there may be news up to `position`, and adds the user to the `marked` ones, who are to be woken.
    fn mark(self: &Arc<Self>, position: Position, marked: &mut Vec<Arc<Self>>) {
        self.latest.fetch_max(position.0, Ordering::AcqRel);
        if !self.marked.swap(true, Ordering::AcqRel) {
            marked.push(Arc::clone(self));
        }
    }

    fn wake_ephemeral(&self, number: u64) {
        self.latest_ephemeral.fetch_max(number, Ordering::AcqRel);
        self.parked.notify_waiters();
    }
}

#[derive(Debug)]
struct Watchers {
    live: HashMap<UserNid, Arc<LiveUser>>,
    rooms: HashMap<RoomNid, Vec<Arc<LiveUser>>>,
    /// Users to wake once the position that they were marked for is visible.
    marked: Vec<Arc<LiveUser>>,
    /// The latest position that anyone was marked for, visible or not. A user who becomes live, or starts to watch a
    /// room, after the marks for it may have news up to here.
    latest: Position,
}

impl Default for Watchers {
    fn default() -> Self {
        Self { live: HashMap::new(), rooms: HashMap::new(), marked: Vec::new(), latest: Position::ZERO }
    }
}

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

/// The live users of this process and the rooms that they watch. One small lock, held for the length of a loop.
#[derive(Debug, Default)]
pub struct Bus {
    watchers: Mutex<Watchers>,
    ephemeral: AtomicU64,
    departures: Departures,
}

impl Bus {
    /// Makes the user live and returns them. `latest` is the visible position.
    pub fn live(&self, user: UserNid, latest: Position, now_ms: i64) -> Arc<LiveUser> {
        let mut watchers = crate::store::ids::lock(&self.watchers);
        let Watchers { live, marked, latest: latest_mark, .. } = &mut *watchers;
        let live = live.entry(user).or_insert_with(|| {
            let live = Arc::new(LiveUser {
                user,
                latest: AtomicI64::new(latest.0),
                latest_ephemeral: AtomicU64::new(self.ephemeral.load(Ordering::Acquire)),
                parked: Notify::new(),
                marked: AtomicBool::new(false),
                watching: OnceCell::new(),
                used_at: AtomicI64::new(now_ms),
            });
            // A commit that is not visible yet may have looked for this user and not found them.
            live.mark(*latest_mark, marked);
            live
        });
        live.used_at.store(now_ms, Ordering::Release);
        Arc::clone(live)
    }

    /// Returns whether the user has synced lately.
    pub fn is_live(&self, user: UserNid) -> bool {
        crate::store::ids::lock(&self.watchers).live.contains_key(&user)
    }

    /// Forgets users who have not synced since `before_ms`: no more wake-ups, until they sync again.
    pub fn forget_idle(&self, before_ms: i64) {
        let mut watchers = crate::store::ids::lock(&self.watchers);
        let Watchers { live, rooms, .. } = &mut *watchers;
        live.retain(|_, live| live.used_at.load(Ordering::Acquire) >= before_ms);
        // Watchers stay if their user stays; the time is not checked again. A user in only one of the two maps would be
        // watched for nothing, or not at all.
        rooms.retain(|_, users| {
            users.retain(|watcher| live.get(&watcher.user).is_some_and(|live| Arc::ptr_eq(live, watcher)));
            !users.is_empty()
        });
    }

    /// Makes a live user watch a room. Ignores users who are not live.
    pub fn watch(&self, user: UserNid, room: RoomNid) {
        let mut watchers = crate::store::ids::lock(&self.watchers);
        let Some(live) = watchers.live.get(&user).cloned() else {
            return;
        };
        let Watchers { rooms, marked, latest, .. } = &mut *watchers;
        // Earlier marks of this room have not reached the user.
        live.mark(*latest, marked);
        live.latest_ephemeral.fetch_max(self.ephemeral.load(Ordering::Acquire), Ordering::AcqRel);
        let users = rooms.entry(room).or_default();
        match users.iter_mut().find(|other| other.user == user) {
            // The entry may be from before the user was forgotten; nobody waits for its wake-ups any more.
            Some(watcher) => *watcher = live,
            None => users.push(live),
        }
    }

    /// Tells `listener` of every departure from now on, after its commit. There is one listener; a second is ignored.
    pub fn on_departure(&self, listener: impl Fn(&Self, UserNid, RoomNid) + Send + Sync + 'static) {
        let _: Result<(), OnDeparture> = self.departures.0.set(Box::new(listener));
    }

    /// Notes that the user has left the room, or never was in it, and tells the listener.
    pub fn departed(&self, user: UserNid, room: RoomNid) {
        self.unwatch(user, room);
        if let Some(listener) = self.departures.0.get() {
            listener(self, user, room);
        }
    }

    fn unwatch(&self, user: UserNid, room: RoomNid) {
        let mut watchers = crate::store::ids::lock(&self.watchers);
        if let Some(users) = watchers.rooms.get_mut(&room) {
            users.retain(|live| live.user != user);
            if users.is_empty() {
                watchers.rooms.remove(&room);
            }
        }
    }

    /// Marks a user whom a commit concerns. Like the other marks, call this before the position is visible.
    pub fn mark_user(&self, user: UserNid, position: Position) {
        let mut watchers = crate::store::ids::lock(&self.watchers);
        let Watchers { live, marked, latest, .. } = &mut *watchers;
        *latest = position.max(*latest);
        if let Some(live) = live.get(&user) {
            live.mark(position, marked);
        }
    }

    /// Marks everyone who watches the room, for a commit that concerns them.
    pub fn mark_room(&self, room: RoomNid, position: Position) {
        let _span = tracing::debug_span!("bus.mark").entered();
        let mut watchers = crate::store::ids::lock(&self.watchers);
        let Watchers { rooms, marked, latest, .. } = &mut *watchers;
        *latest = position.max(*latest);
        for live in rooms.get(&room).into_iter().flatten() {
            live.mark(position, marked);
        }
    }

    /// Marks all live users, for a commit that may concern anyone.
    pub fn mark_everyone(&self, position: Position) {
        let mut watchers = crate::store::ids::lock(&self.watchers);
        let Watchers { live, marked, latest, .. } = &mut *watchers;
        *latest = position.max(*latest);
        for live in live.values() {
            live.mark(position, marked);
        }
    }

    /// Wakes everyone who was marked. Call this once the position of the marks is visible.
    pub fn wake_marked(&self) {
        let _span = tracing::debug_span!("bus.wake").entered();
        let mut watchers = crate::store::ids::lock(&self.watchers);
        for live in watchers.marked.drain(..) {
            live.marked.store(false, Ordering::Release);
            live.parked.notify_waiters();
        }
    }

    /// The number of the latest ephemeral change of this process.
    pub fn ephemeral(&self) -> u64 {
        self.ephemeral.load(Ordering::Acquire)
    }

    /// Returns a number for a change that is only kept in memory, such as typing. Larger is later. The number is
    /// visible at once, so take it under the lock of the data that changes: a reader that sees the number and then
    /// waits for that lock sees the change.
    pub fn next_ephemeral(&self) -> u64 {
        self.ephemeral.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Wakes everyone who watches the room, for an ephemeral change.
    pub fn wake_room_ephemeral(&self, room: RoomNid, number: u64) {
        let watchers = crate::store::ids::lock(&self.watchers);
        for live in watchers.rooms.get(&room).into_iter().flatten() {
            live.wake_ephemeral(number);
        }
    }

    /// Wakes all live users, for an ephemeral change that may concern anyone.
    pub fn wake_everyone_ephemeral(&self, number: u64) {
        for live in crate::store::ids::lock(&self.watchers).live.values() {
            live.wake_ephemeral(number);
        }
    }

    /// Wakes one user, for an ephemeral change.
    pub fn wake_user_ephemeral(&self, user: UserNid, number: u64) {
        let live = crate::store::ids::lock(&self.watchers).live.get(&user).cloned();
        if let Some(live) = live {
            live.wake_ephemeral(number);
        }
    }

    /// Wakes everyone, for instance because the server stops.
    pub fn wake_all(&self) {
        for live in crate::store::ids::lock(&self.watchers).live.values() {
            live.parked.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserNid = UserNid(1);
    const ROOM: RoomNid = RoomNid(1);

    fn live(bus: &Bus, now_ms: i64) -> Arc<LiveUser> {
        bus.live(USER, Position::ZERO, now_ms)
    }

    #[test]
    fn who_has_just_come_is_not_forgotten() {
        let bus = Bus::default();
        live(&bus, 5);
        bus.watch(USER, ROOM);
        let back = live(&bus, 20);
        bus.forget_idle(10);
        assert!(bus.is_live(USER));
        bus.mark_room(ROOM, Position(7));
        assert_eq!(back.latest(), Position(7));
    }

    /// Returns whether `then` wakes a request that waits.
    fn is_woken(live: &LiveUser, then: impl FnOnce()) -> bool {
        let wake = live.next_wake();
        tokio::pin!(wake);
        wake.as_mut().enable();
        then();
        wake.enable()
    }

    #[test]
    fn a_mark_is_seen_at_once_and_wakes_later_and_once() {
        let bus = Bus::default();
        let live = live(&bus, 5);
        bus.watch(USER, ROOM);
        bus.wake_marked();
        assert!(!is_woken(&live, || bus.mark_room(ROOM, Position(7))), "its position is not visible yet");
        assert_eq!(live.latest(), Position(7));
        bus.mark_user(USER, Position(9));
        assert!(is_woken(&live, || bus.wake_marked()));
        assert_eq!(live.latest(), Position(9));
        assert!(!is_woken(&live, || bus.wake_marked()), "there is nothing new");
        assert!(is_woken(&live, || {
            bus.mark_everyone(Position(11));
            bus.wake_marked();
        }));
    }

    #[test]
    fn who_comes_between_a_mark_and_its_position_has_the_news() {
        // The user becomes live, and watches the room: each after the mark and before the wake.
        let marks: [fn(&Bus); 2] = [|bus| bus.mark_user(USER, Position(7)), |bus| bus.mark_room(ROOM, Position(7))];
        for mark in marks {
            let bus = Bus::default();
            mark(&bus);
            let live = live(&bus, 5);
            bus.watch(USER, ROOM);
            assert_eq!(live.latest(), Position(7));
            assert!(is_woken(&live, || bus.wake_marked()));
        }
        let bus = Bus::default();
        let live = live(&bus, 5);
        bus.mark_room(ROOM, Position(7));
        let number = bus.next_ephemeral();
        bus.wake_room_ephemeral(ROOM, number);
        assert_eq!((live.latest(), live.latest_ephemeral()), (Position::ZERO, 0), "the room is not watched");
        bus.watch(USER, ROOM);
        assert_eq!((live.latest(), live.latest_ephemeral()), (Position(7), number));
        assert!(is_woken(&live, || bus.wake_marked()));
    }

    #[test]
    fn who_was_forgotten_watches_anew() {
        let bus = Bus::default();
        let before = live(&bus, 5);
        bus.watch(USER, ROOM);
        bus.forget_idle(10);
        assert!(!bus.is_live(USER));
        let after = live(&bus, 20);
        bus.watch(USER, ROOM);
        bus.mark_room(ROOM, Position(7));
        assert_eq!((before.latest(), after.latest()), (Position::ZERO, Position(7)));
    }

    #[test]
    fn who_is_watched_is_who_is_live() {
        let bus = Bus::default();
        let stale = live(&bus, 5);
        bus.watch(USER, ROOM);
        crate::store::ids::lock(&bus.watchers).live.clear();
        let now = live(&bus, 20);
        bus.watch(USER, ROOM);
        bus.mark_room(ROOM, Position(7));
        assert_eq!((stale.latest(), now.latest()), (Position::ZERO, Position(7)));
    }
}
