//! The feed: the entries of the commit log for those who follow it. The newest ones are in memory, older ones come from the
//! table in pages.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{Cursors, LogEntry, decode};
use crate::{
    report::Report,
    store::{
        Conn, Database, Error, Position,
        conn::{on, statements},
        ids::lock,
    },
};

statements! {
    NEWEST_UPTO = "SELECT pos, touched FROM commit_log WHERE pos <= $1 ORDER BY pos DESC LIMIT 1";
    /// The entries of a page. Each has fewer than $4 bytes before it there, so the first one is always among them. Their
    /// sizes are read first, which loads none of them.
    pub(super) ENTRIES = "SELECT pos, touched FROM commit_log WHERE pos > $1 AND pos <= \
        (SELECT MAX(pos) FROM (SELECT pos, SUM(bytes) OVER (ORDER BY pos) - bytes AS bytes_before FROM \
        (SELECT pos, LENGTH(touched) AS bytes FROM commit_log WHERE pos > $1 AND pos <= $2 ORDER BY pos LIMIT $3) near) sized \
        WHERE bytes_before < $4) ORDER BY pos";
}

/// The number of entries in memory: some seconds of a busy server, so that a consumer that keeps up reads no table.
const RECENT_ENTRIES: usize = 1024;

/// The number of touches in memory, about 3 MB. Large batches have hundreds each.
const RECENT_TOUCHES: usize = 65_536;

/// The number of entries in a page: one read, and the work that a consumer repeats when it fails.
pub(super) const PAGE: usize = 200;

/// The number of bytes with which a page from the database ends; its last entry may go beyond it. Two hundred entries of
/// single messages have 6 kB, and a large batch has some more. In memory an entry takes about twenty times its bytes, so a
/// page has about 5 MB, like the newest entries ([`RECENT_TOUCHES`]).
pub(super) const PAGE_BYTES: usize = 256 << 10;

/// The age of an entry beyond which the tables are quicker to read than what the log has gathered since.
pub(super) const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The bytes of the log behind a cursor beyond which the tables are quicker to read, and the most that is kept.
pub(super) const MAX_BYTES: u64 = 1 << 30;

/// A row of the log.
pub(super) type EntryRow = (i64, Vec<u8>);

/// The end of the log: the position of the newest entry, and the bytes of all entries so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct LogEnd {
    pub(in crate::store) pos: Position,
    pub(in crate::store) bytes: u64,
}

impl LogEnd {
    /// Reads the end that the stored log had at `upto`. A log without entries ends at [`Position::BEFORE_ALL`]: trimming keeps
    /// the newest entry.
    pub(in crate::store) async fn find_upto(conn: &mut Conn<'_>, upto: Position) -> Result<Self, Error> {
        let Some((pos, blob)) = newest_upto(conn, upto).await? else {
            return Ok(Self { pos: Position::BEFORE_ALL, bytes: 0 });
        };
        let bytes = match decode(Position(pos), &blob) {
            Ok(entry) => entry.bytes_before + blob.len() as u64,
            // Consumers see the damage as well, and read the tables instead. Writing must go on.
            Err(error) => {
                tracing::error!(error = %Report(&error), position = pos, "the last entry of the commit log is damaged");
                0
            }
        };
        Ok(Self { pos: Position(pos), bytes })
    }
}

async fn newest_upto(conn: &mut Conn<'_>, upto: Position) -> Result<Option<EntryRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(NEWEST_UPTO.text()).bind(upto.0).fetch_optional(&mut **db).await)?)
}

/// The next piece of the log for a consumer.
#[derive(Debug)]
pub(super) enum Upcoming {
    /// Entries, the oldest first. There may be more after them.
    Entries(Vec<Arc<LogEntry>>),
    /// The log does not reach back so far, is damaged there, or is too long: the tables must be read instead.
    TooFar,
}

/// The entries of this process's commits, and the way to older ones.
#[derive(Debug)]
pub struct Feed {
    recent: Mutex<Recent>,
    cursors: Cursors,
}

/// The newest entries.
#[derive(Debug)]
struct Recent {
    entries: VecDeque<Arc<LogEntry>>,
    /// The number of touches in `entries`.
    touches: usize,
    /// Every entry after this position is in `entries`.
    complete_from: Position,
    /// The bytes of the log before its newest entry.
    bytes: u64,
}

