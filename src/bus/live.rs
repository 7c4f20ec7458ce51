//! A live user: the rooms with news for them, and their parked requests.
//!
//! The reasons are in `docs/decisions/0018-dirty-rooms.md`.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, OnceCell, futures::Notified};

use crate::store::{Position, RoomNid, UserNid, ids::lock};

/// The maximum number of rooms in the set of a user. A client that waits for news is some rooms behind, and one that
/// was away asks the database anyway. At this size the set of a user has about 14 kB.
const MAX_DIRTY_ROOMS: usize = 256;

/// The latest news of one room for one user. Zero means "none that the set knows of".
#[derive(Debug, Clone, Copy)]
struct Marks {
    pos: Position,
    ephemeral: u64,
}

/// The rooms with news for a user. Looking does not remove a room: each device of the user has its own token.
#[derive(Debug)]
struct Dirty {
    rooms: HashMap<RoomNid, Marks>,
    /// Every room with stored news after this position is in the set.
    reaches_to: Position,
    /// Every room with an ephemeral change after this number is in the set.
    ephemeral_reaches_to: u64,
}

impl Dirty {
    fn mark(&mut self, room: RoomNid, news: Marks) {
        let marks = self.rooms.entry(room).or_insert(Marks { pos: Position::BEFORE_ALL, ephemeral: 0 });
        marks.pos = marks.pos.max(news.pos);
        marks.ephemeral = marks.ephemeral.max(news.ephemeral);
        if self.rooms.len() > MAX_DIRTY_ROOMS {
            self.forget_older_half();
        }
    }

    fn forget_older_half(&mut self) {
        let mut positions: Vec<Position> = self.rooms.values().map(|marks| marks.pos).collect();
        let middle = positions.len() / 2;
        let (_, median, _) = positions.select_nth_unstable(middle);
        let median = *median;
        let Self { rooms, reaches_to, ephemeral_reaches_to } = self;
        *reaches_to = median.max(*reaches_to);
        rooms.retain(|_, marks| {
            let stays = marks.pos > median;
            if !stays {
                *ephemeral_reaches_to = marks.ephemeral.max(*ephemeral_reaches_to);
            }
            stays
        });
    }
}

/// The rooms with news after a client's token.
#[derive(Debug, PartialEq, Eq)]
pub struct DirtyRooms {
    pub rooms: Vec<RoomNid>,
    /// False if rooms with stored news may be missing, because the token is older than the set reaches back.
    pub reaches_back: bool,
    /// False if rooms with ephemeral changes may be missing.
    pub ephemeral_reaches_back: bool,
}

/// How soon a mark wakes the user's parked requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// A little later, together with others.
    Receipts = 1,
    Now = 2,
}

/// The value of [`LiveUser::due`] of a user without marks that wake them.
const NOT_DUE: u8 = 0;

/// A user who syncs, with the latest news for them and their parked requests.
#[derive(Debug)]
pub struct LiveUser {
    pub user: UserNid,
    dirty: Mutex<Dirty>,
    latest: AtomicI64,
    latest_ephemeral: AtomicU64,
    parked: Notify,
    /// The [`Urgency`] with which the user is listed among those to be woken, or [`NOT_DUE`].
    due: AtomicU8,
    /// Set once the user's rooms are watched.
    pub watching: OnceCell<()>,
    /// The time of the user's last sync, in milliseconds since 1970. Written under the lock of the user's shard, so that
    /// a user who has just come back is not forgotten.
    pub(super) used_at: AtomicI64,
    /// Set before the user is forgotten, when marks begin to miss this entry.
    retired: AtomicBool,
}

impl LiveUser {
    /// A user of whose news up to `reaches_to` and `ephemeral_reaches_to` nothing is known.
    pub(super) fn new(user: UserNid, (reaches_to, ephemeral_reaches_to): (Position, u64), now_ms: i64) -> Self {
        Self {
            user,
            dirty: Mutex::new(Dirty { rooms: HashMap::new(), reaches_to, ephemeral_reaches_to }),
            latest: AtomicI64::new(reaches_to.0),
            latest_ephemeral: AtomicU64::new(ephemeral_reaches_to),
            parked: Notify::new(),
            due: AtomicU8::new(NOT_DUE),
            watching: OnceCell::new(),
            used_at: AtomicI64::new(now_ms),
            retired: AtomicBool::new(false),
        }
    }

    /// The position of the latest thing that concerns this user. Before it there may be news; after it there is none.
    pub fn latest(&self) -> Position {
        Position(self.latest.load(Ordering::Acquire))
    }

    /// The number of the latest typing or presence change that concerns this user.
    pub fn latest_ephemeral(&self) -> u64 {
        self.latest_ephemeral.load(Ordering::Acquire)
    }

