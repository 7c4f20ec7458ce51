//! The latest events of a room, in memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ruma::EventId;

use super::event::StoredEvent;
use crate::{
    memory::budget::{Budget, Part},
    store::Position,
};

/// The number of latest events that a room keeps in memory for `/sync`.
pub(super) const RING_EVENTS: usize = 64;

/// The number that a room keeps when the rings of all rooms together are full: what a client that waits for news is sent.
const FEW_EVENTS: usize = 8;

/// The bytes of these few events, unless the newest one alone has more. Ordinary messages take about 2 kB each, and large ones
/// 64 kB and more.
const FEW_BYTES: u64 = 16 * 1024;

/// The part of their share that is free after full rings were shrunk. Rooms in use fill it until the next time.
const FREED_PART: u64 = 8;

/// The rings of all rooms together.
#[derive(Debug)]
pub(super) struct Rings {
    /// The bytes that they may have. Beyond it, each ring may have few events until [`Rings::shrink`].
    share: u64,
    bytes: AtomicU64,
    /// The number of versions of all rings so far.
    versions: AtomicU64,
}

/// The rest of a ring that is shrunk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rest {
    /// At most [`FEW_EVENTS`] and [`FEW_BYTES`], but the newest event in any case.
    Few,
    Nothing,
}

impl Rings {
    pub(super) fn new(budget: &Budget) -> Arc<Self> {
        let rings = Self::of_share(budget.share(Part::LatestEvents));
        budget.watch(Part::LatestEvents, {
            let rings = Arc::clone(&rings);
            move || rings.bytes.load(Ordering::Relaxed)
        });
        rings
    }

    /// Rings that may have so many bytes.
    fn of_share(share: u64) -> Arc<Self> {
        Arc::new(Self { share, bytes: AtomicU64::new(0), versions: AtomicU64::new(0) })
    }

    fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn are_full(&self) -> bool {
        self.have_more_than(self.share)
    }

    /// Shrinks rings of `rooms` until the rings of all rooms have some room again: in this order, each to few events, and then
    /// to none. The first should be those that have been quiet for longest.
    pub(super) fn shrink<R>(&self, rooms: &[R], shrink: impl Fn(&R, Rest)) {
        let enough = self.share - self.share / FREED_PART;
        for rest in [Rest::Few, Rest::Nothing] {
            for room in rooms {
                if !self.have_more_than(enough) {
                    return;
                }
                shrink(room, rest);
            }
        }
    }

    fn have_more_than(&self, bytes: u64) -> bool {
        self.bytes.load(Ordering::Relaxed) > bytes
    }
}

/// The error for a range of which the ring has only a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotInRing;

/// The latest committed events of a room, oldest first.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<(Position, Arc<StoredEvent>)>,
    /// The ring holds every event of the timeline after this position.
    from: Position,
    bytes: u64,
    /// Another one after each change of an event. No two rings of this process ever have the same one.
    version: u64,
    all: Arc<Rings>,
}

/// The events of a ring in a range of positions, by which others may remember what they made of these events. Any change of
/// an event makes another span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Span {
    first: Position,
    last: Position,
    version: u64,
    pub(super) events: usize,
}

impl Ring {
    /// A ring without events, of a room that has none after `from`.
    pub(super) fn new(from: Position, all: Arc<Rings>) -> Self {
        let version = all.next_version();
        Self { events: VecDeque::new(), from, bytes: 0, version, all }
    }

    /// Fills a ring that is still empty with the latest events of a room, up to the position that it was made with. With
    /// `is_all`, the room has no others.
    pub(super) fn fill(&mut self, events: &[(Position, Arc<StoredEvent>)], is_all: bool) {
        if let Some((first, _)) = events.first() {
            self.from = if is_all { Position::BEFORE_ALL } else { Position(first.0 - 1) };
            self.extend(events);
        }
    }

