//! The budgets of one answer for all its rooms together.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{push::unread::WorkBudget, room::event::StoredEvent};

/// The maximum number of events that one answer examines for filtered timelines: about a second of work. Once it is
/// spent, a room gets a gap, which the client fills with `/messages`.
const MAX_SCANNED_IN_ALL: usize = 50_000;

/// The maximum bytes of the events in all timelines of one answer: a thousand rooms with twenty ordinary messages each
/// use half of that. Once it is spent, each further timeline has only its newest event, and a gap.
const MAX_TIMELINE_BYTES: usize = 32 << 20;

/// The maximum bytes of the state events in one answer, and of timeline events beyond their own budget. An initial sync
/// of a large account has 10 to 30 MB of state, and a room with 50,000 members some 40 MB. A room whose state no longer
/// fits is left for the next answer.
const MAX_STATE_BYTES: usize = 128 << 20;

/// A number that an answer spends. One task writes an answer, so nothing comes between reading and writing the number.
pub(super) struct Budget(AtomicUsize);

impl Budget {
    pub(super) const fn new(all: usize) -> Self {
        Self(AtomicUsize::new(all))
    }

    pub(super) fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn spend(&self, spent: usize) {
        self.0.store(self.left().saturating_sub(spent), Ordering::Relaxed);
    }
}

/// The budgets of one answer.
pub(super) struct Budgets {
    pub(super) scans: Budget,
    pub(super) timelines: Budget,
    pub(super) states: Budget,
    pub(super) unread: WorkBudget,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            scans: Budget::new(MAX_SCANNED_IN_ALL),
            timelines: Budget::new(MAX_TIMELINE_BYTES),
            states: Budget::new(MAX_STATE_BYTES),
            unread: WorkBudget::default(),
        }
    }
}

impl Budgets {
    /// Returns the bytes left for a room's state, given the bytes of its timeline. `None` if not even the timeline
    /// fits.
    pub(super) fn left_for_state(&self, timeline: usize) -> Option<usize> {
        self.states.left().checked_sub(self.beyond(timeline))
    }

    /// Counts a room that stays in the answer.
    pub(super) fn spend(&self, RoomBytes { timeline, state }: RoomBytes) {
        self.states.spend(state + self.beyond(timeline));
        self.timelines.spend(timeline);
    }

    /// The bytes of a timeline beyond its own budget, since the newest event is always sent.
    fn beyond(&self, timeline: usize) -> usize {
        timeline.saturating_sub(self.timelines.left())
    }
}

/// The size of a room in an answer, in bytes of its events.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoomBytes {
    pub(super) timeline: usize,
    pub(super) state: usize,
}

/// The approximate bytes of an event in an answer.
pub(super) fn written_bytes(event: &StoredEvent) -> usize {
    let replaced = event.replaces.as_ref().map_or(0, |replaced| replaced.content.get().len());
    let redaction = event.redacted_because.as_ref().map_or(0, |redaction| redaction.pdu.json.len());
    event.pdu.json.len() + replaced + redaction
}
