//! Turns built events into rows, and into changes of memory for after their commit.

use std::sync::Arc;

use sabha_federation::{
    standing::{Standing, StateAt},
    state_log::checkpoint,
};

use super::{
    Pending, RoomWriter,
    changes::{StateChanges, change_member, change_remote_member},
    outcome::{Built, ChangedMember, Outcome, Placing, StateBefore},
};
use crate::{
    room::{
        Head, Room, Rooms, applied::Effects, checkpoints, event::StoredEvent, listing::columns::bumps, read::relations,
        write::txn::TxnKey,
    },
    store::{
        Error, EventNid, Position, RoomNid, Row, TimelinePlace, Write, events, ids::pack, log::Touch, room_heads,
        states, timelines,
    },
};

/// The rows of a plain event: itself, its JSON and its place. The head and a transaction ID come once.
const ROWS_PER_EVENT: usize = 3;

pub(super) fn apply(writer: &mut RoomWriter<'_>, first: Position, txn: Option<TxnKey>) -> Result<Write, Error> {
    let rooms = writer.rooms;
    let room = Arc::clone(&writer.room);
    let pending = std::mem::take(&mut writer.pending);
    let mut write = Write::new(std::mem::take(&mut writer.extra)).in_lineage(room.lineage.clone());
    write.reserve(ROWS_PER_EVENT * pending.len() + 2, 2 * pending.len() + 1);
    let mut effects = Effects {
        room: Arc::clone(&room),
        cache: rooms.events.clone(),
        events: Vec::with_capacity(pending.len()),
        redacted: Vec::new(),
        members: Vec::new(),
        remote_members: Vec::new(),
        txn: None,
        last: writer.head.last_pos,
    };
    let mut changes = StateChanges::default();
    let mut view_guard = room.view_mut();
    let view = &mut *view_guard;
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
            let before = changes.apply(&mut write, (&room, view), &change, pos);
            match &change.member {
                Some(ChangedMember::Local(member)) => {
                    let by = (pos, built.nid);
                    effects.members.push(change_member(&mut write, &room, member, change.to.as_ref(), by));
                }
                Some(ChangedMember::Remote(user)) => {
                    let now = change.to.as_ref().and_then(|to| to.membership);
                    let counts = writer.head.joined_by_server.as_mut();
                    effects.remote_members.extend(change_remote_member(
                        &mut write,
                        &room,
                        counts,
                        user,
                        (before, now),
                        pos,
                    )?);
                }
                None => {}
            }
            writer.head.state_pos = pos;
            writer.head.changes += 1;
        }
        if outcome.placing == Placing::EndOfLine && bumps(&built.pdu.event_type) {
            writer.head.bump_pos = pos;
        }
        if let Some(redacts) = &outcome.redacts {
            changes.redact(&view.state, redacts);
            write.touch(Touch::Redacted { room: room.nid, event: redacts.event.nid, by: built.nid });
            write.push(
                events::EventJsonColumns { event_nid: redacts.event.nid, json: Arc::clone(&redacts.left.json) }.row(),
            );
            write.push(events::RedactionColumns { event_nid: redacts.event.nid, redaction_nid: built.nid }.row());
        }
        let sub = standing.place.map_or(0, |place| place.sub);
        write.touch(Touch::Event { room: room.nid, event: built.nid, sub, flags: standing.flags.bits() });
        write.push(event_row(&built, room.nid, standing));
        write.push(
            events::EventJsonColumns { event_nid: built.nid, json: Arc::clone(&built.pdu.json) }.row().of_new_key(),
        );
        if let Some(place) = standing.place {
            write.push(
                timelines::TimelineColumns { room_nid: room.nid, pos: place.pos, sub: place.sub, event_nid: built.nid }
                    .row(),
            );
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
    if writer.head.changes - writer.head.saved_changes >= checkpoints::distance(view.state.len()) {
        writer.head.saved_changes = writer.head.changes;
        let blob = checkpoint::encode(view.state.entries());
        write.push(
            states::StateCheckpointColumns {
                room_nid: room.nid,
                pos: last,
                changes: writer.head.changes,
                hash: state_hash.clone(),
                blob,
                before: None,
            }
            .row(),
        );
        rooms.unthinned.add(room.nid);
    }
    let (joined, invited) = (number(view.state.joined()), number(view.state.invited()));
    let heroes = changes.heroes_changed.then(|| pack(view.heroes.events()));
    drop(view_guard);
    // In this order: for a redacted event that was queued just now, the redacted form counts.
    for (pos, event) in effects.events.iter().chain(&effects.redacted) {
        room.queued.add(*pos, Arc::clone(event));
    }
    let is_news = last > effects.last;
    effects.last = last;
    let extremities = writer.extremities.take();
    // Events that are only stored, such as outliers, leave the head as it is. A new room needs one: later writes change it.
    if is_news || writer.is_new_room || extremities.is_some() || !changes.columns.is_unchanged() {
        if let Some(extremities) = extremities {
            writer.head.forward_extremities = extremities;
        }
        let extremities: Vec<EventNid> = writer.head.forward_extremities.iter().map(|(nid, _)| *nid).collect();
        let [name, topic, avatar, alias, encryption, room_type, join_rule, history, guests] = changes.columns.texts;
        let head = room_heads::RoomHeadColumns {
            room_nid: room.nid,
            last_pos: last,
            depth: writer.head.depth,
            extremities: pack(&extremities),
            state_pos: writer.head.state_pos,
            state_hash,
            jumps: None,
            our_pos: writer.is_new_room.then_some(last),
            reject_epoch: writer.is_new_room.then_some(writer.head.reject_epoch),
            bump_pos: writer.head.bump_pos,
            joined,
            invited,
            name,
            topic,
            avatar,
            alias,
            encryption,
            room_type,
            join_rule,
            history,
            guests,
            federates: changes.columns.federates,
            heroes,
        }
        .row();
        write.push(if writer.is_new_room { head.of_new_key() } else { head });
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
    // Last: nothing can fail any more.
    if !effects.events.is_empty() {
        let end = Position(pos.0 - 1);
        rooms.memory.queue(first, end, effects);
    }
    Ok(write)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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

fn event_row(event: &Built, room: RoomNid, Standing { flags, place, before }: Standing) -> Row {
    events::EventColumns {
        event_nid: event.nid,
        event_id: event.pdu.event_id.as_str().into(),
        room_nid: room,
        type_nid: event.event_type.nid,
        key_nid: event.key.as_ref().map(|key| key.nid),
        sender_nid: event.sender.nid,
        pos: place.map(|place| place.pos),
        sub: place.map_or(0, |place| place.sub),
        depth: event.depth(),
        ts: event.pdu.origin_server_ts,
        auth_depth: event.auth_depth,
        state_pos: before.pos,
        side_nid: before.side,
        flags: flags.bits(),
        prev: pack(&event.prev),
        auth: pack(&event.auth),
    }
    .row()
}

impl Rooms {
    fn register_shared(&self, room: &Arc<Room>) {
        let mut registry = self.registry.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        registry.insert(room);
    }
}
