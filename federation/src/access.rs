//! The parts of an event that another server may see.
//!
//! Promise: an event leaves this server whole only if the room was open to the other server at that event. Otherwise the
//! other server gets the redacted copy, with which it can still check hashes, signatures and the auth rules, or nothing.
//!
//! [`may_see`] decides about one event. The caller has checked before that the other server is in the room, and that the
//! event belongs to that room. [`crate::acl`] has the servers that a room shuts out. The rules of visibility are those of
//! clients ([spec]): servers must not tell each other more than their users may read.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{standing::Flags, state_log::Membership};

/// The `history_visibility` of a room: the users who may read events from before they joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryVisibility {
    WorldReadable,
    Shared,
    Invited,
    Joined,
}

impl HistoryVisibility {
    /// Reads the content of an `m.room.history_visibility` event. An unknown value counts as `shared`, which is also the
    /// visibility of a room without such an event.
    pub fn of(content: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Content {
            history_visibility: String,
        }
        let content = serde_json::from_str::<Content>(content.get());
        match content.as_ref().map(|content| content.history_visibility.as_str()) {
            Ok("world_readable") => Self::WorldReadable,
            Ok("invited") => Self::Invited,
            Ok("joined") => Self::Joined,
            _ => Self::Shared,
        }
    }
}

/// The relation of a server's users to a room: the closest one that any of them has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ServerMembership {
    /// No user of the server is in the room or invited.
    Outside,
    Invited,
    Joined,
}

impl ServerMembership {
    /// The closest relation among the memberships of a server's users.
    pub fn of(memberships: impl IntoIterator<Item = Membership>) -> Self {
        let relation = |membership| match membership {
            Membership::Join => Self::Joined,
            Membership::Invite => Self::Invited,
            Membership::Leave | Membership::Ban | Membership::Knock => Self::Outside,
        };
        memberships.into_iter().map(relation).max().unwrap_or(Self::Outside)
    }
}

/// The part of a state that decides what a server may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerMoment {
    pub visibility: HistoryVisibility,
    pub membership: ServerMembership,
}

/// The facts about an event that decide who may see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventFacts {
    pub flags: Flags,
    pub is_state: bool,
    /// The sender has asked to be erased: their words are given to nobody who does not have them yet.
    pub sender_is_erased: bool,
}

/// The part of an event that a server may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sees {
    Whole,
    /// The copy after redaction. The event's ID, its signatures and its meaning for the auth rules are in it.
    Redacted,
    /// Nothing. The answer must be the one about an event that does not exist.
    Not,
}

/// Returns what a server of the room may see of an event. `moments` are the states right before and right after the
/// event, on its own branch. The more open of their values count, as for clients: a join is seen by the server that it
/// brings in, and a change of visibility by those whom it lets in or shuts out.
///
/// The moments of an outlier are not known, so they are ignored. As state it belongs to some auth chain, which all servers
/// of the room must have. An outlier that is no state is not given out.
pub fn may_see(event: EventFacts, moments: [ServerMoment; 2]) -> Sees {
    if event.flags.contains(Flags::REJECTED) {
        return Sees::Not;
    }
    let is_open = if event.flags.contains(Flags::OUTLIER) {
        if !event.is_state {
            return Sees::Not;
        }
        true
    } else {
        moments.iter().any(|at| moments.iter().any(|with| opens(at.visibility, with.membership)))
    };
    if is_open && !event.sender_is_erased { Sees::Whole } else { Sees::Redacted }
}

/// Returns whether a server of the room may ask for the state before an event. A rejected event is as good as unknown,
/// and an outlier has no state before it.
pub fn has_state_before(flags: Flags) -> bool {
    !flags.contains(Flags::REJECTED) && !flags.contains(Flags::OUTLIER)
}

