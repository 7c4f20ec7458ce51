//! The standing of an event in its room: whether it was accepted, its place, and the state before it.

use std::ops::{BitOr, BitOrAssign};

use crate::ids::{Position, SideNid, TimelinePlace};

/// The results of the checks of an event, and its origin, as they are stored. No flag at all: another server's event
/// that passed all checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(i64);

impl Flags {
    pub const NONE: Self = Self(0);
    /// The event was stored for the auth events of others. Its own state before is not known.
    pub const OUTLIER: Self = Self(1);
    /// The event breaks the auth rules by its auth events or by the state before it.
    pub const REJECTED: Self = Self(1 << 1);
    /// The event breaks the auth rules by the state that the room had when it came.
    pub const SOFT_FAILED: Self = Self(1 << 2);
    /// This server built the event.
    pub const OURS: Self = Self(1 << 3);
    /// Another server's event that this server passes on, because it took a join, a leave or a knock.
    pub const RELAY: Self = Self(1 << 4);
    /// The state before the event was told by another server and not computed here.
    pub const CLAIMED: Self = Self(1 << 5);
    /// The event was the only forward extremity after its commit. So the state after it is the room's state at its
    /// position.
    pub const TIP: Self = Self(1 << 6);

    /// The flags of a stored number. Unknown bits are kept.
    pub const fn from_bits(bits: i64) -> Self {
        Self(bits)
    }

    pub const fn bits(self) -> i64 {
        self.0
    }

    /// The flags of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether all of these flags are set.
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Returns whether the event passed all checks, so that its state counts and others may follow on it.
    pub const fn is_accepted(self) -> bool {
        self.0 & (Self::OUTLIER.0 | Self::REJECTED.0 | Self::SOFT_FAILED.0) == 0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// A state of a room: that of its state log at a position, or a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateAt {
    /// The position of the state log. It may be later than the event that follows on the state.
    pub pos: Position,
    /// Set if the state is that of a branch. `pos` then only says from where it was reached.
    pub side: Option<SideNid>,
}

impl StateAt {
    /// The state of a room without any event.
    pub const EMPTY: Self = Self::in_log(Position::BEFORE_ALL);

    pub const fn in_log(pos: Position) -> Self {
        Self { pos, side: None }
    }
}

/// The standing of an event in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub flags: Flags,
    /// The place in the timeline. `None`: the event has none, because it was not accepted.
    pub place: Option<TimelinePlace>,
    /// The state before the event; empty for an outlier, whose state is not known.
    pub before: StateAt,
}

impl Standing {
    /// The standing of an event that is only known by itself.
    pub const OUTLIER: Self = Self { flags: Flags::OUTLIER, place: None, before: StateAt::EMPTY };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_unless_a_check_failed_or_was_not_made() {
        let accepted = [Flags::NONE, Flags::OURS | Flags::TIP, Flags::RELAY | Flags::CLAIMED];
        let not_accepted = [Flags::OUTLIER, Flags::REJECTED, Flags::SOFT_FAILED | Flags::RELAY];
        assert!(accepted.iter().all(|flags| flags.is_accepted()));
        assert!(!not_accepted.iter().any(|flags| flags.is_accepted()));
    }

    #[test]
    fn flags_have_bits_of_their_own_and_survive_storage() {
        let all = [
            Flags::OUTLIER,
            Flags::REJECTED,
            Flags::SOFT_FAILED,
            Flags::OURS,
            Flags::RELAY,
            Flags::CLAIMED,
            Flags::TIP,
        ];
        let mut sum = Flags::NONE;
        for flag in all {
            assert!(!sum.contains(flag), "{flag:?} is new");
            sum |= flag;
        }
        assert!(all.iter().all(|flag| Flags::from_bits(sum.bits()).contains(*flag)));
    }
}
