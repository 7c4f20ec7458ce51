//! Turns built events into rows, and into changes of memory for after their commit.

use std::sync::Arc;

use super::{Pending, RoomWriter};
use crate::{
    bus::Bus,
    room::{
        Room, Rooms, checkpoints,
        event::StoredEvent,
        listing::columns::{Columns, bumps},
        memberships::{MemberEntry, MembershipsHandle},
        relations,
        state_log::{Membership, checkpoint},
        txn::{QueuedTxn, TxnKey},
    },
    store::{
        Error, EventNid, Position, UserNid, Write, events, ids::pack, log::Touch, members, room_heads, states,
        timelines,
    },
};

/// The flags of an accepted event of this server. There are no others yet.
const PLAIN: i64 = 0;

/// The sub-position of an event that was appended at the end of the timeline.
const LIVE: i32 = 0;

/// The changes of memory that belong to a commit.
struct Effects {
    room: Arc<Room>,
    events: Vec<(Position, Arc<StoredEvent>)>,
    /// Redacted forms of events, each with the position of the redaction.
    redacted: Vec<(Position, Arc<StoredEvent>)>,
    members: Vec<(UserNid, MemberEntry)>,
    txn: Option<QueuedTxn>,
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
    };
    let mut columns = Columns::default();
    let mut heroes_changed = false;
    let mut view_guard = room.view_mut();
    let view = &mut *view_guard;
    // Readers ask for the committed position, so changes after it must stay in memory.
    view.state.keep_since(rooms.db.committer().published());
    let mut pos = first;
    for event in pending {
        write.set_position(pos);
        event.event_type.write_if_new(&mut write);
        event.sender.write_if_new(&mut write);
        let state_pos = writer.head.state_pos;
        if let Some(key) = &event.key {
            key.write_if_new(&mut write);
            let change = view.state.change(key.nid, pos, Some(event.nid), event.membership);
            write.touch(Touch::State {
                room: room.nid,
                key: key.nid,
                event: Some(event.nid),
                before: change.before.map(|before| before.event_nid),
                membership: event.membership.map(Membership::code),
            });
            write.push(states::STATE_LOG.row([
                room.nid.into(),
                key.nid.into(),
                pos.into(),
                Some(event.nid).into(),
                change.before.map(|before| before.event_nid).into(),
                event.membership.map(|membership| i64::from(membership.code())).into(),
            ]));
            if change.before.is_none() {
                room.absent.remove(&key.event_type, &key.state_key);
            }
            view.state.apply(change);
            heroes_changed |= view.heroes.follow(&change, &view.state);
            columns.show(&event.pdu);
            writer.head.state_pos = pos;
            writer.head.changes += 1;
        }
        if let (Some(user), Some(membership)) = (&event.local_member, event.membership) {
            user.write_if_new(&mut write);
            let entry = member_entry(&event, membership, pos, room.nid);
            write.touch(Touch::Member {
                room: room.nid,
                user: user.nid,
                membership: membership.code(),
                forgotten: false,
            });
            write.push(members::MEMBER.row([
                user.nid.into(),
                room.nid.into(),
                i64::from(membership.code()).into(),
                event.nid.into(),
                pos.into(),
                false.into(),
                event.invite_state.clone().into(),
            ]));
            effects.members.push((user.nid, entry));
        }
        if bumps(&event.pdu.event_type) {
            writer.head.bump_pos = pos;
        }
        if let Some(redacts) = &event.redacts {
            let current = redacts.event.key.and_then(|key| view.state.get(key));
            if current.is_some_and(|current| current.event_nid == redacts.event.nid) {
                columns.show(&redacts.left);
            }
            write.touch(Touch::Redacted { room: room.nid, event: redacts.event.nid, by: event.nid });
            write.push(events::EVENT_JSON.row([redacts.event.nid.into(), redacts.left.json.clone().into()]));
            write.push(events::REDACTION.row([redacts.event.nid.into(), event.nid.into()]));
        }
        write.touch(Touch::Event { room: room.nid, event: event.nid, sub: LIVE, flags: PLAIN });
        write.push(event_row(&event, &room, pos, state_pos));
        write.push(events::EVENT_JSON.row([event.nid.into(), event.pdu.json.clone().into()]));
        write.push(timelines::TIMELINE.row([room.nid.into(), pos.into(), event.nid.into()]));
        writer.head.forward_extremities = vec![(event.nid, event.pdu.event_id.clone())];
        writer.head.depth = i64::try_from(event.pdu.depth).unwrap_or(i64::MAX);
        let redacts = event.redacts;
        let stored = Arc::new(StoredEvent::new(
            event.nid,
            room.nid,
            Some(pos),
            state_pos,
            event.auth_depth,
            event.key.as_ref().map(|key| key.nid),
            event.pdu,
            event.replaces,
            None,
        ));
        if let Some(relation) = relations::row(&stored, pos) {
            write.push(relation);
        }
        if let Some(redacts) = redacts {
            effects.redacted.push((pos, Arc::new(redacts.event.redacted(redacts.left, Arc::clone(&stored)))));
        }
        effects.events.push((pos, stored));
        pos.0 += 1;
    }
    let last = Position(pos.0 - 1);
    let state_hash = view.state.hash().to_bytes().to_vec();
    if writer.head.changes - writer.head.saved_changes >= checkpoints::distance(view.state.len()) {
        writer.head.saved_changes = writer.head.changes;
        let blob = checkpoint::encode(view.state.entries());
        write.push(states::STATE_CHECKPOINT.row([
            room.nid.into(),
            last.into(),
            writer.head.changes.into(),
            state_hash.clone().into(),
            blob.into(),
        ]));
        rooms.unthinned.add(room.nid);
    }
    let (joined, invited) = (number(view.state.joined()), number(view.state.invited()));
    let heroes = heroes_changed.then(|| pack(view.heroes.events()));
    drop(view_guard);
    // In this order: for a redacted event that was queued just now, the redacted form counts.
    for (pos, event) in effects.events.iter().chain(&effects.redacted) {
        room.queued.add(*pos, Arc::clone(event));
    }
    let extremities: Vec<EventNid> = writer.head.forward_extremities.iter().map(|(nid, _)| *nid).collect();
    let [name, topic, avatar, alias, encryption, room_type, join_rule, history, guests] = columns.texts;
    write.push(room_heads::ROOM_HEAD.row([
        room.nid.into(),
        last.into(),
        writer.head.depth.into(),
        pack(&extremities).into(),
        writer.head.state_pos.into(),
        state_hash.into(),
        writer.head.bump_pos.into(),
        joined.into(),
        invited.into(),
        name.into(),
        topic.into(),
        avatar.into(),
        alias.into(),
        encryption.into(),
        room_type.into(),
        join_rule.into(),
        history.into(),
        guests.into(),
        columns.federates.into(),
        heroes.into(),
    ]));
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
    Ok(with_effects(write, rooms, effects, last))
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn event_row(event: &Pending, room: &Room, pos: Position, state_pos: Position) -> crate::store::Row {
    events::EVENT.row([
        event.nid.into(),
        event.pdu.event_id.as_str().into(),
        room.nid.into(),
        event.event_type.nid.into(),
        event.key.as_ref().map(|key| key.nid).into(),
        event.sender.nid.into(),
        Some(pos).into(),
        i64::try_from(event.pdu.depth).unwrap_or(i64::MAX).into(),
        i64::try_from(event.pdu.origin_server_ts).unwrap_or(i64::MAX).into(),
        event.auth_depth.into(),
        state_pos.into(),
        PLAIN.into(),
        pack(&event.prev).into(),
        pack(&event.auth).into(),
    ])
}

fn member_entry(event: &Pending, membership: Membership, pos: Position, room: crate::store::RoomNid) -> MemberEntry {
    let invite_state = event.invite_state.as_deref().map(Arc::from);
    MemberEntry { room, membership, event_nid: event.nid, pos, forgotten: false, invite_state }
}

fn with_effects(write: Write, rooms: &Rooms, effects: Effects, last: Position) -> Write {
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
        effects.room.publish(&effects.events);
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
            bus.mark_user_in(user, room, last);
        }
        bus.mark_room(room, last);
    })
}

impl Rooms {
    fn register_shared(&self, room: &Arc<Room>) {
        let mut registry = self.registry.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        registry.by_id.insert(room.room_id.clone(), Arc::clone(room));
        registry.by_nid.insert(room.nid, Arc::clone(room));
    }
}
