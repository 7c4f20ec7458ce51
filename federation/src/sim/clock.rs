//! Time: the steps to come, and the time of the present one.

use std::collections::BTreeMap;

/// The time at which every simulation begins, in milliseconds since the Unix epoch.
pub(super) const BEGIN_MS: i64 = 1_700_000_000_000;

/// The steps to come, in the order of their times. Of two at the same time the one that was planned first comes first.
pub(super) struct Agenda<T> {
    now_ms: i64,
    planned: u64,
    to_come: BTreeMap<(i64, u64), T>,
}

impl<T> Agenda<T> {
    pub fn new() -> Self {
        Self { now_ms: 0, planned: 0, to_come: BTreeMap::new() }
    }

    /// Milliseconds since the beginning.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Plans a step.
    pub fn after(&mut self, delay_ms: i64, step: T) {
        self.planned += 1;
        self.to_come.insert((self.now_ms + delay_ms.max(0), self.planned), step);
    }

    /// Takes the next step, and moves the time to it.
    pub fn next(&mut self) -> Option<T> {
        let ((at_ms, _), step) = self.to_come.pop_first()?;
        self.now_ms = at_ms;
        Some(step)
    }

    /// Takes the next step if it is not later than this time.
    pub fn next_until(&mut self, time_ms: i64) -> Option<T> {
        self.to_come.first_key_value().filter(|((at_ms, _), _)| *at_ms <= time_ms)?;
        self.next()
    }

    /// The steps to come.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.to_come.values()
    }
}
