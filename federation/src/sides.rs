//! Sides: the states of branches of a room's graph, which the state log does not have.
//!
//! The state log is the state of one line of history. A state beside it is kept as a difference: to the log at a
//! position, or to an earlier side of its branch. Sides never change; a state that is computed anew is a new side.
//!
//! The events that follow on each other off the log are a branch. Its sides are numbered, and the parent of the n-th is
//! number n & (n − 1), so a look-up takes at most log₂ n steps, and n changes take O(n log n) entries in all. The reasons
//! and the numbers are in `docs/decisions/0020-sides.md`.
//!
//! - `side`: a side and its parents, all in memory.
//! - `encode`: the stored form of a side's changes.
//! - `diff`: a value, the hash or the whole difference of any state, whether it is in the log or a side.
//! - `branch`: the state after an event, and the side for a state that was resolved or told.
//!
//! Promises:
//! - A side's state does not depend on the numbers in its branch: they only make the way to it short.
//! - No side is made for a state that the log is known to have, or for one that has a side already.

mod branch;
mod diff;
mod encode;
mod side;

#[cfg(test)]
mod tests;

pub use self::{
    branch::{NewState, after, store_as},
    diff::{against, hash, value},
    encode::{decode, encode},
    side::{Side, parent_ordinal},
};
