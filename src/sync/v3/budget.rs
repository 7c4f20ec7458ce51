//! What one answer has for all of its rooms together.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{push::unread::StepBudget, room::event::StoredEvent};

/// Events that one answer looks at for filtered timelines: about a second of work. A room for which none is left gets a
/// gap, which the client fills with `/messages`.
const MAX_SCANNED_IN_ALL: usize = 50_000;

/// Bytes of the events in all timelines of one answer: a thousand rooms with twenty ordinary messages each have half of
/// that. Once it is spent, each further timeline has its newest event alone, and a gap.
const MAX_TIMELINE_BYTES: usize = 32 << 20;

/// Bytes of the state events in one answer, and of what timelines have beyond their part. An initial sync of a large account
/// has 10 to 30 MB of state, and a room with 50,000 members some 40 MB. A room whose state does not fit any more is left
/// for the next answer.
const MAX_STATE_BYTES: usize = 128 << 20;

/// A number of which an answer spends. One answer is written by one task, so nothing comes between reading and writing it.
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
    pub(super) unread: StepBudget,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            scans: Budget::new(MAX_SCANNED_IN_ALL),
            timelines: Budget::new(MAX_TIMELINE_BYTES),
            states: Budget::new(MAX_STATE_BYTES),
            unread: StepBudget::default(),
        }
    }
}

impl Budgets {
    /// How many bytes the state of a room may have whose timeline has so many. `None`: not even that timeline fits.
    pub(super) fn left_for_state(&self, timeline: usize) -> Option<usize> {
        self.states.left().checked_sub(self.beyond(timeline))
    }

    /// Takes note of a room that stays in the answer.
    pub(super) fn spend(&self, RoomBytes { timeline, state }: RoomBytes) {
        self.states.spend(state + self.beyond(timeline));
        self.timelines.spend(timeline);
    }

    /// How much of a timeline its part has no place for: the newest event is told all the same.
    fn beyond(&self, timeline: usize) -> usize {
        timeline.saturating_sub(self.timelines.left())
    }
}

/// What a room has in an answer, in bytes of its events.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoomBytes {
    pub(super) timeline: usize,
    pub(super) state: usize,
}

/// About how many bytes an event has in an answer.
pub(super) fn written_bytes(event: &StoredEvent) -> usize {
    let replaced = event.replaces.as_ref().map_or(0, |replaced| replaced.content.get().len());
    let redaction = event.redacted_because.as_ref().map_or(0, |redaction| redaction.pdu.json.len());
    event.pdu.json.len() + replaced + redaction
}
