//! Counts of the work under the locks of the bus, for tests. Each test runs in a thread of its own.

use std::{
    cell::Cell,
    hash::{BuildHasher, DefaultHasher},
};

/// The work of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Locks of parts of a map that were taken.
    pub locks: usize,
    /// Keys that were hashed: to be found, and when a map grew.
    pub hashed: usize,
    /// Entries that a loop went over.
    pub visited: usize,
}

thread_local! {
    static WORK: Cell<Work> = const { Cell::new(Work { locks: 0, hashed: 0, visited: 0 }) };
}

fn count(add: impl FnOnce(&mut Work)) {
    let mut work = WORK.get();
    add(&mut work);
    WORK.set(work);
}

pub fn locked() {
    count(|work| work.locks += 1);
}

pub fn visited(entries: usize) {
    count(|work| work.visited += entries);
}

/// Returns the work of `run`.
pub fn during(run: impl FnOnce()) -> Work {
    WORK.set(Work::default());
    run();
    WORK.get()
}

/// Hashes as usual, and counts.
#[derive(Debug, Clone, Default)]
pub struct Hashing;

impl BuildHasher for Hashing {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        count(|work| work.hashed += 1);
        DefaultHasher::new()
    }
}
