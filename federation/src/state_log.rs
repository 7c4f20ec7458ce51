//! The state log: a room's current state and its changes.
//!
//! State is kept as a reversible log: at a position, one key went from one event to another. The
//! state at any position is then the current state with the newer changes undone, so a snapshot costs
//! no more than its position. This module is the in-memory form: plain data, no I/O.
//!
//! Promises:
//! - Rewinding, replaying and starting from a checkpoint give the same state at every position.
//! - State that memory no longer knows is reported as unknown ([`Lookup::NotInMemory`], `None`), never shown as empty;
//!   stored rows that do not fit together are a [`LoadError`].
//!
//! Entries and changes are in `entry`, reading a log back from storage in `load`, questions about earlier positions in
//! `rewind`, a whole state that replaces another in `jump`, the stored form of a whole state in [`checkpoint`] and what
//! it shares with that of a side in `blob`, and the fingerprint by which two states are compared in `hash`.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{EventNid, KeyNid, Position};

pub(crate) mod blob;
pub mod checkpoint;
mod entry;
mod hash;
mod jump;
mod load;
mod rewind;

#[cfg(test)]
mod tests;

pub use self::{
    blob::CodecError,
    entry::{Change, LogRow, Membership, StateEntry},
    hash::{StateHash, StateHashKey},
    jump::{Jump, merge},
    load::{Checkpoint, LoadError},
    rewind::Lookup,
};

/// The number of recent changes that a room keeps in memory (80 bytes each), so that syncs and reads a little behind
/// the newest position need no database. [`StateLog::keep_since`] can hold more.
pub const TAIL_CHANGES: usize = 512;

/// A room's current state and its recent changes.
///
/// The entries are a sorted array rather than a hash map: 32 bytes each and nothing else (1.6 MB for
/// 50,000), always in the same order, cloned and stored as they are. The price is that a *new* key
/// moves the entries behind it, which is 0.8 MB for an average key among 50,000.
#[derive(Clone, Debug)]
pub struct StateLog {
    entries: Vec<(KeyNid, StateEntry)>,
    /// The recent changes, oldest first.
    tail: VecDeque<TailChange>,
    tail_from: Position,
    keep_since: Option<Position>,
    hash: StateHash,
    secret: StateHashKey,
    joined: usize,
    invited: usize,
}

/// A change in the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TailChange {
    change: Change,
    /// The hash of the state before the change. The state after it has the hash of the next one, or of the log.
    hash_before: StateHash,
}

impl StateLog {
    /// The log of a room whose state is empty at `from`, and known from there on.
    pub fn new(secret: StateHashKey, from: Position) -> Self {
        Self {
            entries: Vec::new(),
            tail: VecDeque::new(),
            tail_from: from,
            keep_since: None,
            hash: StateHash::EMPTY,
            secret,
            joined: 0,
            invited: 0,
        }
    }

    /// The change that makes `event_nid` the current event of `key` at `pos`, or with `None` removes the key from the
    /// state. It is not applied.
    pub fn change(
        &self,
        key: KeyNid,
        pos: Position,
        event_nid: Option<EventNid>,
        membership: Option<Membership>,
    ) -> Change {
        let now = event_nid.map(|event_nid| StateEntry { event_nid, pos, membership });
        Change { key, pos, now, before: self.get(key) }
    }

    /// Applies `change`, which must be newer than everything in the log (several keys may change at one position), and
    /// must start from the current entry.
    pub fn apply(&mut self, change: Change) {
        let Change { key, pos, now, before: expected } = change;
        let found = self.entries.binary_search_by_key(&key, |(key, _)| *key);
        let before = found.ok().map(|index| self.entries[index].1);
        debug_assert_eq!(expected, before, "a change must start from the current entry");
        debug_assert!(self.may_follow(pos, before), "a change must be newer than the log");
        debug_assert!(now.is_none_or(|entry| entry.pos == pos), "an entry has its change's position");

        match (found, now) {
            (Ok(index), Some(entry)) => self.entries[index].1 = entry,
            (Ok(index), None) => drop(self.entries.remove(index)),
            (Err(index), Some(entry)) => {
                // Doubling would leave up to a megabyte unused in a large room.
                if self.entries.len() == self.entries.capacity() {
                    self.entries.reserve_exact((self.entries.len() / 8).max(8));
                }
                self.entries.insert(index, (key, entry));
            }
            (Err(_), None) => {}
        }
        // Hash, counts and tail follow the entry that was really there, so that they always agree with
        // the entries.
        self.record(Change { key, pos, now, before });
    }

