//! Earlier states, read from memory by undoing the changes since.
//!
//! Every answer is for the state *after* everything that happened at the given position. Positions before
//! [`StateLog::tail_from`] get no answer here; they are read from storage.

use std::collections::BTreeMap;

use super::{Change, StateEntry, StateLog, overlay};
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
        let older = self.tail.partition_point(|change| change.pos <= pos);
        (self.tail.len() - older).min(self.entries.len())
    }

    /// The changes newer than `pos` that are in memory, oldest first.
    pub fn changes_after(&self, pos: Position) -> impl DoubleEndedIterator<Item = &Change> {
        let first = self.tail.partition_point(|change| change.pos <= pos);
        self.tail.range(first..)
    }
}
