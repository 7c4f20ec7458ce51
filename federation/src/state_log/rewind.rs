//! Earlier states, read from memory by undoing the changes since.
//!
//! Every answer is for the state *after* everything that happened at the given position. Positions before
//! [`StateLog::tail_from`] get no answer here; they are read from storage.

use std::collections::BTreeMap;

use super::{Change, StateEntry, StateHash, StateLog, overlay};
use crate::ids::{KeyNid, Position};

/// The entry of a key at an earlier position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    Present(StateEntry),
    /// The state had no such key.
    Absent,
    /// Memory does not reach back that far; the database knows.
    NotInMemory,
}

impl From<Option<StateEntry>> for Lookup {
    fn from(entry: Option<StateEntry>) -> Self {
        entry.map_or(Self::Absent, Self::Present)
    }
}

impl StateLog {
    /// The entry of `key` as of `pos`.
    pub fn get_at(&self, key: KeyNid, pos: Position) -> Lookup {
        if pos < self.tail_from {
            // An entry that is older has been there ever since.
            let unchanged = self.get(key).filter(|entry| entry.pos <= pos);
            return unchanged.map_or(Lookup::NotInMemory, Lookup::Present);
        }
        let next_change = self.changes_after(pos).find(|change| change.key == key);
        Lookup::from(next_change.map_or_else(|| self.get(key), |change| change.before))
    }

    /// The whole state as of `pos`, sorted by key. `None`: not in memory.
    pub fn state_at(&self, pos: Position) -> Option<Vec<(KeyNid, StateEntry)>> {
        if pos < self.tail_from {
            return None;
        }
        let mut then = BTreeMap::new();
        for change in self.changes_after(pos) {
            then.entry(change.key).or_insert(change.before);
        }
        Some(overlay(&self.entries, &then))
    }

    /// The keys whose event at `upto` differs from the one at `after`, each with its entry at `upto`; sorted by key.
    /// `None`: not in memory.
    ///
    /// A key that changed and came back to the same event is not listed: a reader who knows the state at `after`
    /// already has that event. Only the entry's `pos` may be newer than the one they know.
    pub fn changes_between(&self, after: Position, upto: Position) -> Option<Vec<(KeyNid, Option<StateEntry>)>> {
        if after < self.tail_from {
            return None;
        }
        let mut net = BTreeMap::new();
        for change in self.changes_after(after).take_while(|change| change.pos <= upto) {
            net.entry(change.key).or_insert((change.before, change.now)).1 = change.now;
        }
        let event = |entry: Option<StateEntry>| entry.map(|entry| entry.event_nid);
        Some(
            net.into_iter()
                .filter(|(_, (before, now))| event(*before) != event(*now))
                .map(|(key, (_, now))| (key, now))
                .collect(),
        )
    }

    /// An upper bound for the number of keys that have another event now than at `pos`. Looks at no entry, and needs no
    /// database.
    pub fn changed_at_most(&self, pos: Position) -> usize {
        if pos < self.tail_from {
            return self.entries.len();
        }
        (self.tail.len() - self.older(pos)).min(self.entries.len())
    }

    /// The hash of the state as of `pos`. `None`: not in memory.
    pub fn hash_at(&self, pos: Position) -> Option<StateHash> {
        let next = self.tail.get(self.older(pos));
        (self.tail_from <= pos).then(|| next.map_or(self.hash, |next| next.hash_before))
    }

    /// The latest position at which the state has this hash. Looks only at positions that are in memory.
    ///
    /// The state at [`StateLog::latest`] counts too, so the changes of that position must be complete.
    pub fn position_of(&self, hash: StateHash) -> Option<Position> {
        if hash == self.hash {
            return Some(self.latest());
        }
        // Newest first: the state before a change is that of the position of the change before it. Between two changes of
        // one position the state is that of no position.
        let newest_first = || self.tail.iter().rev();
        let before = newest_first().skip(1).map(|earlier| earlier.change.pos).chain(std::iter::once(self.tail_from));
        let mut states = newest_first().zip(before);
        states.find(|(next, pos)| next.hash_before == hash && *pos < next.change.pos).map(|(_, pos)| pos)
    }

    /// The changes newer than `pos` that are in memory, oldest first.
    pub fn changes_after(&self, pos: Position) -> impl DoubleEndedIterator<Item = &Change> {
        self.tail.range(self.older(pos)..).map(|newer| &newer.change)
    }

    /// The number of changes in memory that are not newer than `pos`.
    fn older(&self, pos: Position) -> usize {
        self.tail.partition_point(|older| older.change.pos <= pos)
    }
}
