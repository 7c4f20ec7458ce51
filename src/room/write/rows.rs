//! Turns built events into rows, and into changes of memory for after their commit.

use std::sync::Arc;

use sabha_federation::{
    standing::{Flags, Standing, StateAt},
    state_log::checkpoint,
};

use super::{
    Pending, RoomWriter,
    changes::StateChanges,
    outcome::{Built, Outcome, Placing, StateBefore},
    queued::Links,
};
use crate::{
    room::{
        Head, Room, RoomView, Rooms, applied::Effects, checkpoints, listing::columns::bumps, read::relations,
        write::txn::TxnKey,
    },
    store::{
        Error, EventNid, Position, RoomNid, Row, TimelinePlace, Write, events,
        ids::{pack, pack_positions},
        log::Touch,
        room_heads, states, timelines,
    },
};

/// The rows of a plain event: itself, its JSON and its place. The head and a transaction ID come once.
const ROWS_PER_EVENT: usize = 3;

/// A write of a room while it is made: its rows, the room in memory, and what else memory learns after the commit.
pub(super) struct Making<'a> {
    pub(super) room: &'a Room,
    pub(super) head: &'a mut Head,
    pub(super) view: &'a mut RoomView,
    pub(super) write: Write,
    pub(super) effects: Effects,
    pub(super) changes: StateChanges,
    /// Set if the write has a jump, and so a checkpoint of its own.
    pub(super) has_jumped: bool,
    /// Set if the write changes the number of times that verdicts changed.
    pub(super) has_rejected_anew: bool,
}

pub(super) fn apply(writer: &mut RoomWriter<'_>, first: Position, txn: Option<TxnKey>) -> Result<Write, Error> {
    let rooms = writer.rooms;
    let room = Arc::clone(&writer.room);
    let pending = std::mem::take(&mut writer.pending);
    let mut write = Write::new(std::mem::take(&mut writer.extra)).in_lineage(room.lineage.clone());
    write.reserve(ROWS_PER_EVENT * pending.len() + 2, 2 * pending.len() + 1);
    let effects = Effects::new(&room, &rooms.events, writer.head.last_pos, pending.len());
    let mut view = room.view_mut();
    // Readers ask for the committed position, so changes after it must stay in memory.
    view.state.keep_since(rooms.db.committer().published());
    let mut making = Making {
        room: &room,
        head: &mut writer.head,
        view: &mut view,
        write,
        effects,
        changes: StateChanges::default(),
        has_jumped: false,
        has_rejected_anew: false,
    };
    let mut pos = first;
    if let Some(rework) = writer.rework.take() {
        making.rework(*rework, pos)?;
        pos.0 += 1;
    }
    for Pending { built, outcome } in pending {
        making.add(built, outcome, pos)?;
        pos.0 += 1;
    }
    if making.needs_checkpoint() {
        making.store_state();
        rooms.unthinned.add(room.nid);
    }
    let extremities = writer.extremities.take();
    // Events that are only stored, such as outliers, leave the head as it is. A new room needs one: later writes change it.
    let writes_head = making.changes_head() || writer.is_new_room || extremities.is_some();
    if let Some(extremities) = extremities {
        making.head.forward_extremities = extremities;
    }
    if writes_head {
        making.store_head(writer.is_new_room);
    }
    let Making { mut write, mut effects, .. } = making;
    drop(view);
    for (pos, nid, standing) in &effects.restated {
        room.queued.restate(*pos, *nid, *standing);
    }
    effects.last = writer.head.last_pos;
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
    if pos > first {
        rooms.memory.queue(first, Position(pos.0 - 1), effects);
    }
    Ok(write)
}