    /// The rooms with news after these. Call it after reading the position and the number up to which the caller looks:
    /// the marks of everything up to these are in the set then.
    pub fn dirty_since(&self, since: Position, since_ephemeral: u64) -> DirtyRooms {
        let dirty = self.dirty();
        let is_news = |marks: &Marks| marks.pos > since || marks.ephemeral > since_ephemeral;
        DirtyRooms {
            rooms: dirty.rooms.iter().filter(|(_, marks)| is_news(marks)).map(|(room, _)| *room).collect(),
            reaches_back: since >= dirty.reaches_to,
            ephemeral_reaches_back: since_ephemeral >= dirty.ephemeral_reaches_to,
        }
    }

    /// A future that resolves at the next wake-up after this call. `None` if the entry is retired: nobody may wake it any
    /// more. Look for news between calling and waiting, or one may be missed.
    pub fn next_wake(&self) -> Option<Notified<'_>> {
        self.next_wake_after(|| {})
    }

    /// As [`Self::next_wake`]. A test can let something happen between its two steps.
    fn next_wake_after(&self, between: impl FnOnce()) -> Option<Notified<'_>> {
        // In this order: an entry is retired before it is woken. So it is seen to be retired here, or the wake-up is still to
        // come, and resolves a future that exists already, polled or not.
        let wake = self.parked.notified();
        between();
        (!self.is_retired()).then_some(wake)
    }

    /// Notes that there may be news up to `position`, in `room` if it is given. Returns whether the caller must add the
    /// user to the list of `urgency`.
    #[must_use]
    pub(super) fn mark(&self, room: Option<RoomNid>, position: Position, urgency: Urgency) -> bool {
        // In this order: a look that knows that there is news finds the room.
        if let Some(room) = room {
            self.dirty().mark(room, Marks { pos: position, ephemeral: 0 });
        }
        self.latest.fetch_max(position.0, Ordering::AcqRel);
        self.is_newly_due(urgency)
    }

    /// Notes an ephemeral change of the room, before its number is visible.
    pub(super) fn mark_ephemeral(&self, room: RoomNid, number: u64) {
        self.dirty().mark(room, Marks { pos: Position::BEFORE_ALL, ephemeral: number });
    }

    /// Notes that news of the room up to these may have missed the user. Returns as [`Self::mark`] does.
    #[must_use]
    pub(super) fn may_have_missed_in(&self, room: RoomNid, position: Position, ephemeral: u64) -> bool {
        self.dirty().mark(room, Marks { pos: position, ephemeral });
        self.latest_ephemeral.fetch_max(ephemeral, Ordering::AcqRel);
        self.mark(None, position, Urgency::Now)
    }

    /// As [`Self::may_have_missed_in`], for any room.
    #[must_use]
    pub(super) fn may_have_missed(&self, position: Position, ephemeral: u64) -> bool {
        let mut dirty = self.dirty();
        dirty.reaches_to = position.max(dirty.reaches_to);
        dirty.ephemeral_reaches_to = ephemeral.max(dirty.ephemeral_reaches_to);
        drop(dirty);
        self.latest_ephemeral.fetch_max(ephemeral, Ordering::AcqRel);
        self.mark(None, position, Urgency::Now)
    }

    pub(super) fn is_newly_due(&self, urgency: Urgency) -> bool {
        self.due.fetch_max(urgency as u8, Ordering::AcqRel) < urgency as u8
    }

    /// Takes the user out of the list of `urgency`. Returns whether they belong there: a user whom a more urgent list
    /// has woken in the meantime does not.
    pub(super) fn take_due(&self, urgency: Urgency) -> bool {
        self.due.compare_exchange(urgency as u8, NOT_DUE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn wake(&self) {
        self.parked.notify_waiters();
    }

    pub(super) fn wake_ephemeral(&self, number: u64) {
        self.latest_ephemeral.fetch_max(number, Ordering::AcqRel);
        self.wake();
    }

    /// Notes that marks may miss this entry from now on. A request that still holds it asks the database for its rooms. Call
    /// [`Self::wake`] after it: a request that waits goes on, and makes the user live again.
    pub(super) fn retire(&self) {
        let mut dirty = self.dirty();
        dirty.rooms = HashMap::new();
        dirty.reaches_to = Position(i64::MAX);
        dirty.ephemeral_reaches_to = u64::MAX;
        drop(dirty);
        self.retired.store(true, Ordering::Release);
    }

    /// Returns whether marks and wake-ups miss this entry. A request that goes on makes the user live again.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        lock(&self.dirty)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, pin::pin};

    use proptest::prelude::*;

    use super::*;

    fn live() -> LiveUser {
        LiveUser::new(UserNid(1), (Position(10), 3), 0)
    }

    fn rooms(live: &LiveUser, since: i64, ephemeral: u64) -> Vec<i64> {
        let mut rooms: Vec<_> =
            live.dirty_since(Position(since), ephemeral).rooms.into_iter().map(|room| room.0).collect();
        rooms.sort_unstable();
        rooms
    }

    #[test]
    fn each_device_finds_the_rooms_after_its_own_token() {
        let live = live();
        for (room, pos) in [(1, 11), (2, 12), (1, 13)] {
            let _ = live.mark(Some(RoomNid(room)), Position(pos), Urgency::Now);
        }
        live.mark_ephemeral(RoomNid(3), 4);
        assert_eq!(rooms(&live, 10, 4), [1, 2]);
        assert_eq!(rooms(&live, 12, 4), [1], "another device looked meanwhile, and took nothing away");
        assert_eq!(rooms(&live, 13, 4), [0; 0]);
        assert_eq!(rooms(&live, 13, 3), [3]);
        let old = live.dirty_since(Position(9), 2);
        assert_eq!((old.reaches_back, old.ephemeral_reaches_back), (false, false));
        let new = live.dirty_since(Position(10), 3);
        assert_eq!((new.reaches_back, new.ephemeral_reaches_back), (true, true));
    }

    #[test]
    fn who_was_forgotten_knows_nothing_of_any_token() {
        let live = live();
        let _ = live.mark(Some(RoomNid(1)), Position(11), Urgency::Now);
        live.retire();
        let _ = live.mark(Some(RoomNid(1)), Position(12), Urgency::Now);
        let dirty = live.dirty_since(Position(1 << 40), 1 << 40);
        assert_eq!((dirty.reaches_back, dirty.ephemeral_reaches_back), (false, false));
    }

    #[test]
    fn a_request_that_begins_to_wait_while_the_user_is_forgotten_goes_on() {
        // The moments: before the request has its future, after that, and after it has seen whether the user is forgotten.
        for retired_at in 0..3 {
            for woken_at in retired_at..3 {
                let live = live();
                let happens = |moment: usize| {
                    if moment == retired_at {
                        live.retire();
                    }
                    if moment == woken_at {
                        live.wake();
                    }
                };
                happens(0);
                let wake = live.next_wake_after(|| happens(1));
                happens(2);
                let goes_on = wake.is_none_or(|wake| pin!(wake).enable());
                assert!(goes_on, "retired at {retired_at} and woken at {woken_at}: it would wait for ever");
            }
        }
        let live = live();
        let wake = live.next_wake().expect("it is live");
        assert!(!pin!(wake).enable(), "nobody was forgotten");
    }

    #[test]
    fn a_user_is_in_the_list_of_receipts_only_until_something_more_urgent_comes() {
        let live = live();
        assert!(live.mark(None, Position(11), Urgency::Receipts));
        assert!(!live.mark(None, Position(12), Urgency::Receipts));
        assert!(live.mark(None, Position(13), Urgency::Now));
        assert!(!live.mark(None, Position(14), Urgency::Receipts));
        assert!(!live.take_due(Urgency::Receipts), "the other list wakes them");
        assert!(live.take_due(Urgency::Now));
        assert!(!live.take_due(Urgency::Receipts), "they were woken");
        assert!(live.mark(None, Position(15), Urgency::Receipts));
        assert!(live.take_due(Urgency::Receipts));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// The model keeps every mark. Whatever the set has forgotten, it never claims to reach back that far.
        #[test]
        fn no_room_with_news_is_missing(marks in prop::collection::vec((0..700_i64, any::<bool>()), 0..2_000)) {
            let live = live();
            let mut all: HashMap<i64, (i64, u64)> = HashMap::new();
            for (step, (room, is_stored)) in marks.into_iter().enumerate() {
                let number = 11 + step as i64;
                let news = all.entry(room).or_default();
                if is_stored {
                    let _ = live.mark(Some(RoomNid(room)), Position(number), Urgency::Now);
                    news.0 = number;
                } else {
                    live.mark_ephemeral(RoomNid(room), number.unsigned_abs());
                    news.1 = number.unsigned_abs();
                }
                prop_assert!(live.dirty().rooms.len() <= MAX_DIRTY_ROOMS);
            }
            for since in (0..2_020).step_by(97) {
                let dirty = live.dirty_since(Position(since), since.unsigned_abs());
                let named: HashSet<_> = dirty.rooms.iter().map(|room| room.0).collect();
                for (room, (pos, ephemeral)) in &all {
                    let is_there = named.contains(room);
                    prop_assert!(is_there || !dirty.reaches_back || *pos <= since);
                    prop_assert!(is_there || !dirty.ephemeral_reaches_back || *ephemeral <= since.unsigned_abs());
                }
            }
        }
    }
}
