//! The entries of a room's state, wherever the state is kept, and the difference of one state to another.
//!
//! The state log, the sides of branches and state resolution share these. A [`StateEntry`] of the log also has the
//! position of its change; an entry of another state has none.

use std::collections::BTreeMap;

use crate::{
    ids::{EventNid, KeyNid},
    state_log::{Membership, StateEntry},
};

/// The number of keys in a node of a `BTreeMap` that grows at its end: a full node of 11 is split into 6 and 5.
const KEYS_OF_A_NODE: usize = 6;

/// The memory of a node of a [`StateDelta`] in bytes: 11 places, however many are in use, and 16 bytes of its own.
const NODE_BYTES: usize = 11 * size_of::<(KeyNid, Option<Held>)>() + 16;

/// The event that holds a key in a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    pub event_nid: EventNid,
    /// Set for the keys of `m.room.member`, and for no other.
    pub membership: Option<Membership>,
}

impl From<StateEntry> for Held {
    fn from(entry: StateEntry) -> Self {
        Self { event_nid: entry.event_nid, membership: entry.membership }
    }
}

/// The difference of a state to another, its base: keys with the event that holds them, or `None` if the state lacks
/// the key. Every other key is as in the base.
///
/// A key that is as in the base may be in it too, so equal states may have unequal deltas.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct StateDelta(BTreeMap<KeyNid, Option<Held>>);

impl StateDelta {
    /// The difference in `key`: `None` if it is as in the base, `Some(None)` if the state lacks it.
    pub fn get(&self, key: KeyNid) -> Option<Option<Held>> {
        self.0.get(&key).copied()
    }

    /// Sets what the state has for `key`. `None`: the state lacks it.
    pub fn set(&mut self, key: KeyNid, held: Option<Held>) {
        self.0.insert(key, held);
    }

    /// Makes `key` as in the base, and returns its difference until now.
    pub fn remove(&mut self, key: KeyNid) -> Option<Option<Held>> {
        self.0.remove(&key)
    }

    /// The differences, in the order of keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (KeyNid, Option<Held>)> + '_ {
        self.0.iter().map(|(key, held)| (*key, *held))
    }

    /// The keys that differ, in their order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = KeyNid> + '_ {
        self.0.keys().copied()
    }

    /// The number of keys that differ.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no key differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The difference to the base of `self` of a state that differs by `later` from the state of `self`.
    #[must_use]
    pub fn then(&self, later: &StateDelta) -> StateDelta {
        let mut both = self.clone();
        both.0.extend(later.iter());
        both
    }

    /// The approximate memory in bytes. Never 0.
    pub fn bytes(&self) -> u64 {
        (size_of::<Self>() + self.len().div_ceil(KEYS_OF_A_NODE) * NODE_BYTES) as u64
    }
}

impl FromIterator<(KeyNid, Option<Held>)> for StateDelta {
    /// The last one of several differences in one key counts.
    fn from_iter<I: IntoIterator<Item = (KeyNid, Option<Held>)>>(differences: I) -> Self {
        Self(differences.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Position;

    /// A delta of numbers: a key with its event, or with `None` if the state lacks the key.
    fn delta(differences: &[(i64, Option<i64>)]) -> StateDelta {
        let held = |event: i64| Held { event_nid: EventNid(event), membership: None };
        differences.iter().map(|&(key, event)| (KeyNid(key), event.map(held))).collect()
    }

    #[test]
    fn of_two_deltas_the_later_one_counts_for_each_key() {
        let check = |first: &[_], later: &[_], expected: &[_]| {
            assert_eq!(delta(first).then(&delta(later)), delta(expected), "{first:?}, then {later:?}");
        };
        check(&[], &[], &[]);
        check(&[(1, Some(10))], &[], &[(1, Some(10))]);
        check(&[], &[(1, Some(10))], &[(1, Some(10))]);
        // Keys of only one of them, on both sides of each other.
        check(
            &[(2, Some(20)), (4, None)],
            &[(1, None), (3, Some(30))],
            &[(1, None), (2, Some(20)), (3, Some(30)), (4, None)],
        );
        check(&[(1, Some(10))], &[(1, Some(11))], &[(1, Some(11))]);
        // A key that is removed stays in the delta: the base may have it.
        check(&[(1, Some(10))], &[(1, None)], &[(1, None)]);
        check(&[(1, None)], &[(1, Some(11))], &[(1, Some(11))]);
        check(&[(1, None)], &[(1, None)], &[(1, None)]);
        // A key that comes back to its event stays too: a delta does not know its base.
        check(&[(1, Some(10)), (2, Some(20))], &[(1, Some(10))], &[(1, Some(10)), (2, Some(20))]);
    }

    #[test]
    fn a_key_that_the_state_lacks_is_not_a_key_that_is_as_in_the_base() {
        let mut changed = delta(&[(1, None)]);
        assert_eq!((changed.get(KeyNid(1)), changed.get(KeyNid(2))), (Some(None), None));
        assert_eq!((changed.len(), changed.is_empty()), (1, false));
        changed.set(KeyNid(2), None);
        assert!(changed.keys().eq([KeyNid(1), KeyNid(2)]));
        assert_eq!((changed.remove(KeyNid(1)), changed.remove(KeyNid(1))), (Some(None), None));
        assert_eq!(changed, delta(&[(2, None)]));
    }

    #[test]
    fn an_entry_of_the_log_without_its_position_is_what_a_state_says_of_a_key() {
        let entry = StateEntry { event_nid: EventNid(7), pos: Position(9), membership: Some(Membership::Join) };
        assert_eq!(Held::from(entry), Held { event_nid: EventNid(7), membership: Some(Membership::Join) });
    }
}
