//! The commit log: what each commit has changed, in the order of the commits.
//!
//! A batch of the committer has one [`LogEntry`], which is stored in the commit itself, in one row of `commit_log`. The
//! entry names what was touched and holds none of it: whoever follows the log reads the rest from the tables, as it is by
//! then. A batch that touched nothing has no entry.
//!
//! [`touch`] lists what can be touched; [`mod@encode`] and [`mod@decode`] are the stored form. [`memory`] is for what follows each commit at
//! once. [`cursor`] is for those who follow
//! the log, each at its own pace: a [`Consumer`] says what to do, [`feed`] brings the entries, [`cursors`] stores how far each
//! has come, [`trim`] deletes what nobody needs any more. [`lease`] and [`follow`] are for several processes on one database:
//! one writes, and the memory of the others follows the log.

pub(super) mod cursor;
pub(super) mod cursors;
mod decode;
mod encode;
pub(super) mod feed;
pub(super) mod follow;
pub(super) mod lease;
mod memory;
mod touch;
pub(super) mod trim;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use cursor::{Consumer, Cursor};
pub use cursors::{Cursors, Lag};
pub use decode::{DecodeError, decode};
pub use encode::encode;
pub use feed::Feed;
pub(super) use memory::Memories;
pub use memory::Memory;
pub use touch::{Touch, WordKind};

use super::Position;

/// The changes of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The last position of the batch before, whether that has an entry or not.
    pub after: Position,
    /// The last position of this batch, and the key of the entry.
    pub pos: Position,
    /// The time of the commit, in milliseconds since 1970. It may go back with the clock.
    pub at_ms: i64,
    /// The bytes of all blobs before this one since the log began, trimmed ones too, so that the size of what lies
    /// between two entries is a subtraction.
    pub bytes_before: u64,
    /// The touches in the order of the queue, each with the position of its write. Positions do not go back; all of them
    /// are after `after`, and none is after `pos`.
    pub touches: Vec<(Position, Touch)>,
}

impl LogEntry {
    fn age(&self, now_ms: i64) -> Duration {
        age(self.at_ms, now_ms)
    }
}

/// The time between a commit and now. An entry from a clock that was ahead ages too, or it would stay for ever.
fn age(at_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(now_ms.abs_diff(at_ms))
}
