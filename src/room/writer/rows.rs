//! Turns built events into rows, and into changes of memory for after their commit.

use std::sync::Arc;

use sabha_federation::standing::{Standing, StateAt};

use super::{
    Pending, RoomWriter,
    outcome::{Built, KeyChange, LocalMember, Outcome, Placing, StateBefore},
};
use crate::{
    bus::Bus,
    room::{
        Head, Room, Rooms,
        event::StoredEvent,
        memberships::{MemberEntry, MembershipsHandle},
        relations,
        state_log::{Membership, StateLog, checkpoint},
        txn::{QueuedTxn, TxnKey},
    },
    store::{
        Error, EventNid, Position, RoomNid, Row, TimelinePlace, UserNid, Write, events, ids::pack, log::Touch, members,
        room_heads, states, timelines,
    },
};

/// The greatest number of state changes that are replayed when a room is loaded.
const CHECKPOINT_EVERY: usize = 256;

/// The changes of memory that belong to a commit.
struct Effects {
    room: Arc<Room>,
    events: Vec<(Position, Arc<StoredEvent>)>,
    /// Redacted forms of events, each with the position of the redaction.
    redacted: Vec<(Position, Arc<StoredEvent>)>,
    members: Vec<(UserNid, MemberEntry)>,
    txn: Option<QueuedTxn>,
    /// Set if the line or the state goes on, which clients are told.
    is_news: bool,
    /// The position of the room's end after it.
    last: Position,
    /// The position of the write.
    end: Position,
}

