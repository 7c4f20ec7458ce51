//! The wake-up bus: tells parked `/sync` requests that something was committed.
//!
//! It carries hints, never data: whoever is woken looks at what was committed. Users who sync are *live*; each live user
//! watches its rooms, so that an event wakes only those who are here to see it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, OnceCell};

use crate::store::{Position, RoomNid, UserNid};

/// A user who syncs: where the latest news for them is, and their parked requests.
#[derive(Debug)]
pub struct LiveUser {
    pub user: UserNid,
    latest: AtomicI64,
    latest_ephemeral: AtomicU64,
    parked: Notify,
    /// Set once the user's rooms are watched.
    pub watching: OnceCell<()>,
    /// When the user last synced, in milliseconds since 1970. Written under the lock of the bus, so that nobody is
    /// forgotten who has just come.
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

    /// There may be news up to `position`.
    pub fn wake(&self, position: Position) {
        self.latest.fetch_max(position.0, Ordering::AcqRel);
        self.parked.notify_waiters();
    }

    fn wake_ephemeral(&self, number: u64) {
        self.latest_ephemeral.fetch_max(number, Ordering::AcqRel);
        self.parked.notify_waiters();
    }
}

#[derive(Debug, Default)]
struct Watchers {
    live: HashMap<UserNid, Arc<LiveUser>>,
    rooms: HashMap<RoomNid, Vec<Arc<LiveUser>>>,
}

/// Called with a user who is no longer in a room.
type OnDeparture = Box<dyn Fn(&Bus, UserNid, RoomNid) + Send + Sync>;

/// Who wants to hear of departures.
#[derive(Default)]
struct Departures(OnceLock<OnDeparture>);

impl fmt::Debug for Departures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Departures").field(&self.0.get().is_some()).finish()
    }
}

/// Who is live and which rooms they watch. In this process; one small lock, held for the length of a loop.
#[derive(Debug, Default)]
pub struct Bus {
    watchers: Mutex<Watchers>,
    ephemeral: AtomicU64,
    departures: Departures,
}

impl Bus {
    /// The user, live from now on. `latest` is where everything up to now has been committed.
    pub fn live(&self, user: UserNid, latest: Position, now_ms: i64) -> Arc<LiveUser> {
        let mut watchers = crate::store::ids::lock(&self.watchers);
        let live = watchers.live.entry(user).or_insert_with(|| {
            Arc::new(LiveUser {
                user,
                latest: AtomicI64::new(latest.0),
                latest_ephemeral: AtomicU64::new(self.ephemeral.load(Ordering::Acquire)),
                parked: Notify::new(),
                watching: OnceCell::new(),
                used_at: AtomicI64::new(now_ms),
            })
        });
        live.used_at.store(now_ms, Ordering::Release);
        Arc::clone(live)
    }

    /// Whether the user has synced lately.
    pub fn is_live(&self, user: UserNid) -> bool {
        crate::store::ids::lock(&self.watchers).live.contains_key(&user)
    }

    /// Forgets users who have not synced since `before_ms`: no more wake-ups, until they sync again.
    pub fn forget_idle(&self, before_ms: i64) {
        let mut watchers = crate::store::ids::lock(&self.watchers);
        let Watchers { live, rooms } = &mut *watchers;
        live.retain(|_, live| live.used_at.load(Ordering::Acquire) >= before_ms);
        // By who is left, and not by the time again: a user in one of the two alone would be watched for nothing, or not at
        // all.
        rooms.retain(|_, users| {
            users.retain(|watcher| live.get(&watcher.user).is_some_and(|live| Arc::ptr_eq(live, watcher)));
            !users.is_empty()
        });
    }

    /// A live user wants to hear of a room. Users who are not live are ignored.
    pub fn watch(&self, user: UserNid, room: RoomNid) {
        let mut watchers = crate::store::ids::lock(&self.watchers);
        let Some(live) = watchers.live.get(&user).cloned() else {
            return;
        };
        let users = watchers.rooms.entry(room).or_default();
        match users.iter_mut().find(|other| other.user == user) {
            // It may be who the user was before they were forgotten, whose wake-ups nobody waits for any more.
            Some(watcher) => *watcher = live,
            None => users.push(live),
        }
    }

    /// Tells `listener` of every departure from now on, after its commit. There is one listener; a second is ignored.
    pub fn on_departure(&self, listener: impl Fn(&Self, UserNid, RoomNid) + Send + Sync + 'static) {
        let _: Result<(), OnDeparture> = self.departures.0.set(Box::new(listener));
    }

    /// The user has left the room, or never was in it.
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

    /// Something was committed that concerns the user.
    pub fn wake_user(&self, user: UserNid, position: Position) {
        let live = crate::store::ids::lock(&self.watchers).live.get(&user).cloned();
        if let Some(live) = live {
            live.wake(position);
        }
    }

    /// Something was committed that concerns everyone in the room.
    pub fn wake_room(&self, room: RoomNid, position: Position) {
        let _span = tracing::debug_span!("bus.wake").entered();
        let watchers = crate::store::ids::lock(&self.watchers);
        for live in watchers.rooms.get(&room).into_iter().flatten() {
            live.wake(position);
        }
    }

    /// The number of the latest ephemeral change of this process.
    pub fn ephemeral(&self) -> u64 {
        self.ephemeral.load(Ordering::Acquire)
    }

    /// A number for a change that is only kept in memory, such as typing. Larger is later.
    pub fn next_ephemeral(&self) -> u64 {
        self.ephemeral.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// An ephemeral change concerns everyone in the room.
    pub fn wake_room_ephemeral(&self, room: RoomNid, number: u64) {
        let watchers = crate::store::ids::lock(&self.watchers);
        for live in watchers.rooms.get(&room).into_iter().flatten() {
            live.wake_ephemeral(number);
        }
    }

    /// An ephemeral change concerns one user.
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
        bus.wake_room(ROOM, Position(7));
        assert_eq!(back.latest(), Position(7));
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
        bus.wake_room(ROOM, Position(7));
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
        bus.wake_room(ROOM, Position(7));
        assert_eq!((stale.latest(), now.latest()), (Position::ZERO, Position(7)));
    }
}