    /// The events in (`after`, `upto`], if the ring reaches back that far. The range may end before it starts, and is then
    /// empty.
    pub(super) fn between(&self, after: Position, upto: Position) -> Option<Vec<(Position, Arc<StoredEvent>)>> {
        if after < self.from {
            return None;
        }
        let start = self.events.partition_point(|(pos, _)| *pos <= after);
        let end = self.events.partition_point(|(pos, _)| *pos <= upto);
        Some(self.events.range(start..end.max(start)).cloned().collect())
    }

    /// The span of the events in (`after`, `upto`], if there are any; an error if the ring does not reach back that far.
    pub(super) fn span(&self, after: Position, upto: Position) -> Result<Option<Span>, NotInRing> {
        if after < self.from {
            return Err(NotInRing);
        }
        let start = self.events.partition_point(|(pos, _)| *pos <= after);
        let end = self.events.partition_point(|(pos, _)| *pos <= upto);
        let at = |index: usize| self.events.get(index).map(|(pos, _)| *pos);
        let ends = if start < end { at(start).zip(at(end - 1)) } else { None };
        Ok(ends.map(|(first, last)| Span { first, last, version: self.version, events: end - start }))
    }

    /// At most the `limit` latest events up to `upto`, if the ring has that many.
    pub(super) fn latest(&self, upto: Position, limit: usize) -> Option<Vec<(Position, Arc<StoredEvent>)>> {
        let end = self.events.partition_point(|(pos, _)| *pos <= upto);
        if end < limit && !self.from.is_before_all() {
            return None;
        }
        Some(self.events.range(end.saturating_sub(limit)..end).cloned().collect())
    }

    /// The event with this ID.
    pub(super) fn find(&self, event_id: &EventId) -> Option<(Position, Arc<StoredEvent>)> {
        self.events.iter().rev().find(|(_, event)| event.event_id() == event_id).cloned()
    }

    /// Adds those of the committed events that are on the line, in the order of positions.
    pub(super) fn extend(&mut self, events: &[(Position, Arc<StoredEvent>)]) {
        for (pos, event) in events.iter().filter(|(_, event)| event.is_on_line()) {
            self.count(event.weight(), 0);
            self.events.push_back((*pos, Arc::clone(event)));
        }
        while self.events.len() > RING_EVENTS || self.has_more_than_few() && self.all.are_full() {
            self.drop_oldest();
        }
    }

    /// Drops events, the oldest first. Without events, a ring still shows that nothing came after the last one.
    pub(super) fn shrink(&mut self, rest: Rest) {
        let has_more: fn(&Self) -> bool = match rest {
            Rest::Few => Self::has_more_than_few,
            Rest::Nothing => |ring| !ring.events.is_empty(),
        };
        while has_more(self) {
            self.drop_oldest();
        }
        self.events.shrink_to_fit();
    }

    fn has_more_than_few(&self) -> bool {
        self.events.len() > FEW_EVENTS || self.events.len() > 1 && self.bytes > FEW_BYTES
    }

    fn drop_oldest(&mut self) {
        if let Some((pos, event)) = self.events.pop_front() {
            self.count(0, event.weight());
            self.from = pos;
        }
    }

    /// Replaces an event by its redacted form. If it is state, the event that replaced it shows that form too; if it is a
    /// redaction, the event that it redacted does.
    pub(super) fn replace(&mut self, event: &Arc<StoredEvent>) {
        let (mut added, mut removed) = (0, 0);
        for (_, held) in &mut self.events {
            let now = if held.nid == event.nid {
                Arc::clone(event)
            } else if held.redacted_because.as_ref().is_some_and(|because| because.nid == event.nid) {
                Arc::new(held.with_redaction(Arc::clone(event)))
            } else if held.shows(event) {
                Arc::new(held.replacing(&event.pdu.content))
            } else {
                continue;
            };
            added += now.weight();
            removed += held.weight();
            *held = now;
        }
        self.version = self.all.next_version();
        self.count(added, removed);
    }

