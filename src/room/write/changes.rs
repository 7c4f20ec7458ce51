//! The changes of a room's state that a write makes: in the log, in the members of the room, and in the columns of its head
//! that show the state.

use std::sync::Arc;

use sabha_federation::{
    held::Held,
    state_log::{Membership, StateLog},
};

use super::{
    outcome::{ChangedMember, CurrentEvent, KeyChange, LocalMember, Redacts},
    rows::Making,
};
use crate::{
    room::{Room, listing::columns::Columns, memberships::MemberEntry, servers::JoinedByServer},
    store::{Error, EventNid, Position, UserNid, Write, log::Touch, members, remote_members, states, vocabulary::User},
};

/// The changes so far of the columns that show the state.
#[derive(Debug, Default)]
pub(super) struct StateChanges {
    pub(super) columns: Columns,
    pub(super) heroes_changed: bool,
}

impl StateChanges {
    /// Shows the redacted form of an event, if it is current.
    pub(super) fn redact(&mut self, state: &StateLog, Redacts { event, left }: &Redacts) {
        let current = event.key.and_then(|key| state.get(key));
        if current.is_some_and(|current| current.event_nid == event.nid) {
            self.columns.show((&left.event_type, left.state_key.as_deref().unwrap_or_default()), Some(left));
        }
    }
}

impl Making<'_> {
    /// Applies a change of the state with everything that follows from it, and writes it into the log. `by` is the event with
    /// which it comes, if there is one.
    ///
    /// # Errors
    /// As [`Self::change_member`].
    pub(super) fn change_state(
        &mut self,
        change: &KeyChange,
        pos: Position,
        by: Option<EventNid>,
    ) -> Result<(), Error> {
        let KeyChange { key, to, member } = change;
        let (room, state) = (self.room.nid, &mut self.view.state);
        key.write_if_new(&mut self.write);
        let now = to.as_ref().map(CurrentEvent::held);
        let (event, membership) = (now.map(|now| now.event_nid), now.and_then(|now| now.membership));
        let applied = state.change(key.nid, pos, event, membership);
        let before = applied.before.map(|before| before.event_nid);
        let membership = membership.map(Membership::code);
        self.write.touch(Touch::State { room, key: key.nid, event, before, membership });
        self.write.push(
            states::StateLogColumns {
                room_nid: room,
                key_nid: key.nid,
                pos,
                event_nid: event,
                prev_event_nid: before,
                membership: membership.map(i64::from),
            }
            .row(),
        );
        state.apply(applied);
        self.changes.heroes_changed |= self.view.heroes.follow(&applied, state);
        self.changes.columns.show((&key.event_type, &key.state_key), to.as_ref().map(|to| &*to.pdu));
        self.head.state_pos = pos;
        self.head.changes += 1;
        match member {
            Some(member) => self.change_member(member, (applied.before.map(Held::from), now), pos, by),
            None => Ok(()),
        }
    }

    /// Writes the change of a user's membership. `by` is the event with which it comes, if there is one.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a local user is said to be a remote one, or if nobody has read the numbers of remote ones.
    pub(super) fn change_member(
        &mut self,
        member: &ChangedMember,
        (before, now): (Option<Held>, Option<Held>),
        pos: Position,
        by: Option<EventNid>,
    ) -> Result<(), Error> {
        match member {
            ChangedMember::Local(member) => {
                let shown = [now.map(|now| now.event_nid), by, before.map(|before| before.event_nid)];
                // A membership that there was not and is not changes nothing.
                let Some(event_nid) = shown.into_iter().flatten().next() else { return Ok(()) };
                let membership = now.and_then(|now| now.membership).unwrap_or(Membership::Leave);
                let entry = MemberEntry { room: self.room.nid, membership, event_nid, pos, forgotten: false };
                change_local_member(&mut self.write, member, &entry);
                self.effects.members.push((member.user.nid, entry));
            }
            ChangedMember::Remote(user) => {
                let memberships = [before, now].map(|held| held.and_then(|held| held.membership));
                let counts = self.head.joined_by_server.as_mut();
                let changed = change_remote_member(&mut self.write, self.room, counts, user, memberships, pos)?;
                self.effects.remote_members.extend(changed);
            }
        }
        Ok(())
    }
}

/// Writes the new membership of a local user. A user whose membership is gone has left. The entry's event is then the one with
/// which that came, or the one that is gone.
fn change_local_member(write: &mut Write, LocalMember { user, invite_state }: &LocalMember, entry: &MemberEntry) {
    let MemberEntry { room, membership, event_nid, pos, forgotten } = *entry;
    user.write_if_new(write);
    write.touch(Touch::Member { room, user: user.nid, membership: membership.code(), forgotten });
    write.push(
        members::MemberColumns {
            user_nid: user.nid,
            room_nid: room,
            membership: i64::from(membership.code()),
            event_nid,
            pos,
            forgotten,
            invite_state: invite_state.as_deref().map(Arc::from),
        }
        .row(),
    );
}

/// Writes that a user of another server has joined or is out of the room, with the new number of joined users of their
/// server. Returns the user and whether they are joined now; `None` if this stays as it was, and nothing is written then
/// but the user.
///
/// # Errors
/// [`Error::Damaged`] if the user is a local one, or if nobody has read the numbers.
fn change_remote_member(
    write: &mut Write,
    room: &Room,
    counts: Option<&mut JoinedByServer>,
    user: &User,
    memberships: [Option<Membership>; 2],
    pos: Position,
) -> Result<Option<(UserNid, bool)>, Error> {
    let (Some(counts), Some(server)) = (counts, &user.server) else {
        return Err(Error::damaged("room", format!("{}: {} cannot be a remote member", room.room_id, user.user_id)));
    };
    user.write_if_new(write);
    let [was_joined, joined] = memberships.map(|membership| membership == Some(Membership::Join));
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
