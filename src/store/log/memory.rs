//! The parts of memory that follow the commits: caches, and what is known to be new.
//!
//! Promise: what a commit changes in memory follows from its entry in the commit log, and from nothing else. So a process that
//! reads the log has the same memory as the one that wrote it.
//!
//! An entry names things and holds none of them. Where a writer has the thing at hand, it waits in a register of its owner,
//! found by the ids of the touch, until [`Memory::apply`] or [`Memory::abandoned`] takes it out. A thing that is in no register
//! is evicted and read again when somebody asks for it. It is never guessed.

use std::sync::{Arc, PoisonError, RwLock};

use super::{LogEntry, Touch};
use crate::store::Position;

/// A part of memory that follows the commits.
pub trait Memory: Send + Sync {
    /// Takes over a commit. Runs once for each entry, in their order, after the commit and before its position is visible. It must
    /// be short and must not block: every writer waits for it. A panic ends the process, because readers would skip what memory
    /// does not hold.
    fn apply(&self, entry: &LogEntry);

    /// Takes over a commit of another process, as [`Self::apply`] does: nothing is in a register for it. Overridden where memory
    /// must know the difference.
    fn follow(&self, entry: &LogEntry) {
        self.apply(entry);
    }

    /// Evicts everything, and goes on with the commits after `upto`: some of those before it may be missing here, or memory may
    /// be ahead of the database. A thing that was read before must not be kept after it.
    fn forget(&self, upto: Position);

    /// Takes what a write has registered out again: it was not stored. The touches are those of the write, each with its position.
    fn abandoned(&self, touches: &[(Position, Touch)]) {
        let _ = touches;
    }
}

/// All parts of memory that follow the commits of one database.
#[derive(Default)]
pub(in crate::store) struct Memories(RwLock<Vec<Arc<dyn Memory>>>);

impl Memories {
    /// Adds a part. It sees the entries from now on, and takes its turn after those that were added before.
    pub(in crate::store) fn add(&self, memory: Arc<dyn Memory>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(memory);
    }

    pub(in crate::store) fn apply(&self, entry: &LogEntry) {
        self.each(|memory| memory.apply(entry));
    }

    pub(in crate::store) fn follow(&self, entry: &LogEntry) {
        self.each(|memory| memory.follow(entry));
    }

    pub(in crate::store) fn forget(&self, upto: Position) {
        self.each(|memory| memory.forget(upto));
    }

    pub(in crate::store) fn abandoned(&self, touches: &[(Position, Touch)]) {
        if !touches.is_empty() {
            self.each(|memory| memory.abandoned(touches));
        }
    }

    fn each(&self, run: impl Fn(&dyn Memory)) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().for_each(|memory| run(&**memory));
    }
}
