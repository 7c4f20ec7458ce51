//! Chains of writes that build on each other, and fail together.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A chain of writes, each of which builds on the one before, such as the events of one room.
#[derive(Debug, Clone, Default)]
pub struct Lineage(Arc<AtomicBool>);

impl Lineage {
    /// Returns whether a write of this chain has failed. Everything in memory that was built on it must be thrown away.
    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Breaks the chain: the writes that were built on it fail, and nothing of them is stored.
    pub(crate) fn break_off(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Returns a guard that breaks the chain unless it is finished: for a change of memory that may fail or panic
    /// halfway.
    pub fn until_finished(&self) -> Unfinished {
        Unfinished(Some(self.clone()))
    }
}

/// A change of memory that has begun. Dropping it breaks the chain.
#[must_use = "dropping it breaks the chain"]
pub struct Unfinished(Option<Lineage>);

impl Unfinished {
    /// Marks the change as complete.
    pub fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(lineage) = &self.0 {
            lineage.break_off();
        }
    }
}
