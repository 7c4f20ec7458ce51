//! The entry of a batch in the commit log, from the touches of its writes.

use super::{QueuedWrite, Work};
use crate::{
    report::Report,
    store::{
        Conn, Error, Position, Row, Value,
        conn::{at_writer, statements},
        log::{LogEntry, Touch, decode, encode},
        rows::inserts,
    },
};

statements! {
    LAST_ENTRY = "SELECT pos, touched FROM commit_log ORDER BY pos DESC LIMIT 1";
}

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
    /// The bytes of the log before the batch.
    pub(super) bytes_before: u64,
}

impl Frame {
    /// The row of the commit log; `None` if nothing was touched.
    pub(super) fn log_row(self, touches: Vec<(Position, Touch)>) -> Option<Row> {
        if touches.is_empty() {
            return None;
        }
        let Self { after, last: pos, at_ms, bytes_before, .. } = self;
        let entry = LogEntry { after, pos, at_ms, bytes_before, touches };
        Some(COMMIT_LOG.row([pos.into(), encode(&entry).into()]))
    }
}

/// The bytes that a row adds to the log.
pub(super) fn log_bytes(row: Option<&Row>) -> u64 {
    let is_blob = |value: &Value| if let Value::Blob(blob) = value { Some(blob.len() as u64) } else { None };
    row.and_then(|row| row.values.iter().find_map(is_blob)).unwrap_or_default()
}

/// The bytes of the whole log, as its last entry knows them.
pub(super) async fn stored_log_bytes(conn: &mut Conn<'_>) -> Result<u64, Error> {
    let last: Option<(i64, Vec<u8>)> =
        at_writer!(conn, db => sqlx::query_as(LAST_ENTRY.text()).fetch_optional(&mut **db).await)?;
    let Some((pos, blob)) = last else { return Ok(0) };
    match decode(Position(pos), &blob) {
        Ok(entry) => Ok(entry.bytes_before + blob.len() as u64),
        // Followers of the log see the damage as well, and read the tables instead. Writing must go on.
        Err(error) => {
            tracing::error!(error = %Report(&error), pos, "the last entry of the commit log is damaged");
            Ok(0)
        }
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