impl Making<'_> {
    /// Adds an event with everything that follows from it.
    fn add(&mut self, built: Built, outcome: Outcome, pos: Position) -> Result<(), Error> {
        let room = self.room;
        self.write.set_position(pos);
        built.event_type.write_if_new(&mut self.write);
        built.sender.write_if_new(&mut self.write);
        let standing = standing(&outcome, pos, self.head);
        // Usually a change of the state brings it.
        if let Some(key) = &built.key
            && outcome.changes.iter().all(|change| change.key.nid != key.nid)
        {
            key.write_if_new(&mut self.write);
        }
        self.add_graph(&built, &outcome, standing.place);
        if outcome.placing == Placing::EndOfLine || !outcome.changes.is_empty() {
            self.head.last_pos = pos;
        }
        for change in outcome.changes {
            self.change_state(&change, pos, Some(built.nid))?;
        }
        if outcome.placing == Placing::EndOfLine && bumps(&built.pdu().event_type) {
            self.head.bump_pos = pos;
        }
        if outcome.flags.contains(Flags::OURS) && outcome.placing == Placing::EndOfLine {
            self.head.our_pos = pos;
        }
        if let Some(redacts) = &outcome.redacts {
            self.changes.redact(&self.view.state, redacts);
            self.write.touch(Touch::Redacted { room: room.nid, event: redacts.event.nid, by: built.nid });
            self.write.push(
                events::EventJsonColumns { event_nid: redacts.event.nid, json: Arc::clone(&redacts.left.json) }.row(),
            );
            self.write.push(events::RedactionColumns { event_nid: redacts.event.nid, redaction_nid: built.nid }.row());
        }
        if let Some(because) = built.redacted_at_once() {
            self.write.touch(Touch::Redacted { room: room.nid, event: built.nid, by: because.nid });
            self.write.push(events::RedactionColumns { event_nid: built.nid, redaction_nid: because.nid }.row());
        }
        self.add_event(&built, standing, outcome.stored_before.then_some(pos));
        if outcome.is_extremity {
            self.head.depth = self.head.depth.max(built.depth());
        }
        let (stored, links) = built.into_stored(room.nid, standing);
        let stored = Arc::new(stored);
        let covers = outcome.missing.into_iter().filter(|edge| edge.covers).map(|edge| edge.missing).collect();
        let links = Links { covers, redacts: outcome.pending_redaction, ..links };
        room.queued.add(pos, Arc::clone(&stored), links);
        if let Some(relation) = relations::row(&stored) {
            self.write.push(relation);
        }
        if let Some(redacts) = outcome.redacts {
            let left = Arc::new(redacts.event.redacted(redacts.left, Arc::clone(&stored)));
            // After the event itself, which may have been queued just now: the redacted form counts.
            room.queued.add_redacted(pos, Arc::clone(&left));
            self.effects.redacted.push((pos, left));
        }
        self.effects.events.push((pos, stored));
        Ok(())
    }

    /// Adds the rows of the event itself. `replaced_at` is the position of the write if the event was stored before.
    fn add_event(&mut self, built: &Built, standing: Standing, replaced_at: Option<Position>) {
        let room = self.room.nid;
        let sub = standing.place.map_or(0, |place| place.sub);
        self.write.touch(Touch::Event { room, event: built.nid, sub, flags: standing.flags.bits() });
        let event = event_row(built, room, standing);
        let json = events::EventJsonColumns { event_nid: built.nid, json: Arc::clone(&built.pdu().json) }.row();
        if let Some(pos) = replaced_at {
            self.effects.restated.push((pos, built.nid, standing));
            self.write.push(event);
            self.write.push(json);
        } else {
            self.write.push(event.of_new_key());
            self.write.push(json.of_new_key());
        }
        if let Some(TimelinePlace { pos, sub }) = standing.place {
            self.write.push(timelines::TimelineColumns { room_nid: room, pos, sub, event_nid: built.nid }.row());
        }
    }

    /// Returns whether so much of the state has changed that the next reader should not start from the last checkpoint.
    fn needs_checkpoint(&self) -> bool {
        self.head.changes - self.head.saved_changes >= checkpoints::distance(self.view.state.len())
    }

    /// Adds the checkpoint of the state as it is now.
    fn store_state(&mut self) {
        self.head.saved_changes = self.head.changes;
        self.write.push(
            states::StateCheckpointColumns {
                room_nid: self.room.nid,
                pos: self.head.last_pos,
                changes: self.head.changes,
                hash: self.view.state.hash().to_bytes().to_vec(),
                blob: checkpoint::encode(self.view.state.entries()),
                before: None,
            }
            .row(),
        );
    }

    fn changes_head(&self) -> bool {
        self.head.last_pos > self.effects.last
            || self.has_jumped
            || self.has_rejected_anew
            || !self.changes.columns.is_unchanged()
    }

    fn store_head(&mut self, is_new_room: bool) {
        let extremities: Vec<EventNid> = self.head.forward_extremities.iter().map(|extremity| extremity.nid).collect();
        let StateChanges { columns, heroes_changed } = std::mem::take(&mut self.changes);
        let [name, topic, avatar, alias, encryption, room_type, join_rule, history, guests] = columns.texts;
        let row = room_heads::RoomHeadColumns {
            room_nid: self.room.nid,
            last_pos: self.head.last_pos,
            depth: self.head.depth,
            extremities: pack(&extremities),
            state_pos: self.head.state_pos,
            state_hash: self.view.state.hash().to_bytes().to_vec(),
            jumps: self.has_jumped.then(|| pack_positions(&self.view.jumps)),
            our_pos: self.head.our_pos,
            reject_epoch: self.head.reject_epoch,
            bump_pos: self.head.bump_pos,
            joined: number(self.view.state.joined()),
            invited: number(self.view.state.invited()),
            name,
            topic,
            avatar,
            alias,
            encryption,
            room_type,
            join_rule,
            history,
            guests,
            federates: columns.federates,
            heroes: heroes_changed.then(|| pack(self.view.heroes.events())),
        }
        .row();
        self.write.push(if is_new_room { row.of_new_key() } else { row });
    }
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
        event_id: event.pdu().event_id.as_str().into(),
        room_nid: room,
        type_nid: event.event_type.nid,
        key_nid: event.key.as_ref().map(|key| key.nid),
        sender_nid: event.sender.nid,
        pos: place.map(|place| place.pos),
        sub: place.map_or(0, |place| place.sub),
        depth: event.depth(),
        ts: event.pdu().origin_server_ts,
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