    fn count(&mut self, added: u64, removed: u64) {
        self.bytes = self.bytes + added - removed;
        self.all.bytes.fetch_add(added, Ordering::Relaxed);
        self.all.bytes.fetch_sub(removed, Ordering::Relaxed);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, event_id};
    use sabha_federation::{
        Pdu,
        standing::{Flags, Standing, StateAt},
    };
    use serde_json::json;

    use super::*;
    use crate::store::{EventNid, RoomNid, TimelinePlace};

    fn event(number: i64) -> (Position, Arc<StoredEvent>) {
        event_with(number, "hello")
    }

    fn event_with(number: i64, body: &str) -> (Position, Arc<StoredEvent>) {
        let rules = RoomVersionId::V11.rules().expect("a known version");
        let json = json!({ "room_id": "!r:localhost", "sender": "@a:localhost", "type": "m.room.message",
            "content": { "body": body }, "depth": number, "origin_server_ts": 1, "prev_events": [], "auth_events": [],
            "hashes": { "sha256": "" }, "signatures": {} });
        let pdu = Pdu::from_stored(&rules, event_id!("$e").to_owned(), json.to_string()).expect("an event");
        let (nid, pos) = (EventNid(number), Position(number));
        let place = Some(TimelinePlace::on_line(pos));
        let standing = Standing { flags: Flags::NONE, place, before: StateAt::EMPTY };
        let stored = StoredEvent::new(nid, RoomNid(1), standing, 0, None, Arc::new(pdu), None, None);
        (pos, Arc::new(stored))
    }

    fn held(ring: &Ring) -> usize {
        ring.latest(Position(i64::MAX), 1).map_or(0, |_| ring.events.len())
    }

    #[test]
    fn a_ring_that_was_filled_reaches_back_to_its_first_event() {
        let rings = Rings::of_share(1 << 30);
        let events: Vec<_> = (5..=9).map(event).collect();
        for (is_all, from) in [(false, 4), (true, 0)] {
            let mut ring = Ring::new(Position(9), Arc::clone(&rings));
            ring.fill(&events, is_all);
            assert_eq!(ring.between(Position(from), Position(9)).map(|events| events.len()), Some(5));
            assert_eq!(ring.between(Position(3), Position(9)).is_some(), is_all);
            assert_eq!(ring.latest(Position(9), 6).is_some(), is_all);
        }
    }

    #[test]
    fn a_span_is_the_same_for_all_ranges_with_the_same_events_until_one_changes() {
        let rings = Rings::of_share(1 << 30);
        let mut ring = Ring::new(Position(4), Arc::clone(&rings));
        ring.extend(&[event(5), event(7), event(9)]);
        let span = |ring: &Ring, after, upto| ring.span(Position(after), Position(upto)).map_err(|NotInRing| ());
        let all = span(&ring, 4, 9).expect("it reaches back that far").expect("there are events");
        assert_eq!(all.events, 3);
        assert_eq!(span(&ring, 4, 12), Ok(Some(all)));
        assert_ne!(span(&ring, 4, 8), Ok(Some(all)));
        assert_eq!(span(&ring, 5, 7), span(&ring, 6, 8));
        for (after, upto) in [(9, 12), (5, 6), (8, 5)] {
            assert_eq!(span(&ring, after, upto), Ok(None));
        }
        assert_eq!(span(&ring, 3, 9), Err(()));
        ring.replace(&event(7).1);
        assert_ne!(span(&ring, 4, 9), Ok(Some(all)));
        let mut loaded_again = Ring::new(Position(4), rings);
        loaded_again.extend(&[event(5), event(7), event(9)]);
        assert_ne!(span(&loaded_again, 4, 9), Ok(Some(all)));
    }

