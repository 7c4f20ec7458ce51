//! Pages of the log from the database, on both engines.

use std::sync::Arc;

use super::{
    cursors::{World, insert},
    *,
};
use crate::store::{
    Conn, Error, Transaction,
    log::{
        feed::{LogEnd, PAGE, PAGE_BYTES, Upcoming},
        follow::{LogPlace, Page},
    },
};

/// A blob that is a little larger than a page.
const LARGE: usize = 300_000;

/// Three of these blobs make a page.
const THIRD: usize = 100_000;

/// The blob of a single message or two.
const SMALL: usize = 64;

/// Stores these entries.
struct StoreEntries(Vec<LogEntry>);

impl Transaction for StoreEntries {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        for entry in &self.0 {
            insert(conn, entry).await?;
        }
        Ok(())
    }
}

/// An entry whose blob has exactly so many bytes, [`SMALL`] at least.
fn entry(pos: i64, bytes_before: u64, bytes: usize) -> LogEntry {
    // What is not a token has fewer bytes than the smallest blob.
    let tokens = vec![[7; 32]; (bytes - SMALL) / 32];
    let touches = vec![(Position(pos), Touch::Sessions { user: UserNid(1), tokens })];
    let mut entry = LogEntry { after: Position(pos - 1), pos: Position(pos), at_ms: 0, bytes_before, touches };
    let missing = bytes - encode(&entry).len();
    entry.touches.extend((0..missing).map(|_| (Position(pos), Touch::Job)));
    assert_eq!(encode(&entry).len(), bytes, "another job takes one byte");
    entry
}

/// Entries of all sizes, in the order in which pages end by each of their limits.
fn log() -> Vec<LogEntry> {
    let sizes = [SMALL]
        .into_iter()
        .chain([LARGE; 5])
        .chain([THIRD; 9])
        // A page that has its bytes exactly, and one to which a single byte is missing.
        .chain([PAGE_BYTES, PAGE_BYTES - 1, SMALL])
        .chain([SMALL; 2 * PAGE + 10])
        .chain([LARGE, PAGE_BYTES]);
    let mut bytes_before = 0;
    (1..)
        .zip(sizes)
        .map(|(pos, bytes)| {
            let entry = entry(pos, bytes_before, bytes);
            bytes_before += bytes as u64;
            entry
        })
        .collect()
}

/// Checks that the pages have these entries, each once, and that none is longer or shorter than it may be.
fn check(pages: &[Vec<Arc<LogEntry>>], log: &[LogEntry]) {
    let read: Vec<&LogEntry> = pages.iter().flatten().map(|entry| &**entry).collect();
    assert_eq!(positions(read.iter().copied()), positions(log), "none is skipped or doubled");
    assert!(read.iter().copied().eq(log), "their content");
    for (index, page) in pages.iter().enumerate() {
        let sizes: Vec<usize> = page.iter().map(|entry| encode(entry).len()).collect();
        let bytes: usize = sizes.iter().sum();
        let last = *sizes.last().expect("a page has an entry");
        assert!(bytes - last < PAGE_BYTES && page.len() <= PAGE, "page {index} is held at once: {sizes:?}");
        let is_full = page.len() == PAGE || bytes >= PAGE_BYTES;
        assert!(is_full || index == pages.len() - 1, "page {index} ends too early: {sizes:?}");
    }
}

fn positions<'a>(entries: impl IntoIterator<Item = &'a LogEntry>) -> Vec<i64> {
    entries.into_iter().map(|entry| entry.pos.0).collect()
}

#[tokio::test]
async fn pages_of_large_entries_end_by_their_bytes_and_skip_nothing() {
    let log = log();
    let (first, last) = (log.first().expect("entries"), log.last().expect("entries"));
    let end = LogEnd { pos: last.pos, bytes: last.bytes_before + encode(last).len() as u64 };
    for world in World::both().await {
        world.db.committer().transact(StoreEntries(log.clone())).await.expect("stored");

        // A consumer that has done the first entry.
        let feed = Feed::new(end);
        let (mut pages, mut done) = (Vec::new(), first.pos);
        while done < end.pos {
            let Upcoming::Entries(page) = feed.after(&world.db, done, 0).await.expect("read") else {
                panic!("the log reaches back to {done:?}");
            };
            done = page.last().expect("a page has an entry").pos;
            pages.push(page);
        }
        check(&pages, &log[1..]);

        // A process that follows, up to a position after that of the last entry.
        let mut reader = world.db.read().await.expect("a reader");
        let (mut pages, mut is_last) = (Vec::new(), false);
        let mut place = LogPlace::at(&mut reader.conn(), first.pos).await.expect("read");
        while !is_last {
            let page = place.page(&mut reader.conn(), Position(end.pos.0 + 5)).await.expect("read");
            let Page::Entries(page, reaches_end) = page else { panic!("nothing is missing") };
            is_last = reaches_end;
            pages.push(page);
        }
        // The last entry has filled its page.
        assert!(pages.pop().is_some_and(|page| page.is_empty()));
        check(&pages, &log[1..]);
    }
}
