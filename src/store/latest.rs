//! The latest change of each of many things, in bounded memory.

use std::{collections::HashMap, hash::Hash};

use super::Position;

/// The number of things that are remembered, a few words each.
const MAX: usize = 50_000;

/// The position of the latest change of each thing, as this process has committed it.
#[derive(Debug)]
pub(crate) struct Latest<K> {
    /// Changes up to here may be missing in `by_key`.
    complete_from: Position,
    by_key: HashMap<K, Position>,
    max: usize,
}

impl<K: Eq + Hash> Latest<K> {
    /// Creates an empty record that knows of every change after `started_at`.
    pub(crate) fn new(started_at: Position) -> Self {
        Self { complete_from: started_at, by_key: HashMap::new(), max: MAX }
    }

    /// Forgets everything, and goes on with the changes after `upto`.
    pub(crate) fn restart(&mut self, upto: Position) {
        self.by_key.clear();
        self.complete_from = upto.max(self.complete_from);
    }

    /// Notes a change at `position`. When there is no room left, the older half is forgotten.
    pub(crate) fn changed(&mut self, key: K, position: Position) {
        let known = self.by_key.entry(key).or_insert(position);
        *known = (*known).max(position);
        if self.by_key.len() > self.max {
            let mut positions: Vec<Position> = self.by_key.values().copied().collect();
            let middle = positions.len() / 2;
            let (_, median, _) = positions.select_nth_unstable(middle);
            self.complete_from = self.complete_from.max(*median);
            let complete_from = self.complete_from;
            self.by_key.retain(|_, position| *position > complete_from);
        }
    }

    /// Returns whether the thing certainly has not changed after `since`. `false` may only mean that memory does not
    /// reach back that far.
    pub(crate) fn is_unchanged(&self, key: &K, since: Position) -> bool {
        since >= self.complete_from && self.by_key.get(key).is_none_or(|latest| *latest <= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_never_called_unchanged_however_little_is_remembered() {
        let mut latest = Latest { max: 4, ..Latest::new(Position(10)) };
        let mut last: HashMap<i64, Position> = HashMap::new();
        for step in 0..100 {
            let (key, position) = ((step * 7) % 13, Position(11 + step));
            latest.changed(key, position);
            last.insert(key, position);
            assert!(latest.by_key.len() <= 4);
            for (key, at) in &last {
                assert!(!latest.is_unchanged(key, Position(at.0 - 1)), "{key} changed at {at:?}");
                assert!(latest.is_unchanged(key, position), "nothing is newer than {position:?}");
            }
        }
        assert!(!latest.is_unchanged(&99, Position(9)), "memory does not reach back that far");
    }
}