    /// Keeps every change that is newer than `pos`, however many there are. The state at `pos` and later stays
    /// readable, if it is readable now.
    ///
    /// Meant for the writer, whose log is ahead of the committed events: readers ask for the committed position. The
    /// caller keeps the tail bounded by moving `pos` on.
    pub fn keep_since(&mut self, pos: Position) {
        self.keep_since = Some(pos);
        self.trim_tail();
    }

    /// The current entry of `key`.
    pub fn get(&self, key: KeyNid) -> Option<StateEntry> {
        let index = self.entries.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(self.entries[index].1)
    }

    /// The current state, sorted by key: what [`checkpoint::encode`] takes.
    pub fn entries(&self) -> &[(KeyNid, StateEntry)] {
        &self.entries
    }

    /// The current state, in the order of keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (KeyNid, StateEntry)> + '_ {
        self.entries.iter().copied()
    }

    /// The keys of the users with this membership, in the order of keys. Looks at every entry.
    pub fn members(&self, membership: Membership) -> impl Iterator<Item = (KeyNid, StateEntry)> + '_ {
        self.iter().filter(move |(_, entry)| entry.membership == Some(membership))
    }

    /// The number of keys in the current state.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the current state has no key at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of joined users.
    pub fn joined(&self) -> usize {
        self.joined
    }

    /// The number of invited users.
    pub fn invited(&self) -> usize {
        self.invited
    }

    /// The hash of the current state. Equal states have equal hashes, whatever changes led to them.
    pub fn hash(&self) -> StateHash {
        self.hash
    }

    /// The earliest position at which this log knows the state.
    pub fn tail_from(&self) -> Position {
        self.tail_from
    }

    /// The position of the newest change, or the start of the log if there is none.
    pub fn latest(&self) -> Position {
        self.tail.back().map_or(self.tail_from, |last| last.change.pos)
    }

    /// Returns whether a change at `pos`, of a key whose entry is `before`, is newer than the log.
    fn may_follow(&self, pos: Position, before: Option<StateEntry>) -> bool {
        let newer_than_log = match self.tail.back() {
            Some(last) => last.change.pos <= pos,
            // Nothing may be added at `tail_from` itself: the state there is already known.
            None => self.tail_from < pos,
        };
        newer_than_log && before.is_none_or(|entry| entry.pos < pos)
    }

    /// Records a change everywhere except in the entries.
    fn record(&mut self, change: Change) {
        let hash_before = self.hash;
        self.count_in(change.key, change.before, change.now);
        self.tail.push_back(TailChange { change, hash_before });
        self.trim_tail();
    }

    /// Changes the hash and the numbers of members as the entry of a key changes.
    fn count_in(&mut self, key: KeyNid, before: Option<StateEntry>, now: Option<StateEntry>) {
        let event = |entry: Option<StateEntry>| entry.map(|entry| entry.event_nid);
        self.hash = self.hash.with(&self.secret, key, event(before), event(now));
        self.count(before, now);
    }

    fn count(&mut self, before: Option<StateEntry>, now: Option<StateEntry>) {
        for (membership, counter) in [(Membership::Join, &mut self.joined), (Membership::Invite, &mut self.invited)] {
            let is = |entry: Option<StateEntry>| {
                usize::from(entry.is_some_and(|entry| entry.membership == Some(membership)))
            };
            *counter = *counter + is(now) - is(before);
        }
    }

    fn trim_tail(&mut self) {
        while self.tail.len() > TAIL_CHANGES {
            match self.tail.front() {
                Some(TailChange { change: oldest, .. }) if self.keep_since.is_none_or(|since| oldest.pos <= since) => {
                    // The state at this position is still known: nothing newer was dropped.
                    self.tail_from = oldest.pos;
                    self.tail.pop_front();
                }
                _ => break,
            }
        }
    }
}

/// Returns `entries` with some keys set or, where `None`, removed. Sorted, as `entries` are.
fn overlay(
    entries: &[(KeyNid, StateEntry)],
    changed: &BTreeMap<KeyNid, Option<StateEntry>>,
) -> Vec<(KeyNid, StateEntry)> {
    let mut merged = Vec::with_capacity(entries.len() + changed.len());
    let mut rest = entries;
    for (key, entry) in changed {
        let (smaller, others) = rest.split_at(rest.partition_point(|(other, _)| other < key));
        merged.extend_from_slice(smaller);
        rest = match others {
            [(same, _), larger @ ..] if same == key => larger,
            _ => others,
        };
        merged.extend(entry.map(|entry| (*key, entry)));
    }
    merged.extend_from_slice(rest);
    merged
}
