//! Scans of a room's events for the wanted ones.
//!
//! Promise: even if few events are accepted, one page costs a bounded number of events, relations, bytes and
//! statements.

use std::collections::HashSet;

use super::timeline::TimelineEvent;
use crate::{
    room::{
        event::StoredEvent,
        read::pages::{Page, PageRange},
    },
    store::{EventNid, TimelinePlace, relations::RelatedParents},
};

/// The number of events that are read for one page, when most of them are filtered out. A relation that is read for a
/// filter counts as one more.
pub(in crate::room) const MAX_SCANNED: usize = 5_000;

/// The bytes of events that are read for one page: reading and parsing cost by size, and the accepted events are an
/// answer in memory.
const MAX_SCANNED_BYTES: usize = 16 << 20;

/// The number of events that are read at once while filtering.
const SCAN_PAGE: usize = 250;

/// A page that is being filled.
pub(in crate::room) struct Scan {
    page: Page,
    limit: usize,
    max_scanned: usize,
    scanned: usize,
    bytes: usize,
    range: PageRange,
    /// The place where reading continues.
    next: TimelinePlace,
    exhausted: bool,
}

impl Scan {
    pub(in crate::room) fn new(range: PageRange, limit: usize, max_scanned: usize) -> Self {
        let (page, next) = (Page::default(), range.start());
        Self { page, limit, max_scanned, scanned: 0, bytes: 0, range, next, exhausted: false }
    }

    /// The part of the range that is not read yet.
    pub(in crate::room) fn rest(&self) -> PageRange {
        self.range.starting_at(self.next)
    }

    /// The number of events to read next. `None`: the page is full, or enough was read.
    pub(in crate::room) fn next_count(&self) -> Option<usize> {
        let left = self.limit - self.page.events.len();
        if left == 0 || self.scanned >= self.max_scanned || self.bytes >= MAX_SCANNED_BYTES {
            return None;
        }
        // At least as many as were read so far, so that a filter that accepts little does not read events one at a
        // time.
        Some(left.max(self.scanned).clamp(1, SCAN_PAGE).min(self.max_scanned - self.scanned))
    }

    /// The number of events and relations that may still be read.
    pub(in crate::room) fn left(&self) -> usize {
        self.max_scanned.saturating_sub(self.scanned)
    }

    /// Counts the relations that were read for these events, of which `count` were asked for. Removes the events that
    /// are not settled, where reading continues. Returns the events that another one relates to.
    pub(in crate::room) fn settle(
        &mut self,
        events: &mut Vec<TimelineEvent>,
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

    /// Takes the accepted ones of these events, of which `count` were asked for. Returns whether the page is complete.
    pub(in crate::room) fn take(
        &mut self,
        events: Vec<TimelineEvent>,
        count: usize,
        accepts: impl Fn(&StoredEvent) -> bool,
    ) -> bool {
        let read = events.len();
        for (index, (place, event)) in events.into_iter().enumerate() {
            self.next = self.range.beyond(place);
            self.scanned += 1;
            self.bytes += event.pdu.json.len();
            if accepts(&event) {
                self.page.events.push((place, event));
            }
            if self.page.events.len() == self.limit {
                self.exhausted = read < count && index + 1 == read;
                return true;
            }
        }
        self.exhausted = read < count;
        self.exhausted
    }

    /// The page, and the number of events and relations that were read.
    pub(in crate::room) fn end(self) -> (Page, usize) {
        let next = (!self.exhausted).then_some(self.next);
        (Page { next, ..self.page }, self.scanned)
    }
}
