//! The changes of a room's state that a write makes: in the log, in the members of the room, and in the columns of its head
//! that show the state.

use std::sync::Arc;

use sabha_federation::state_log::{Membership, StateLog};

use super::outcome::{CurrentEvent, KeyChange, LocalMember, Redacts};
use crate::{
    room::{Room, RoomView, listing::columns::Columns, memberships::MemberEntry, servers::JoinedByServer},
    store::{Error, EventNid, Position, UserNid, Write, log::Touch, members, remote_members, states, vocabulary::User},
};

/// The changes so far.
#[derive(Debug, Default)]
pub(super) struct StateChanges {
    pub(super) columns: Columns,
    pub(super) heroes_changed: bool,
}

impl StateChanges {
    /// Applies a change, and writes it into the log. Returns the membership before it, for the keys of `m.room.member`.
    pub(super) fn apply(
        &mut self,
        write: &mut Write,
        (room, view): (&Room, &mut RoomView),
        change: &KeyChange,
        pos: Position,
    ) -> Option<Membership> {
        let KeyChange { key, to, .. } = change;
        key.write_if_new(write);
        let (event, membership) = match to {
            Some(to) => (Some(to.nid), to.membership),
            None => (None, None),
        };
        let applied = view.state.change(key.nid, pos, event, membership);
        let before = applied.before.map(|before| before.event_nid);
        let membership = membership.map(Membership::code);
        write.touch(Touch::State { room: room.nid, key: key.nid, event, before, membership });
        write.push(
            states::StateLogColumns {
                room_nid: room.nid,
                key_nid: key.nid,
                pos,
                event_nid: event,
                prev_event_nid: before,
                membership: membership.map(i64::from),
            }
            .row(),
        );
        view.state.apply(applied);
        self.heroes_changed |= view.heroes.follow(&applied, &view.state);
        self.columns.show((&key.event_type, &key.state_key), to.as_ref().map(|to| &*to.pdu));
        applied.before.and_then(|before| before.membership)
    }

    /// Shows the redacted form of an event, if it is current.
    pub(super) fn redact(&mut self, state: &StateLog, Redacts { event, left }: &Redacts) {
        let current = event.key.and_then(|key| state.get(key));
        if current.is_some_and(|current| current.event_nid == event.nid) {
            self.columns.show((&left.event_type, left.state_key.as_deref().unwrap_or_default()), Some(left));
        }
    }
}

/// Writes the new membership of a local user. A user whose membership is gone has left; `by`, the event with which that
/// came, stands for it then.
pub(super) fn change_member(
    write: &mut Write,
    room: &Room,
    LocalMember { user, invite_state }: &LocalMember,
    to: Option<&CurrentEvent>,
    (pos, by): (Position, EventNid),
) -> (UserNid, MemberEntry) {
    let event_nid = to.map_or(by, |to| to.nid);
    let membership = to.and_then(|to| to.membership).unwrap_or(Membership::Leave);
    user.write_if_new(write);
    let touch = Touch::Member { room: room.nid, user: user.nid, membership: membership.code(), forgotten: false };
    write.touch(touch);
    write.push(
        members::MemberColumns {
            user_nid: user.nid,
            room_nid: room.nid,
            membership: i64::from(membership.code()),
            event_nid,
            pos,
            forgotten: false,
            invite_state: invite_state.as_deref().map(Arc::from),
        }
        .row(),
    );
    (user.nid, MemberEntry { room: room.nid, membership, event_nid, pos, forgotten: false })
}

/// Writes that a user of another server has joined or is out of the room, with the new number of joined users of their
/// server. Returns the user and whether they are joined now; `None` if this stays as it was, and nothing is written then
/// but the user.
///
/// # Errors
/// [`Error::Damaged`] if the user is a local one, or if nobody has read the numbers.
pub(super) fn change_remote_member(
    write: &mut Write,
    room: &Room,
    counts: Option<&mut JoinedByServer>,
    user: &User,
    (before, now): (Option<Membership>, Option<Membership>),
    pos: Position,
) -> Result<Option<(UserNid, bool)>, Error> {
    let (Some(counts), Some(server)) = (counts, &user.server) else {
        return Err(Error::damaged("room", format!("{}: {} cannot be a remote member", room.room_id, user.user_id)));
    };
    user.write_if_new(write);
    let [was_joined, joined] = [before, now].map(|membership| membership == Some(Membership::Join));
    if joined == was_joined {
        return Ok(None);
    }
    let count = counts.count(server.nid, joined);
    write.touch(Touch::RemoteMember { room: room.nid, user: user.nid, joined });
    write.push(remote_members::RemoteMemberColumns { user_nid: user.nid, room_nid: room.nid, joined }.row());
    write.push(
        remote_members::RoomServerColumns {
            server_nid: server.nid,
            room_nid: room.nid,
            joined: count,
            changed_pos: pos,
        }
        .row(),
    );
    Ok(Some((user.nid, joined)))
}
