//! The entry of a batch in the commit log, from the touches of its writes.

use std::sync::{Arc, OnceLock};

use super::{QueuedWrite, Work};
use crate::store::{
    Position, Row, Value,
    log::{LogEntry, Touch, encode},
    rows::inserts,
};

inserts! {
    COMMIT_LOG: CommitLogColumns = "commit_log" (pos: Position, touched: Vec<u8>) key 1 Fail, not followed;
}

/// The place of a batch in the order of all commits, and the right to write it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame<'a> {
    /// The last position of the batch before.
    pub(super) after: Position,
    /// The last position of the batch.
    pub(super) last: Position,
    pub(super) at_ms: i64,
    pub(super) epoch: i64,
    /// The bytes of the log before the batch.
    pub(super) bytes_before: u64,
    /// The place for the entry, which is needed when the batch is stored.
    pub(super) sent: &'a OnceLock<Arc<LogEntry>>,
}

impl Frame<'_> {
    /// The row of the commit log; `None` if nothing was touched. Keeps its entry.
    pub(super) fn log_row(self, touches: Vec<(Position, Touch)>) -> Option<Row> {
        if touches.is_empty() {
            return None;
        }
        let Self { after, last: pos, at_ms, bytes_before, .. } = self;
        let entry = LogEntry { after, pos, at_ms, bytes_before, touches };
        let row = CommitLogColumns { pos, touched: encode(&entry) }.row();
        // A batch is sent once for each frame.
        let _: Result<(), _> = self.sent.set(Arc::new(entry));
        Some(row)
    }
}

/// The bytes that a row adds to the log.
pub(super) fn log_bytes(row: Option<&Row>) -> u64 {
    let is_blob = |value: &Value| if let Value::Blob(blob) = value { Some(blob.len() as u64) } else { None };
    row.and_then(|row| row.values.iter().find_map(is_blob)).unwrap_or_default()
}

/// The touches of a queued write. A transaction knows its touches only when it runs.
pub(super) fn touches_of(queued: &QueuedWrite) -> impl Iterator<Item = (Position, Touch)> {
    let write = match &queued.work {
        Work::Write(write) => Some(write),
        Work::Transaction(_) => None,
    };
    write.into_iter().flat_map(|write| write.touches_at(queued.position))
}
