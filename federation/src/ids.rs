//! Short ids, and positions in the server's one order of everything that happened.
//!
//! They are numbers of one database and mean nothing to another server. They are here because the state of a room is
//! kept by them.

macro_rules! nid {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);
    };
}

nid! {
    /// A place in the server's one order of everything that happened. Larger is later; gaps are normal.
    Position
}
nid! {
    /// Short id of a stored event.
    EventNid
}
nid! {
    /// Short id of a room. Room 0 stands for "no room" in account data.
    RoomNid
}
nid! {
    /// Short id of a user, local or remote.
    UserNid
}
nid! {
    /// Short id of a local user's device; never reused.
    DeviceNid
}
nid! {
    /// Short id of a pair of event type and state key.
    KeyNid
}
nid! {
    /// Short id of an event type.
    TypeNid
}
nid! {
    /// Short id of a stored filter.
    FilterNid
}

impl Position {
    /// The position before everything.
    pub const ZERO: Self = Self(0);
}