impl Feed {
    /// The feed of a log that ends here.
    pub(in crate::store) fn new(end: LogEnd) -> Self {
        let recent = Recent { entries: VecDeque::new(), touches: 0, complete_from: end.pos, bytes: end.bytes };
        Self { recent: Mutex::new(recent), cursors: Cursors::new(end.pos) }
    }

    /// Adds the entry of a commit, and wakes the consumers that it concerns. Call it for each entry in order, once its position is visible
    /// and before its writers are answered.
    pub(in crate::store) fn append(&self, entry: Arc<LogEntry>) {
        let newest = Arc::clone(&entry);
        let mut recent = lock(&self.recent);
        recent.touches += entry.touches.len();
        recent.bytes = entry.bytes_before;
        recent.entries.push_back(entry);
        while recent.entries.len() > RECENT_ENTRIES || recent.touches > RECENT_TOUCHES {
            let Some(oldest) = recent.entries.pop_front() else { break };
            recent.touches -= oldest.touches.len();
            recent.complete_from = oldest.pos;
        }
        drop(recent);
        self.cursors.appended(&newest);
    }

    /// Goes on from here, without the entries before, which are missing.
    pub(in crate::store) fn skip_to(&self, end: LogEnd) {
        let LogEnd { pos, bytes } = end;
        *lock(&self.recent) = Recent { entries: VecDeque::new(), touches: 0, complete_from: pos, bytes };
        self.cursors.skipped_to(pos);
    }

    /// The position of the newest entry.
    pub fn latest(&self) -> Position {
        self.cursors.latest()
    }

    /// The places of those who follow the log in this process.
    pub(in crate::store) fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// The bytes of the log before its newest entry.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.recent).bytes
    }

    /// The time of the first entry after `pos`, if memory has it.
    pub(super) fn time_after(&self, pos: Position) -> Option<i64> {
        let recent = lock(&self.recent);
        recent.after(pos)?.next().map(|entry| entry.at_ms)
    }

    /// The next entries after `pos`, at most a page.
    pub(super) async fn after(&self, db: &Database, pos: Position, now_ms: i64) -> Result<Upcoming, Error> {
        let latest = self.latest();
        let bytes = {
            let recent = lock(&self.recent);
            if let Some(entries) = recent.after(pos) {
                return Ok(Upcoming::Entries(entries.take(PAGE).cloned().collect()));
            }
            recent.bytes
        };
        let mut reader = db.read().await?;
        let mut conn = reader.conn();
        // Trimming keeps an entry at or before the slowest cursor. Without one, entries after the cursor may be gone.
        if newest_upto(&mut conn, pos).await?.is_none() {
            return Ok(Upcoming::TooFar);
        }
        let rows: Vec<EntryRow> = on!(&mut conn, db => sqlx::query_as(ENTRIES.text())
            .bind(pos.0).bind(latest.0).bind(PAGE as i64).bind(PAGE_BYTES as i64).fetch_all(&mut **db).await)?;
        drop(reader);
        let mut entries = Vec::with_capacity(rows.len());
        for (pos, blob) in rows {
            match decode(Position(pos), &blob) {
                Ok(entry) => entries.push(Arc::new(entry)),
                Err(error) => {
                    tracing::error!(error = %Report(&error), position = pos, "an entry of the commit log is damaged");
                    return Ok(Upcoming::TooFar);
                }
            }
        }
        let is_near = |first: &Arc<LogEntry>| {
            first.age(now_ms) <= MAX_AGE && bytes.saturating_sub(first.bytes_before) <= MAX_BYTES
        };
        Ok(if entries.first().is_some_and(is_near) { Upcoming::Entries(entries) } else { Upcoming::TooFar })
    }
}

impl Recent {
    /// The entries after `pos`, if all of them are here.
    fn after(&self, pos: Position) -> Option<impl Iterator<Item = &Arc<LogEntry>>> {
        let is_complete = pos >= self.complete_from;
        is_complete.then(|| self.entries.range(self.entries.partition_point(|entry| entry.pos <= pos)..))
    }
}
