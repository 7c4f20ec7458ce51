//! Following: reading the log of another process, entry by entry, without a hole.
//!
//! A follower reads the writer slot first and the log then, so the log reaches at least to the slot's position. Each entry
//! knows the bytes of the log before it, trimmed ones too. So a hole shows, wherever it is: the sums do not match.

use std::sync::Arc;

use super::{
    LogEntry, decode,
    feed::{ENTRIES, EntryRow, LogEnd, PAGE, PAGE_BYTES},
};
use crate::{
    report::Report,
    store::{Conn, Error, Position, conn::at_writer},
};

/// The place of a follower in the log: everything up to here is in memory.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct LogPlace {
    pos: Position,
    /// The bytes of all entries up to here.
    bytes: u64,
}

/// The next piece of the log.
#[derive(Debug)]
pub(in crate::store) enum Page {
    /// Entries, the oldest first, and whether they reach to the end that was asked for.
    Entries(Vec<Arc<LogEntry>>, bool),
    /// Entries after the place are damaged, or were trimmed.
    Missing,
}

impl LogPlace {
    /// The place of a process whose memory has everything up to `pos`, where the log has so many bytes.
    pub(in crate::store) fn new(pos: Position, bytes: u64) -> Self {
        Self { pos, bytes }
    }

    /// The place of a process whose memory has everything up to `pos`, by what the log still has.
    pub(in crate::store) async fn at(conn: &mut Conn<'_>, pos: Position) -> Result<Self, Error> {
        Ok(Self { pos, bytes: LogEnd::find_upto(conn, pos).await?.bytes })
    }

    /// Reads the entries after the place up to `upto`, at most a page, and moves the place to the last of them.
    pub(in crate::store) async fn page(&mut self, conn: &mut Conn<'_>, upto: Position) -> Result<Page, Error> {
        let rows: Vec<EntryRow> = at_writer!(conn, db => sqlx::query_as(ENTRIES.text())
            .bind(self.pos.0).bind(upto.0).bind(PAGE as i64).bind(PAGE_BYTES as i64).fetch_all(&mut **db).await)?;
        // A full page may be the last one too. Then an empty one follows.
        let is_last = rows.len() < PAGE && rows.iter().map(|(_, blob)| blob.len()).sum::<usize>() < PAGE_BYTES;
        let mut place = *self;
        let mut entries = Vec::with_capacity(rows.len());
        for (pos, blob) in rows {
            match decode(Position(pos), &blob) {
                Ok(entry) if entry.bytes_before == place.bytes => {
                    place = Self { pos: entry.pos, bytes: place.bytes + blob.len() as u64 };
                    entries.push(Arc::new(entry));
                }
                Ok(_) => return Ok(Page::Missing),
                Err(error) => {
                    tracing::error!(error = %Report(&error), position = pos, "an entry of the commit log is damaged");
                    return Ok(Page::Missing);
                }
            }
        }
        *self = place;
        Ok(Page::Entries(entries, is_last))
    }
}
