//! The answer for a client that is caught up, from memory alone: most answers, and all that a message to a large room needs.
//!
//! It waits for nothing, and copies the events that were rendered for all members ([`Delta`]).
//! Promise: the answer is that of [`answer`](super::answer()), byte by byte. Whatever is not plain is left to that one: a
//! change of state, of membership or of account data, an own event, a hidden event, a filtered timeline, a member that lazy
//! loading owes, anything that is not in memory.

use std::sync::Arc;

use bytes::Bytes;
use ruma::api::client::filter::LazyLoadOptions;
use sabha_federation::state_log::Membership;

use super::{
    Look,
    devices::write_known_counts,
    joined::{self, state_field, write_unread},
    next_batch,
    timeline::timeline_limit,
};
use crate::{
    account_data::ignored::Ignored,
    push::unread::Joined,
    room::{Room, memberships::MemberEntry, read::delta::Delta},
    shares::large_answers::LARGE_BYTES,
    store::{Position, RoomNid, TimelinePlace},
    sync::{
        json::{Array, Object},
        token::{Hints, PageToken, SyncToken},
    },
};

/// The maximum number of rooms with news: a client that waits for news has one or two. With more, the locks that are held
/// one after the other keep other tasks waiting for too long.
const MAX_ROOMS: usize = 16;

/// The bytes of an answer besides its rooms, and of a room with a short message. Together no more than the 1032 bytes up to
/// which glibc keeps freed pieces for each thread: a larger piece is searched for under a lock, and joins free pieces first.
const ANSWER_BYTES: usize = 256;
const ROOM_BYTES: usize = 768;

/// The reason why memory alone has no answer.
pub(super) enum Lacks {
    /// The unread events of a room are not counted yet. Once they are, there may be an answer.
    Count(Arc<Room>),
    /// [`answer`](super::answer()) must build it.
    Other,
}

/// Counts the unread events of the room, and then builds the answer. `None` if there still is none.
pub(super) async fn answer_after_counting(look: &Look<'_>, room: Arc<Room>) -> Option<(Bytes, bool)> {
    let (app, user) = (look.app, &look.caller.user);
    // An error is for the other one to report. It leaves out rooms that are damaged.
    let sight = app.rooms.sight(&room, user).await.ok()?;
    let services = (&app.rooms, &app.ephemeral);
    app.push.unread(services, (&room, &sight), user, look.upto, &look.budgets.unread).await.ok()?;
    answer(look).ok()
}

/// Builds the answer as [`answer`](super::answer()) does, and returns whether it has any news.
pub(super) fn answer(look: &Look<'_>) -> Result<(Bytes, bool), Lacks> {
    let mut lacks = Lacks::Other;
    build(look, &mut lacks).ok_or(lacks)
}

fn build(look: &Look<'_>, lacks: &mut Lacks) -> Option<(Bytes, bool)> {
    let since = look.since.filter(|since| is_plain(look, since))?;
    let Look { app, caller, live, request, .. } = look;
    let (user, device) = (caller.user.nid, caller.device_nid);
    let counts = app.keys.counts_in_memory(device)?;
    let ignored = app.account_data.ignored_in_memory(user)?;
    let dirty = live.dirty_since(since.position, since.ephemeral);
    let mut rooms = dirty.rooms;
    rooms.extend(&request.hints.typing);
    rooms.sort_unstable();
    rooms.dedup();
    let is_known = dirty.reaches_back
        && dirty.ephemeral_reaches_back
        && rooms.len() <= MAX_ROOMS
        && app.account_data.is_unchanged(user, since.position)
        && app.keys.no_device_list_changed(since.position)
        && app.keys.has_no_messages(device, since.position)
        && app.ephemeral.has_no_presence_since(&app.rooms, user, since.ephemeral);
    if !is_known {
        return None;
    }
    // Read after the marks, like the rooms.
    let members = members_of(look, &since, &rooms)?;
    let mut hints = request.hints.clone();
    let mut out = Vec::with_capacity(ANSWER_BYTES + ROOM_BYTES * members.len());
    let mut object = Object::begin(&mut out);
    let before = object.mark();
    let mut sections = Object::begin(object.key("rooms"));
    let mut joined = Object::begin(sections.key("join"));
    for member in &members {
        write_room(look, &since, (member, &ignored), (&mut hints, lacks), &mut joined)?;
    }
    let mut has_news = joined.end();
    sections.end();
    if !has_news {
        object.back_to(before);
    }
    has_news |= write_known_counts(look, &counts, &mut object);
    object.token("next_batch", format_args!("{}{hints}", next_batch(look, None)));
    object.end();
    // A large answer must wait for its turn.
    (out.len() < LARGE_BYTES).then(|| (out.into(), has_news))
}

/// Returns whether the client only follows what it has: nothing was left out, nothing has ended with an earlier start.
fn is_plain(look: &Look<'_>, since: &SyncToken) -> bool {
    let request = look.request;
    !request.full_state
        && !request.filter.federation_format
        && request.hints.left_out.is_empty()
        && since.to_device.is_none()
        && look.earlier_start().is_none()
}