fn opens(visibility: HistoryVisibility, membership: ServerMembership) -> bool {
    match visibility {
        HistoryVisibility::WorldReadable | HistoryVisibility::Shared => true,
        HistoryVisibility::Invited => membership >= ServerMembership::Invited,
        HistoryVisibility::Joined => membership == ServerMembership::Joined,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;
    use HistoryVisibility as Visibility;
    use ServerMembership as Member;

    const ALL_VISIBILITIES: [Visibility; 4] =
        [Visibility::WorldReadable, Visibility::Shared, Visibility::Invited, Visibility::Joined];
    const ALL_MEMBERSHIPS: [Member; 3] = [Member::Outside, Member::Invited, Member::Joined];

    fn moment(visibility: Visibility, membership: Member) -> ServerMoment {
        ServerMoment { visibility, membership }
    }

    fn message(flags: Flags) -> EventFacts {
        EventFacts { flags, is_state: false, sender_is_erased: false }
    }

    fn state(flags: Flags) -> EventFacts {
        EventFacts { is_state: true, ..message(flags) }
    }

    /// Every kind of event whose own state decides: on the line, in history, soft-failed, and with all marks.
    fn kinds() -> impl Iterator<Item = EventFacts> {
        let flags = [
            Flags::NONE,
            Flags::OURS | Flags::TIP,
            Flags::RELAY,
            Flags::CLAIMED,
            Flags::SOFT_FAILED,
            Flags::SOFT_FAILED | Flags::CLAIMED,
        ];
        flags.into_iter().flat_map(|flags| [message(flags), state(flags)])
    }

    #[test]
    fn an_event_is_whole_if_the_room_was_open_to_the_server_at_it() {
        use Sees::{Redacted, Whole};
        // The rows are visibilities, the columns memberships: outside, invited, joined.
        let table = [
            (Visibility::WorldReadable, [Whole, Whole, Whole]),
            (Visibility::Shared, [Whole, Whole, Whole]),
            (Visibility::Invited, [Redacted, Whole, Whole]),
            (Visibility::Joined, [Redacted, Redacted, Whole]),
        ];
        for event in kinds() {
            for (visibility, row) in table {
                for (membership, expected) in ALL_MEMBERSHIPS.into_iter().zip(row) {
                    let at = moment(visibility, membership);
                    assert_eq!(may_see(event, [at, at]), expected, "{event:?} {at:?}");
                    // An erased sender is not read by anyone.
                    let erased = EventFacts { sender_is_erased: true, ..event };
                    assert_eq!(may_see(erased, [at, at]), Redacted, "{erased:?} {at:?}");
                }
            }
        }
    }

    #[test]
    fn the_more_open_side_of_a_change_counts() {
        let check = |before: (Visibility, Member), after: (Visibility, Member), expected| {
            let [before, after] = [moment(before.0, before.1), moment(after.0, after.1)];
            assert_eq!(may_see(state(Flags::NONE), [before, after]), expected, "{before:?} {after:?}");
            assert_eq!(may_see(state(Flags::NONE), [after, before]), expected, "{after:?} {before:?}");
        };
        // A join, an invitation, a leave.
        check((Visibility::Joined, Member::Outside), (Visibility::Joined, Member::Joined), Sees::Whole);
        check((Visibility::Joined, Member::Invited), (Visibility::Joined, Member::Joined), Sees::Whole);
        check((Visibility::Invited, Member::Outside), (Visibility::Invited, Member::Invited), Sees::Whole);
        check((Visibility::Joined, Member::Outside), (Visibility::Joined, Member::Invited), Sees::Redacted);
        // A change of visibility.
        check((Visibility::Shared, Member::Outside), (Visibility::Joined, Member::Outside), Sees::Whole);
        check((Visibility::Joined, Member::Outside), (Visibility::Invited, Member::Outside), Sees::Redacted);
        check((Visibility::Joined, Member::Invited), (Visibility::Invited, Member::Invited), Sees::Whole);
    }

    #[test]
    fn rejected_events_are_not_there_and_outliers_only_as_state() {
        for visibility in ALL_VISIBILITIES {
            for membership in ALL_MEMBERSHIPS {
                let at = [moment(visibility, membership); 2];
                for rejected in [Flags::REJECTED, Flags::REJECTED | Flags::OUTLIER, Flags::REJECTED | Flags::RELAY] {
                    assert_eq!(may_see(message(rejected), at), Sees::Not);
                    assert_eq!(may_see(state(rejected), at), Sees::Not);
                }
                assert_eq!(may_see(message(Flags::OUTLIER), at), Sees::Not);
                assert_eq!(may_see(state(Flags::OUTLIER), at), Sees::Whole);
                let erased = EventFacts { sender_is_erased: true, ..state(Flags::OUTLIER) };
                assert_eq!(may_see(erased, at), Sees::Redacted);
            }
        }
    }

    #[test]
    fn a_state_before_is_that_of_an_event_which_has_one() {
        for event in kinds() {
            assert!(has_state_before(event.flags), "{event:?}");
        }
        for flags in [Flags::OUTLIER, Flags::REJECTED, Flags::REJECTED | Flags::OUTLIER, Flags::OUTLIER | Flags::RELAY]
        {
            assert!(!has_state_before(flags), "{flags:?}");
        }
    }

    #[test]
    fn the_closest_membership_of_a_servers_users_counts() {
        let check = |memberships: &[Membership], expected| {
            assert_eq!(ServerMembership::of(memberships.iter().copied()), expected, "{memberships:?}");
        };
        check(&[], Member::Outside);
        check(&[Membership::Leave, Membership::Ban, Membership::Knock], Member::Outside);
        check(&[Membership::Ban, Membership::Invite, Membership::Leave], Member::Invited);
        check(&[Membership::Invite, Membership::Join, Membership::Ban], Member::Joined);
    }

    #[test]
    fn an_unknown_visibility_is_shared() {
        let check = |content, expected| {
            assert_eq!(HistoryVisibility::of(&to_raw_value(&content).unwrap()), expected, "{content}");
        };
        check(json!({ "history_visibility": "world_readable" }), Visibility::WorldReadable);
        check(json!({ "history_visibility": "shared", "x": 1 }), Visibility::Shared);
        check(json!({ "history_visibility": "invited" }), Visibility::Invited);
        check(json!({ "history_visibility": "joined" }), Visibility::Joined);
        check(json!({ "history_visibility": "Joined" }), Visibility::Shared);
        check(json!({ "history_visibility": null }), Visibility::Shared);
        check(json!({ "history_visibility": ["joined"] }), Visibility::Shared);
        check(json!({}), Visibility::Shared);
    }
}
