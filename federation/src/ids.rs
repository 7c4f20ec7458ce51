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
    /// Short id of a state that is on a branch of a room's graph, and not in the room's state log.
    SideNid
}
nid! {
    /// Short id of a server.
    ServerNid
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

impl ServerNid {
    /// This server. It has no row among the servers.
    pub const OURS: Self = Self(0);
}

impl Position {
    /// The position before everything. Nothing has it: the first change has position 1.
    pub const BEFORE_ALL: Self = Self(0);

    /// Returns whether nothing can have happened up to here.
    pub fn is_before_all(self) -> bool {
        self <= Self::BEFORE_ALL
    }
}

/// A place in the timeline of a room, in the order in which clients read it.
///
/// The *line* are the events in the order of their arrival: each has the position of its commit, and sub 0. Events of
/// history that were fetched into a gap come right before the event of the line that ends the gap. They have its
/// position and a negative sub: -1 is the nearest. The sub has gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelinePlace {
    pub pos: Position,
    pub sub: i64,
}

impl TimelinePlace {
    /// The place before every event of every timeline.
    pub const BEFORE_ALL: Self = Self::on_line(Position::BEFORE_ALL);

    /// The place of the event of the line at `pos`.
    pub const fn on_line(pos: Position) -> Self {
        Self { pos, sub: 0 }
    }

    /// Returns whether an event of the line has this place, and not one of history.
    pub fn is_on_line(self) -> bool {
        self.sub == 0
    }

    /// The place right before this one: the nearest one that an event of history could have.
    #[must_use]
    pub fn just_before(self) -> Self {
        Self { sub: self.sub.saturating_sub(1), ..self }
    }

    /// The last position of the line that is not after this place.
    pub fn line_upto(self) -> Position {
        if self.sub < 0 { Position(self.pos.0 - 1) } else { self.pos }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_read_between_the_events_of_the_line_around_its_gap() {
        let place = |pos, sub| TimelinePlace { pos: Position(pos), sub };
        let in_order =
            [TimelinePlace::BEFORE_ALL, place(6, 0), place(7, -4_096), place(7, -1), place(7, 0), place(8, 0)];
        assert!(in_order.is_sorted());
        for (at, before, line_upto) in
            [(place(7, 0), place(7, -1), 7), (place(7, -1), place(7, -2), 6), (place(8, 0), place(8, -1), 8)]
        {
            assert_eq!((at.just_before(), at.line_upto()), (before, Position(line_upto)), "{at:?}");
            assert!(before < at && before > TimelinePlace::on_line(Position(at.pos.0 - 1)));
        }
    }
}
