//! Looking through a room's events for those that are wanted.
//!
//! Promise: however little is accepted, one page costs a bounded number of events, relations, bytes and statements.

use std::collections::HashSet;

use super::{event::StoredEvent, history::Page, timeline::Placed};
use crate::store::{EventNid, Position, relations::RelatedParents};

/// Events that are looked at for one page, when most of them are filtered out. A relation that is looked at for a filter counts
/// as one more.
pub(super) const MAX_SCANNED: usize = 5_000;

/// Bytes of events that are looked at for one page: reading and parsing costs by size, and what is found is an answer in
/// memory.
const MAX_SCANNED_BYTES: usize = 16 << 20;

/// How many events are read at once while filtering.
const SCAN_PAGE: usize = 250;

/// A page that is being looked for.
pub(super) struct Scan {
    page: Page,
    limit: usize,
    max_scanned: usize,
    scanned: usize,
    bytes: usize,
    /// Where reading goes on.
    pub(super) next: Position,
    exhausted: bool,
}

impl Scan {
    pub(super) fn new(next: Position, limit: usize, max_scanned: usize) -> Self {
        Self { page: Page::default(), limit, max_scanned, scanned: 0, bytes: 0, next, exhausted: false }
    }

    /// How many events to read next. `None`: the page is finished, or enough was looked at.
    pub(super) fn next_count(&self) -> Option<usize> {
        let left = self.limit - self.page.events.len();
        if left == 0 || self.scanned >= self.max_scanned || self.bytes >= MAX_SCANNED_BYTES {
            return None;
        }
        // As many as were looked at so far: what accepts little is not looked for one event at a time.
        Some(left.max(self.scanned).clamp(1, SCAN_PAGE).min(self.max_scanned - self.scanned))
    }

    /// How many more events and relations may be looked at.
    pub(super) fn left(&self) -> usize {
        self.max_scanned.saturating_sub(self.scanned)
    }

    /// Counts the relations that were looked at for what was read when `count` were asked for, and leaves out the events that
    /// are not settled: reading goes on with them. Returns those that another one relates to.
    pub(super) fn settle(
        &mut self,
        events: &mut Vec<Placed>,
        count: &mut usize,
        parents: RelatedParents,
    ) -> HashSet<EventNid> {
        if parents.settled < events.len() {
            events.truncate(parents.settled);
            *count = parents.settled;
        }
        self.scanned += parents.relations;
        parents.found
    }

    /// Takes in what was read when `count` were asked for; whether that was the last of it. `after` is where reading goes on
    /// after an event.
    pub(super) fn take(
        &mut self,
        events: Vec<Placed>,
        count: usize,
        after: impl Fn(Position) -> Position,
        accepts: impl Fn(Position, &StoredEvent) -> bool,
    ) -> bool {
        let read = events.len();
        for (index, (pos, event)) in events.into_iter().enumerate() {
            self.next = after(pos);
            self.scanned += 1;
            self.bytes += event.pdu.json.len();
            if accepts(pos, &event) {
                self.page.events.push((pos, event));
            }
            if self.page.events.len() == self.limit {
                self.exhausted = read < count && index + 1 == read;
                return true;
            }
        }
        self.exhausted = read < count;
        self.exhausted
    }

    /// The page, and how many events and relations were looked at.
    pub(super) fn end(self) -> (Page, usize) {
        let next = (!self.exhausted).then_some(self.next);
        (Page { next, ..self.page }, self.scanned)
    }
}