pub(super) fn apply(writer: &mut RoomWriter<'_>, first: Position, txn: Option<TxnKey>) -> Result<Write, Error> {
    let rooms = writer.rooms;
    let room = Arc::clone(&writer.room);
    let pending = std::mem::take(&mut writer.pending);
    let mut write = Write::new(std::mem::take(&mut writer.extra)).in_lineage(room.lineage.clone());
    let mut effects = Effects {
        room: Arc::clone(&room),
        events: Vec::with_capacity(pending.len()),
        redacted: Vec::new(),
        members: Vec::new(),
        txn: None,
        is_news: false,
        last: writer.head.last_pos,
        end: first,
    };
    let mut view = room.view_mut();
    // Readers ask for the committed position, so changes after it must stay in memory.
    view.state.keep_since(rooms.db.committer().published());
    let mut pos = first;
    for Pending { built, outcome } in pending {
        write.set_position(pos);
        built.event_type.write_if_new(&mut write);
        built.sender.write_if_new(&mut write);
        let standing = standing(&outcome, pos, &writer.head);
        if outcome.changes.is_empty()
            && let Some(key) = &built.key
        {
            key.write_if_new(&mut write);
        }
        if outcome.placing == Placing::EndOfLine || !outcome.changes.is_empty() {
            writer.head.last_pos = pos;
        }
        for change in outcome.changes {
            change_state(&mut write, (&room, &mut view.state), &change, pos);
            writer.head.state_pos = pos;
            writer.head.unsaved_changes += 1;
            if let Some(member) = change.member {
                effects.members.push(change_member(&mut write, &room, member, change.to, (pos, built.nid)));
            }
        }
        if let Some(redacts) = &outcome.redacts {
            write.touch(Touch::Redacted { room: room.nid, event: redacts.event.nid, by: built.nid });
            write.push(events::EVENT_JSON.row([redacts.event.nid.into(), redacts.left.json.clone().into()]));
            write.push(events::REDACTION.row([redacts.event.nid.into(), built.nid.into()]));
        }
        let sub = standing.place.map_or(0, |place| place.sub);
        write.touch(Touch::Event { room: room.nid, event: built.nid, sub, flags: standing.flags.bits() });
        write.push(event_row(&built, room.nid, standing));
        write.push(events::EVENT_JSON.row([built.nid.into(), built.pdu.json.clone().into()]));
        if let Some(place) = standing.place {
            let place = [room.nid.into(), place.pos.into(), place.sub.into(), built.nid.into()];
            write.push(timelines::TIMELINE.row(place));
        }
        if outcome.is_extremity {
            writer.head.depth = writer.head.depth.max(built.depth());
        }
        let stored = Arc::new(StoredEvent::new(
            built.nid,
            room.nid,
            standing,
            built.auth_depth,
            built.key.as_ref().map(|key| key.nid),
            built.pdu,
            built.replaces,
            None,
        ));
        if let Some(relation) = relations::row(&stored) {
            write.push(relation);
        }
        if let Some(redacts) = outcome.redacts {
            effects.redacted.push((pos, Arc::new(redacts.event.redacted(redacts.left, Arc::clone(&stored)))));
        }
        effects.events.push((pos, stored));
        pos.0 += 1;
    }
    let last = writer.head.last_pos;
    let state_hash = view.state.hash().to_bytes().to_vec();
    if writer.head.unsaved_changes >= CHECKPOINT_EVERY {
        writer.head.unsaved_changes = 0;
        let blob = checkpoint::encode(view.state.entries());
        write.push(states::STATE_CHECKPOINT.row([
            room.nid.into(),
            last.into(),
            state_hash.clone().into(),
            blob.into(),
        ]));
    }
    drop(view);
    // In this order: for a redacted event that was queued just now, the redacted form counts.
    for (pos, event) in effects.events.iter().chain(&effects.redacted) {
        room.queued.add(*pos, Arc::clone(event));
    }
    effects.is_news = last > effects.last;
    (effects.last, effects.end) = (last, Position(pos.0 - 1));
    let extremities = writer.extremities.take();
    // Events that are only stored, such as outliers, leave the head as it is.
    if effects.is_news || extremities.is_some() {
        if let Some(extremities) = extremities {
            writer.head.forward_extremities = extremities;
        }
        let extremities: Vec<EventNid> = writer.head.forward_extremities.iter().map(|(nid, _)| *nid).collect();
        write.push(room_heads::ROOM_HEAD.row([
            room.nid.into(),
            last.into(),
            writer.head.depth.into(),
            pack(&extremities).into(),
            writer.head.state_pos.into(),
            state_hash.into(),
        ]));
    }
    for touch in std::mem::take(&mut writer.touches) {
        write.touch(touch);
    }
    if let (Some(txn), Some((_, event))) = (txn, effects.events.last()) {
        write.touch(Touch::Txn { device: txn.device, event: event.nid });
        write.push(txn.row(event.event_id(), writer.now_ms));
        effects.txn = Some(rooms.txn_ids.queue(txn, event.event_id()));
    }
    if writer.is_new_room {
        rooms.register_shared(&room);
    }
    Ok(with_effects(write, rooms, effects))
}

/// The standing that an outcome gives to an event whose write has this position.
fn standing(outcome: &Outcome, pos: Position, head: &Head) -> Standing {
    let place = match outcome.placing {
        Placing::EndOfLine => Some(TimelinePlace::on_line(pos)),
        Placing::Gap(place) => Some(place),
        Placing::Nowhere => None,
    };
    let before = match outcome.before {
        StateBefore::Current => StateAt::in_log(head.state_pos),
        StateBefore::Known(state) => state,
    };
    Standing { flags: outcome.flags, place, before }
}

/// Applies a change of the room's state, and writes it into the log.
fn change_state(write: &mut Write, (room, state): (&Room, &mut StateLog), change: &KeyChange, pos: Position) {
    change.key.write_if_new(write);
    let (event, membership) = change.to.map_or((None, None), |(event, membership)| (Some(event), membership));
    let applied = state.change(change.key.nid, pos, event, membership);
    let before = applied.before.map(|before| before.event_nid);
    let membership = membership.map(Membership::code);
    write.touch(Touch::State { room: room.nid, key: change.key.nid, event, before, membership });
    write.push(states::STATE_LOG.row([
        room.nid.into(),
        change.key.nid.into(),
        pos.into(),
        event.into(),
        before.into(),
        membership.map(i64::from).into(),
    ]));
    state.apply(applied);
}

