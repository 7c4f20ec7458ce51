//! The small integers that stand for Matrix identifiers inside the server, and positions in the stream.

/// The number of a `(type, state_key)` pair. The same pair has the same number in every room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyNid(pub i64);

/// The number of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNid(pub i64);

/// A position in the stream of everything that was committed: larger is later, and gaps are normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub i64);
