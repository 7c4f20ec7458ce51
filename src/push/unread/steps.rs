//! The bounds on the work of counting: the steps of a look, and the work for all looks of an answer.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Maximum steps of matching for the events of one look, newest first: some tens of milliseconds. Enough for a thousand
/// events of 500 bytes and a hundred words to search for. With long patterns and long texts, fewer events count.
pub(super) const MAX_STEPS: usize = 50_000_000;

/// Maximum steps for the looks of one answer, all rooms together: some tenths of a second. With ordinary rules and
/// texts this is enough for a hundred thousand events.
pub(super) const MAX_STEPS_IN_ALL: usize = 4 * MAX_STEPS;

/// Maximum number of events that one answer adds to earlier counts, all rooms together: some tens of milliseconds. A room
/// with more news than are left is counted anew, which costs the latest hundred at most.
const MAX_ADDED_IN_ALL: usize = 5_000;

/// The remaining work for the looks of an answer.
pub struct WorkBudget {
    steps: AtomicUsize,
    added: AtomicUsize,
}

impl Default for WorkBudget {
    fn default() -> Self {
        Self { steps: AtomicUsize::new(MAX_STEPS_IN_ALL), added: AtomicUsize::new(MAX_ADDED_IN_ALL) }
    }
}

impl WorkBudget {
    pub(super) fn steps_left(&self) -> usize {
        self.steps.load(Ordering::Relaxed)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.steps_left() == 0
    }

    pub(super) fn spend(&self, steps: usize) {
        // One task writes an answer, so nothing else changes the numbers in between.
        self.steps.store(self.steps_left().saturating_sub(steps), Ordering::Relaxed);
    }

    /// The number of events that may still be added to earlier counts.
    pub(super) fn added_left(&self) -> usize {
        self.added.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, events: usize) {
        self.added.store(self.added_left().saturating_sub(events), Ordering::Relaxed);
    }
}

/// The part of the events for which the steps were enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    /// The latest events. [`MAX_STEPS`] is the same for every count.
    Latest,
    /// The events for which the budget of this answer was enough.
    OutOfBudget,
}
