//! The entry of a batch in the commit log, from the touches of its writes.

use super::{QueuedWrite, Work};
use crate::store::{
    Position, Row,
    log::{LogEntry, Touch, encode},
    rows::inserts,
};

inserts! {
    COMMIT_LOG = "commit_log" ("pos", "touched") key 1 Fail, not followed;
}

/// The place of a batch in the order of all commits, and the right to write it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// The last position of the batch before.
    pub(super) after: Position,
    /// The last position of the batch.
    pub(super) last: Position,
    pub(super) at_ms: i64,
    pub(super) epoch: i64,
}

impl Frame {
    /// The row of the commit log; `None` if nothing was touched.
    pub(super) fn log_row(self, touches: Vec<(Position, Touch)>) -> Option<Row> {
        if touches.is_empty() {
            return None;
        }
        let entry = LogEntry { after: self.after, pos: self.last, at_ms: self.at_ms, touches };
        Some(COMMIT_LOG.row([entry.pos.into(), encode(&entry).into()]))
    }
}

/// The touches of a queued write. A transaction knows its touches only when it runs.
pub(super) fn touches_of(queued: &QueuedWrite) -> impl Iterator<Item = (Position, Touch)> {
    let touches: &[(Option<Position>, Touch)] = match &queued.work {
        Work::Write(write) => &write.touches,
        Work::Transaction(_) => &[],
    };
    touches.iter().map(|(at, touch)| (at.unwrap_or(queued.position), touch.clone()))
}
