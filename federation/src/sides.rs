//! Sides: the states of branches of a room's graph, which the state log does not have.
//!
//! **Not yet**: there is only the form of a side.

use std::sync::Arc;

use crate::{
    held::StateDelta,
    ids::{Position, SideNid},
    state_log::StateHash,
};

/// A state beside the state log: its parent, or without one the log's state at `base_pos`, with the changes of `delta`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Side {
    pub nid: SideNid,
    /// The position of the log from which the branch starts. All sides of a branch have the same.
    pub base_pos: Position,
    /// The earlier side of the branch that `delta` is a difference to. `None`: the log's state at `base_pos` is.
    pub parent: Option<Arc<Side>>,
    /// The number of this side in its branch. The parent of number n is number n & (n - 1), so that a side has few
    /// ancestors however long its branch is.
    pub ordinal: u32,
    /// The hash of the whole state.
    pub hash: StateHash,
    pub delta: StateDelta,
}
