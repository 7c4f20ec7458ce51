//! One side: a state as changes to its parent.

use std::sync::Arc;

use crate::{
    held::{Held, StateDelta},
    ids::{KeyNid, Position, SideNid},
    standing::StateAt,
    state_log::{StateHash, StateHashKey},
};

/// A state beside the state log: its parent, or without one the log's state at `base_pos`, with the changes of `delta`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Side {
    pub nid: SideNid,
    /// The position of the log from which the branch starts. All sides of a branch have the same.
    pub base_pos: Position,
    /// The earlier side of the branch that `delta` is a difference to. `None`: the log's state at `base_pos` is.
    pub parent: Option<Arc<Side>>,
    /// The number of this side in its branch, from 0. Its parent has the number [`parent_ordinal`], so that a side has
    /// few ancestors however long its branch is.
    pub ordinal: u32,
    /// The hash of the whole state.
    pub hash: StateHash,
    pub delta: StateDelta,
}

/// The number of the parent of side `ordinal` of a branch: `ordinal` without its lowest bit. `None`: the first side has
/// no parent.
///
/// The parents of n are those of n - 1 with some left out, so the parent is always among the ancestors of the side before.
pub fn parent_ordinal(ordinal: u32) -> Option<u32> {
    Some(ordinal & ordinal.checked_sub(1)?)
}

impl Side {
    /// The event that holds `key`: `None` if it is the one of the log at `base_pos`, `Some(None)` if the state lacks the
    /// key. Takes a step for each ancestor.
    pub fn get(&self, key: KeyNid) -> Option<Option<Held>> {
        self.and_ancestors().find_map(|side| side.delta.get(key))
    }

    /// The difference of the whole state to the log's state at `base_pos`. Keys that came back to their event there may
    /// be in it.
    pub fn against_base(&self) -> StateDelta {
        let mut delta = self.delta.clone();
        for ancestor in self.and_ancestors().skip(1) {
            put_under(&mut delta, &ancestor.delta);
        }
        delta
    }

    /// The first side of a branch that starts from the log. `was` is what that state has for each key of `delta`.
    pub fn on_log(
        nid: SideNid,
        (base_pos, base_hash): (Position, StateHash),
        delta: StateDelta,
        was: &StateDelta,
        secret: &StateHashKey,
    ) -> Self {
        let hash = hash_after(base_hash, &delta, was, secret);
        Self::first(nid, base_pos, delta, hash)
    }

    /// The next side of this side's branch. `was` is what this side's state has for each key of `change`.
    pub fn next(self: &Arc<Self>, nid: SideNid, change: StateDelta, was: &StateDelta, secret: &StateHashKey) -> Self {
        let hash = hash_after(self.hash, &change, was, secret);
        self.followed_by(nid, change, hash)
    }

    /// The name of this state.
    pub fn at(&self) -> StateAt {
        StateAt { pos: self.base_pos, side: Some(self.nid) }
    }

    /// The first side of a branch, with a hash that is known.
    pub(super) fn first(nid: SideNid, base_pos: Position, delta: StateDelta, hash: StateHash) -> Self {
        Self { nid, base_pos, parent: None, ordinal: 0, hash, delta }
    }

    /// The next side of this side's branch, with a hash that is known.
    pub(super) fn followed_by(self: &Arc<Self>, nid: SideNid, change: StateDelta, hash: StateHash) -> Self {
        // A branch that is out of numbers goes on with its last one: its sides are longer, but no less right.
        let ordinal = self.ordinal.saturating_add(1);
        let wanted = parent_ordinal(ordinal);
        let mut delta = change;
        let mut parent = Some(self);
        // The changes of the ancestors that are left out become changes of this side.
        while let Some(side) = parent.filter(|side| Some(side.ordinal) > wanted) {
            put_under(&mut delta, &side.delta);
            parent = side.parent.as_ref();
        }
        Self { nid, base_pos: self.base_pos, parent: parent.cloned(), ordinal, hash, delta }
    }

    fn and_ancestors(&self) -> impl Iterator<Item = &Side> {
        std::iter::successors(Some(self), |side| side.parent.as_deref())
    }
}

/// The hash of a state with `change`, from its `hash` before, when it had `was` for each key of the change.
pub(super) fn hash_after(hash: StateHash, change: &StateDelta, was: &StateDelta, secret: &StateHashKey) -> StateHash {
    let event = |held: Option<Held>| held.map(|held| held.event_nid);
    change.iter().fold(hash, |hash, (key, to)| {
        let from = was.get(key);
        debug_assert!(from.is_some(), "the value of each key before the change must be known");
        hash.with(secret, key, event(from.flatten()), event(to))
    })
}

/// Adds the differences of an earlier state in keys in which `delta` has none.
fn put_under(delta: &mut StateDelta, earlier: &StateDelta) {
    for (key, held) in earlier.iter() {
        if delta.get(key).is_none() {
            delta.set(key, held);
        }
    }
}