/// The memberships in these rooms. `None` if they are not in memory, or if one is not that of a member who was in the room
/// before the client's token already.
fn members_of(look: &Look<'_>, since: &SyncToken, rooms: &[RoomNid]) -> Option<Vec<MemberEntry>> {
    let follows = |member: &MemberEntry| {
        member.membership == Membership::Join && !member.forgotten && member.pos <= since.position
    };
    look.app.rooms.with_memberships(look.caller.user.nid, |held| {
        let known = rooms.iter().filter_map(|room| held.get(room));
        known.map(|member| follows(member).then(|| member.clone())).collect()
    })
}

/// Writes a room, if it has news. Returns `None` if it is not plain.
fn write_room(
    look: &Look<'_>,
    since: &SyncToken,
    (member, ignored): (&MemberEntry, &Ignored),
    (hints, lacks): (&mut Hints, &mut Lacks),
    rooms: &mut Object<'_>,
) -> Option<()> {
    let Look { app, caller, upto, .. } = look;
    let room = app.rooms.in_memory(member.room)?;
    // Its state may still bring users to encrypt for.
    if !look.wants(&room) {
        return None;
    }
    let delta = app.rooms.delta(&room, since.position, *upto)?;
    if delta.as_ref().is_some_and(|delta| !suits(look, since, (&room, member, ignored), delta)) {
        return None;
    }
    let receipts = receipts(look, since, &room, ignored)?;
    let typing = joined::typing(look, &room, since.ephemeral, ignored);
    let has_ephemeral = receipts.is_some() || typing.is_some();
    if room.last_pos() <= since.position && !has_ephemeral {
        return Some(());
    }
    let (services, joined) = ((&app.rooms, &app.ephemeral), Joined { user: &caller.user, member });
    let Some(unread) = app.push.unread_in_memory(services, &room, joined, *upto) else {
        *lacks = Lacks::Count(room);
        return None;
    };
    if delta.is_none() && !has_ephemeral && unread.changed_at <= Some(since.position) {
        return Some(());
    }
    let mut object = Object::begin(rooms.key(room.room_id.as_str()));
    let mut timeline = Object::begin(object.key("timeline"));
    match &delta {
        Some(delta) => delta.write(timeline.key("events"), look.now_ms),
        None => timeline.raw("events", "[]"),
    }
    timeline.raw("limited", "false");
    let start = delta.as_ref().map_or(TimelinePlace::on_line(*upto), |delta| delta.start);
    timeline.token("prev_batch", PageToken(start));
    timeline.end();
    object.events(state_field(look), |_| {});
    object.events("account_data", |_| {});
    object.events("ephemeral", |array: &mut Array<'_>| {
        receipts.iter().for_each(|event| array.raw(event.get()));
        typing.iter().for_each(|typing| array.raw(typing.event.get()));
    });
    write_unread(look, &unread, &mut object);
    object.end();
    hints.note_typing(room.nid, typing.map(|typing| typing.anybody));
    Some(())
}

/// Returns whether the client is shown just these events, and owed nothing with them.
fn suits(
    look: &Look<'_>,
    since: &SyncToken,
    (room, member, ignored): (&Room, &MemberEntry, &Ignored),
    delta: &Delta,
) -> bool {
    let filter = &look.request.filter.room;
    let is_told = |user_id| user_id != look.caller.user_id() && (ignored.is_empty() || !ignored.contains(user_id));
    filter.timeline.accepts_all()
        && filter.timeline.accepts_room(&room.room_id)
        && filter.state.accepts_room(&room.room_id)
        && delta.events <= timeline_limit(look)
        && member.pos <= delta.oldest_state
        && delta.senders.iter().all(|sender| is_told(&sender.user_id))
        && knows_members(look, since.position, room, delta)
}

/// Returns whether lazy loading owes the client no member: it has the members who sent the events.
fn knows_members(look: &Look<'_>, since: Position, room: &Room, delta: &Delta) -> bool {
    match look.request.filter.room.state.lazy_load {
        LazyLoadOptions::Disabled => true,
        LazyLoadOptions::Enabled { include_redundant_members: true } => false,
        LazyLoadOptions::Enabled { include_redundant_members: false } => {
            let (lazy, device) = (&look.app.lazy_members, look.caller.device_nid);
            // As the slow answer does: members of an answer that was lost do not count.
            lazy.rewind(device, room.nid, since);
            let is_known = |(key, event)| lazy.knows(device, room.nid, key, event, since);
            delta.senders.iter().all(|sender| sender.member.is_some_and(is_known))
        }
    }
}

/// The new receipts, if there are any and the client wants them. `None` if they are not those that everyone sees.
fn receipts(
    look: &Look<'_>,
    since: &SyncToken,
    room: &Room,
    ignored: &Ignored,
) -> Option<Option<Arc<serde_json::value::RawValue>>> {
    let (ephemeral, filter) = (&look.app.ephemeral, &look.request.filter.room.ephemeral);
    if ephemeral.no_receipt_since(room.nid, since.position) {
        return Some(None);
    }
    if !ignored.is_empty() {
        return None;
    }
    let receipts = ephemeral.shared_receipts(room.nid, look.caller.user.nid, (since.position, look.upto))?;
    let is_wanted = filter.accepts_room(&room.room_id) && filter.accepts_type("m.receipt");
    Some(receipts.filter(|event| is_wanted && filter.accepts_unsent("m.receipt", event)))
}

#[cfg(test)]
mod tests;