    #[test]
    fn rings_that_are_full_together_keep_few_events_each() {
        let weight = event(1).1.weight();
        // Room for a whole ring and a half.
        let rings = Rings::of_share(weight * RING_EVENTS as u64 * 3 / 2);
        let (mut first, mut second) =
            (Ring::new(Position(0), Arc::clone(&rings)), Ring::new(Position(0), Arc::clone(&rings)));
        let events: Vec<_> = (1..=100).map(event).collect();
        first.extend(&events);
        assert_eq!(held(&first), RING_EVENTS, "nobody else needs the room");
        second.extend(&events);
        assert!((FEW_EVENTS..RING_EVENTS).contains(&held(&second)), "{}", held(&second));
        assert!(rings.bytes.load(Ordering::Relaxed) <= rings.share + weight);
        first.extend(&[event(101)]);
        assert!(
            first.between(Position(100), Position(101)).is_some_and(|events| events.len() == 1),
            "the newest stays"
        );
        drop((first, second));
        assert_eq!(rings.bytes.load(Ordering::Relaxed), 0, "a room that is evicted gives its bytes back");
    }

    /// A ring for each of `rooms`, of which the last has the latest event, with `events` events each.
    fn filled(rings: &Arc<Rings>, rooms: i64, events: i64, body: &str) -> Vec<std::cell::RefCell<Ring>> {
        let rings = (0..rooms).map(|room| {
            let mut ring = Ring::new(Position(0), Arc::clone(rings));
            for number in 1..=events {
                ring.extend(&[event_with(room * events + number, body)]);
            }
            ring.into()
        });
        rings.collect()
    }

    #[test]
    fn large_events_in_many_rooms_stay_one_for_each_room_until_quiet_rooms_are_shrunk() {
        let body = "x".repeat(60_000);
        let one = event_with(1, &body).1.weight();
        let all = Rings::of_share(2 << 20);
        let rooms = filled(&all, 200, 8, &body);
        let bytes = all.bytes.load(Ordering::Relaxed);
        assert!(bytes <= all.share + 200 * one, "{bytes}");
        for (room, ring) in (0..).zip(&rooms) {
            let last = (room + 1) * 8;
            let newest = ring.borrow().between(Position(last - 1), Position(last));
            assert!(newest.is_some_and(|events| events.len() == 1), "a client that waits finds the newest event");
        }

        all.shrink(&rooms, |ring, rest| ring.borrow_mut().shrink(rest));
        let left = all.bytes.load(Ordering::Relaxed);
        let freed = all.share - all.share / FREED_PART;
        assert!(left <= freed && left + one > freed, "{left} of {}", all.share);
        let (oldest, newest) = (&rooms[0], &rooms[199]);
        assert_eq!(newest.borrow().events.len(), 1, "the room that was active last keeps its event");
        assert_eq!(oldest.borrow().events.len(), 0);
        assert!(oldest.borrow().between(Position(8), Position(2_000)).is_some_and(|events| events.is_empty()));
        assert!(oldest.borrow().between(Position(7), Position(8)).is_none(), "the event is read from the database");
    }

    #[test]
    fn quiet_rings_are_shrunk_before_those_of_rooms_in_use_and_no_more_than_needed() {
        let weight = event(1).1.weight();
        // Room for two whole rings and a few events.
        let all = Rings::of_share(weight * (2 * RING_EVENTS + FEW_EVENTS) as u64);
        let rooms = filled(&all, 2, 100, "hello");
        let counts = || rooms.iter().map(|ring| ring.borrow().events.len()).collect::<Vec<_>>();
        let shrink = || all.shrink(&rooms, |ring, rest| ring.borrow_mut().shrink(rest));
        rooms[1].borrow_mut().extend(&[event(201)]);
        assert_eq!(counts(), [RING_EVENTS, RING_EVENTS]);
        shrink();
        assert_eq!(counts(), [FEW_EVENTS, RING_EVENTS], "the first one was quiet for longer");
        shrink();
        assert_eq!(counts(), [FEW_EVENTS, RING_EVENTS], "there is room enough");
    }
}
