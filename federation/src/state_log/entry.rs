//! The parts of the state log: entries, and changes from one entry to another.

use crate::ids::{EventNid, KeyNid, Position};

/// The membership in an `m.room.member` event, in one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Membership {
    Join = 1,
    Invite = 2,
    Leave = 3,
    Ban = 4,
    Knock = 5,
}

impl Membership {
    /// The membership with this name in an event, if the specification knows it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "join" => Some(Self::Join),
            "invite" => Some(Self::Invite),
            "leave" => Some(Self::Leave),
            "ban" => Some(Self::Ban),
            "knock" => Some(Self::Knock),
            _ => None,
        }
    }

    /// The number this membership is stored as. Never 0, which stands for "not a membership".
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The membership stored as `code`, if it is one.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Join, Self::Invite, Self::Leave, Self::Ban, Self::Knock]
            .into_iter()
            .find(|membership| membership.code() == code)
    }
}

/// The event that holds a key of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateEntry {
    pub event_nid: EventNid,
    /// The position where this event became the key's current one. It is later than the event's own position when state
    /// resolution brought back an older event.
    pub pos: Position,
    /// Set for the keys of `m.room.member`, and for no other.
    pub membership: Option<Membership>,
}

/// A change of `key` at `pos`, from `before` to `now`; `None` means that the state has no such key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: KeyNid,
    pub pos: Position,
    /// The new entry; its `pos` is the one of this change.
    pub now: Option<StateEntry>,
    pub before: Option<StateEntry>,
}

/// A change as it is stored: the earlier entry is named by its event alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRow {
    pub key: KeyNid,
    pub pos: Position,
    pub event_nid: Option<EventNid>,
    /// The membership in `event_nid`; meaningless when that is `None`.
    pub membership: Option<Membership>,
    pub prev_event_nid: Option<EventNid>,
}
