//! The latest events of a room, in memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ruma::EventId;
use sabha_federation::standing::Standing;

use super::event::StoredEvent;
use crate::{
    memory::budget::{Budget, Part},
    store::{EventNid, Position, TimelinePlace},
};

/// The number of latest events that a room keeps in memory for `/sync`.
pub(super) const RING_EVENTS: usize = 64;

/// The number that a room keeps when the rings of all rooms together are full: what a client that waits for news is sent.
const FEW_EVENTS: usize = 8;

/// The bytes of these few events, unless the newest one alone has more. Ordinary messages take about 2 kB each, and large ones
/// 64 kB and more.
const FEW_BYTES: u64 = 16 * 1024;

/// The number of latest events of which a ring always has the places: a first sync shows ten or twenty events of a room, and
/// looks for one more. They take less than half a kilobyte, which does not count.
const PLACES: usize = 24;

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
    /// The places of the newest events that were dropped, oldest first.
    dropped: VecDeque<(Position, EventNid)>,
    /// Every event of the timeline after this position was dropped with its place, or is held.
    places_from: Position,
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
        let (events, dropped) = (VecDeque::new(), VecDeque::new());
        Self { events, from, dropped, places_from: from, bytes: 0, version, all }
    }

    /// Fills a ring that is still empty with the latest events of a room, up to the position that it was made with. With
    /// `is_all`, the room has no others.
    pub(super) fn fill(&mut self, events: &[(Position, Arc<StoredEvent>)], is_all: bool) {
        if let Some((first, _)) = events.first() {
            self.from = if is_all { Position::BEFORE_ALL } else { Position(first.0 - 1) };
            self.places_from = self.from;
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

    /// The places of at most the `limit` latest events up to `upto`, oldest first, if the ring knows that many.
    pub(super) fn latest_places(&self, upto: Position, limit: usize) -> Option<Vec<(Position, EventNid)>> {
        let held = self.events.iter().map(|(pos, event)| (*pos, event.nid));
        let known = self.dropped.iter().copied().chain(held);
        let mut places: Vec<_> = known.filter(|(pos, _)| *pos <= upto).collect();
        if places.len() < limit && !self.places_from.is_before_all() {
            return None;
        }
        places.drain(..places.len().saturating_sub(limit));
        Some(places)
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
        self.trim_places();
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
        self.trim_places();
        self.events.shrink_to_fit();
        self.dropped.shrink_to_fit();
    }

    fn has_more_than_few(&self) -> bool {
        self.events.len() > FEW_EVENTS || self.events.len() > 1 && self.bytes > FEW_BYTES
    }

    fn drop_oldest(&mut self) {
        if let Some((pos, event)) = self.events.pop_front() {
            self.count(0, event.weight());
            self.from = pos;
            self.dropped.push_back((pos, event.nid));
        }
    }

    /// Forgets the places of dropped events that are not among the latest [`PLACES`].
    fn trim_places(&mut self) {
        while self.dropped.len() + self.events.len() > PLACES
            && let Some((pos, _)) = self.dropped.pop_front()
        {
            self.places_from = pos;
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

    /// Gives an event another standing. One that loses its place goes.
    pub(super) fn restate(&mut self, nid: EventNid, standing: Standing) {
        let stays = |pos: Position| standing.place == Some(TimelinePlace::on_line(pos));
        self.dropped.retain(|(pos, dropped)| *dropped != nid || stays(*pos));
        let Some(index) = self.events.iter().position(|(_, event)| event.nid == nid) else { return };
        self.version = self.all.next_version();
        let (pos, event) = &mut self.events[index];
        if stays(*pos) {
            *event = Arc::new(event.restated(standing));
        } else {
            let weight = event.weight();
            self.events.remove(index);
            self.count(0, weight);
        }
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
mod tests;
