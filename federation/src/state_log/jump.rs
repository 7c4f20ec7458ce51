//! Jumps: positions at which a whole state replaces another in the log.
//!
//! A join through another server, and the end of partial state, bring a state that may have 50,000 keys at once. Rows for
//! all of them would hold up every other write. So two checkpoints are stored instead, of the state before and the one
//! after, and readers of rows take the jump's changes as rows that were never stored.
//!
//! Promise: rows merged with those of the jumps between them are what the log would have been with a row for each key.
//! Nothing else changes at the position of a jump.

use std::cmp::Ordering;

use super::{LogRow, StateEntry, StateLog};
use crate::{
    held::Held,
    ids::{KeyNid, Position},
};

/// A whole state that replaced another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    pub pos: Position,
    /// The state before, sorted by key.
    pub before: Vec<(KeyNid, StateEntry)>,
    /// The state after, sorted by key. Only keys whose event differs have the position of the jump.
    pub after: Vec<(KeyNid, StateEntry)>,
}

impl Jump {
    /// The changes as rows of the log, in the order of keys.
    pub fn rows(&self) -> impl Iterator<Item = LogRow> + '_ {
        differences(&self.before, &self.after).map(|(key, before, now)| self.row_of(key, before, now))
    }

    /// The change of `key` as a row of the log. `None`: its event stays.
    pub fn row(&self, key: KeyNid) -> Option<LogRow> {
        let (before, now) = (find(&self.before, key), find(&self.after, key));
        differ(before, now).then(|| self.row_of(key, before, now))
    }

    fn row_of(&self, key: KeyNid, before: Option<StateEntry>, now: Option<StateEntry>) -> LogRow {
        LogRow {
            key,
            pos: self.pos,
            event_nid: now.map(|entry| entry.event_nid),
            membership: now.and_then(|entry| entry.membership),
            prev_event_nid: before.map(|entry| entry.event_nid),
        }
    }
}

/// The rows of a log together with rows of its jumps, each of them oldest first: as all of them would have been stored.
pub fn merge(rows: Vec<LogRow>, of_jumps: impl IntoIterator<Item = LogRow>) -> Vec<LogRow> {
    let mut merged = rows;
    merged.extend(of_jumps);
    // A stable sort: the changes of one position keep their order. Two sorted halves are merged in linear time.
    merged.sort_by_key(|row| row.pos);
    merged
}

impl StateLog {
    /// The log that goes on from another whole state at `pos`, which is newer than everything in the log. `entries` are
    /// sorted by key. Keys whose event changes get this position, the others keep theirs.
    ///
    /// The tail begins at `pos`, so earlier states are no longer in memory, whatever [`StateLog::keep_since`] was told.
    #[must_use]
    pub fn jump(&self, pos: Position, entries: Vec<(KeyNid, Held)>) -> Self {
        debug_assert!(
            entries.is_sorted_by(|(left, _), (right, _)| left < right),
            "a state has each key once, in order"
        );
        debug_assert!(self.latest() < pos, "a jump must be newer than the log");
        let entry = |(key, Held { event_nid, membership })| {
            let same = self.get(key).filter(|entry| entry.event_nid == event_nid);
            (key, same.unwrap_or(StateEntry { event_nid, pos, membership }))
        };
        let entries: Vec<_> = entries.into_iter().map(entry).collect();
        let mut log = self.without_changes(pos);
        for (key, before, now) in differences(&self.entries, &entries) {
            log.count_in(key, before, now);
        }
        log.entries = entries;
        log
    }

    /// The log's hash, numbers of members and settings, with no entry and no change, from `pos` on.
    fn without_changes(&self, pos: Position) -> Self {
        Self {
            keep_since: self.keep_since,
            hash: self.hash,
            joined: self.joined,
            invited: self.invited,
            ..Self::new(self.secret.clone(), pos)
        }
    }
}

fn find(entries: &[(KeyNid, StateEntry)], key: KeyNid) -> Option<StateEntry> {
    let index = entries.binary_search_by_key(&key, |(key, _)| *key).ok()?;
    Some(entries[index].1)
}

/// Returns whether a key has another event in one state than in the other.
fn differ(before: Option<StateEntry>, now: Option<StateEntry>) -> bool {
    before.map(|entry| entry.event_nid) != now.map(|entry| entry.event_nid)
}

/// The keys whose event differs between two states that are sorted by key, with both of their entries.
fn differences<'a>(
    before: &'a [(KeyNid, StateEntry)],
    after: &'a [(KeyNid, StateEntry)],
) -> impl Iterator<Item = (KeyNid, Option<StateEntry>, Option<StateEntry>)> + 'a {
    let (mut before, mut after) = (before.iter().copied().peekable(), after.iter().copied().peekable());
    let both = std::iter::from_fn(move || {
        let order = match (before.peek(), after.peek()) {
            (Some((left, _)), Some((right, _))) => left.cmp(right),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        let (key, _) = old.or(new)?;
        Some((key, old.map(|(_, entry)| entry), new.map(|(_, entry)| entry)))
    });
    both.filter(|(_, before, now)| differ(*before, *now))
}