/// Writes the new membership of a local user. A membership that is gone is one of a user who has left; `by`, the event
/// with which that came, stands for it then.
fn change_member(
    write: &mut Write,
    room: &Room,
    LocalMember { user, invite_state }: LocalMember,
    to: Option<(EventNid, Option<Membership>)>,
    (pos, by): (Position, EventNid),
) -> (UserNid, MemberEntry) {
    let (event_nid, membership) = to.map_or((by, None), |(event, membership)| (event, membership));
    let membership = membership.unwrap_or(Membership::Leave);
    user.write_if_new(write);
    let touch = Touch::Member { room: room.nid, user: user.nid, membership: membership.code(), forgotten: false };
    write.touch(touch);
    write.push(members::MEMBER.row([
        user.nid.into(),
        room.nid.into(),
        i64::from(membership.code()).into(),
        event_nid.into(),
        pos.into(),
        false.into(),
        invite_state.clone().into(),
    ]));
    let invite_state = invite_state.map(Arc::from);
    (user.nid, MemberEntry { room: room.nid, membership, event_nid, pos, forgotten: false, invite_state })
}

fn event_row(event: &Built, room: RoomNid, Standing { flags, place, before }: Standing) -> Row {
    events::EVENT.row([
        event.nid.into(),
        event.pdu.event_id.as_str().into(),
        room.into(),
        event.event_type.nid.into(),
        event.key.as_ref().map(|key| key.nid).into(),
        event.sender.nid.into(),
        place.map(|place| place.pos).into(),
        place.map_or(0, |place| place.sub).into(),
        event.depth().into(),
        i64::try_from(event.pdu.origin_server_ts).unwrap_or(i64::MAX).into(),
        event.auth_depth.into(),
        before.pos.into(),
        before.side.into(),
        flags.bits().into(),
        pack(&event.prev).into(),
        pack(&event.auth).into(),
    ])
}

fn with_effects(write: Write, rooms: &Rooms, effects: Effects) -> Write {
    let bus: Arc<Bus> = Arc::clone(&rooms.bus);
    let events = rooms.events.clone();
    let memberships: MembershipsHandle = rooms.memberships.handle();
    let room = effects.room.nid;
    let members: Vec<(UserNid, Membership)> =
        effects.members.iter().map(|(user, entry)| (*user, entry.membership)).collect();
    write.after(move || {
        if let Some(txn) = effects.txn {
            txn.committed();
        }
        for (_, event) in &effects.events {
            events.insert(Arc::clone(event));
        }
        effects.room.publish(&effects.events, effects.last);
        for (_, event) in &effects.redacted {
            events.redact(Arc::clone(event));
            effects.room.replace_in_ring(event);
        }
        // Only now: the cache or the database has all of these events.
        let committed = effects.events.iter().chain(&effects.redacted);
        effects.room.queued.committed(committed.map(|(pos, event)| (*pos, event.nid)));
        for (user, entry) in effects.members {
            memberships.update(user, entry);
        }
        for (user, membership) in members {
            if membership == Membership::Join {
                bus.watch(user, room);
            } else {
                bus.departed(user, room);
            }
            // This includes users who were never in the room (invites) or just left it.
            bus.mark_user(user, effects.end);
        }
        if effects.is_news {
            bus.mark_room(room, effects.end);
        }
    })
}

impl Rooms {
    fn register_shared(&self, room: &Arc<Room>) {
        let mut registry = self.registry.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        registry.by_id.insert(room.room_id.clone(), Arc::clone(room));
        registry.by_nid.insert(room.nid, Arc::clone(room));
    }
}
