//! The rows: what a database has of a room.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, room_version_rules::RoomVersionRules};

use crate::{
    graph::Extremities,
    ids::{EventNid, KeyNid, Position, SideNid, TimelinePlace},
    pdu::Pdu,
    receive::{Decision, Placing, Redaction, WaitingRedaction},
    redact::redact,
    sides::{self, Side},
    standing::{Flags, StateAt},
    state_log::{LogRow, Membership, StateHash},
};

/// The type and the state key of a state event.
pub(super) type KeyName = (String, String);

/// The room as its database has it.
#[derive(Clone, Debug)]
pub(in super::super) struct Rows {
    pub events: BTreeMap<EventNid, EventRow>,
    pub(super) ids: BTreeMap<OwnedEventId, EventNid>,
    pub(super) keys: BTreeMap<KeyName, KeyNid>,
    /// The missing events that events name or cover, and whether each covers them.
    pub(super) edges: BTreeMap<OwnedEventId, BTreeMap<EventNid, bool>>,
    pub(super) redactions: BTreeMap<OwnedEventId, Vec<WaitingRedaction>>,
    pub(super) sides: BTreeMap<SideNid, SideRow>,
    pub log: Vec<LogRow>,
    pub(super) checkpoints: BTreeMap<Position, (StateHash, Vec<u8>)>,
    pub extremities: Extremities,
    pub pos: Position,
    pub hash: StateHash,
}

#[derive(Clone, Debug)]
pub(in super::super) struct EventRow {
    /// As it is stored: a redacted event in its redacted form.
    pub pdu: Arc<Pdu>,
    pub flags: Flags,
    pub place: Option<TimelinePlace>,
    pub before: StateAt,
    /// The position of the write that brought the event, or its place if it was an outlier before.
    pub pos: Position,
    pub is_redacted: bool,
    /// The target of a redaction, as the event came.
    pub redacts: Option<OwnedEventId>,
    pub(super) key: Option<KeyNid>,
    pub(super) membership: Option<Membership>,
    pub(super) auth: Box<[EventNid]>,
    pub(super) auth_depth: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SideRow {
    pub base_pos: Position,
    pub parent: Option<SideNid>,
    pub ordinal: u32,
    pub hash: StateHash,
    pub delta: Vec<u8>,
}

/// Everything that one decision stores.
pub(in super::super) struct Write {
    pub decision: Decision,
    pub pos: Position,
    pub(super) log: Vec<LogRow>,
    pub(super) checkpoint: Option<(StateHash, Vec<u8>)>,
    pub(super) extremities: Extremities,
    pub(super) hash: StateHash,
}

impl Rows {
    /// A room of which nothing is stored.
    pub fn new() -> Self {
        Self {
            events: BTreeMap::new(),
            ids: BTreeMap::new(),
            keys: BTreeMap::new(),
            edges: BTreeMap::new(),
            redactions: BTreeMap::new(),
            sides: BTreeMap::new(),
            log: Vec::new(),
            checkpoints: BTreeMap::new(),
            extremities: Extremities::default(),
            pos: Position::BEFORE_ALL,
            hash: StateHash::EMPTY,
        }
    }

    /// Stores a decision.
    pub fn commit(&mut self, rules: &RoomVersionRules, write: &Write) {
        let Decision { nid, key, sides, missing, redaction, .. } = &write.decision;
        let pdu = write.decision.event.pdu();
        if let Some(key) = key {
            let state_key = pdu.state_key.clone().expect("only state events have a key");
            self.keys.insert((pdu.event_type.clone(), state_key), *key);
        }
        self.ids.insert(pdu.event_id.clone(), *nid);
        let was_redacted = self.events.insert(*nid, EventRow::of(write)).is_some_and(|row| row.is_redacted);
        if was_redacted || write.decision.redacted_by.is_some() {
            self.redact(rules, *nid);
        }
        self.redactions.remove(&pdu.event_id);
        match redaction {
            Some(Redaction::Applies(target)) => self.redact(rules, *target),
            Some(Redaction::Pending { target, by_power }) => {
                let waiting = self.redactions.entry(target.clone()).or_default();
                waiting.push(WaitingRedaction { nid: *nid, by_power: *by_power });
                waiting.sort_by_key(|redaction| (!redaction.by_power, redaction.nid));
            }
            Some(Redaction::Refused(_)) | None => {}
        }
        for (event_id, covers) in missing {
            *self.edges.entry(event_id.clone()).or_default().entry(*nid).or_default() |= covers;
        }
        self.sides.extend(sides.iter().map(|side| (side.nid, SideRow::of(side))));
        self.log.extend(&write.log);
        self.checkpoints.extend(write.checkpoint.clone().map(|checkpoint| (write.pos, checkpoint)));
        self.extremities = write.extremities.clone();
        (self.pos, self.hash) = (write.pos, write.hash);
    }

    fn redact(&mut self, rules: &RoomVersionRules, nid: EventNid) {
        let row = self.events.get_mut(&nid).expect("a redaction applies to a stored event");
        let json = redact(rules, &row.pdu.json, None).expect("a stored event can be redacted");
        let redacted = Pdu::from_stored(rules, row.pdu.event_id.clone(), json).expect("a redacted event is an event");
        row.pdu = Arc::new(Pdu { rejected: row.pdu.rejected, ..redacted });
        row.is_redacted = true;
    }

    pub fn find(&self, event_id: &EventId) -> Option<&EventRow> {
        self.events.get(self.ids.get(event_id)?)
    }

    /// Returns whether the event is part of the room's graph, and not only known by itself.
    pub fn knows(&self, event_id: &EventId) -> bool {
        self.find(event_id).is_some_and(|row| !row.flags.contains(Flags::OUTLIER))
    }

    /// The events of the room's graph in the order of their writes.
    pub fn in_order(&self) -> Vec<&EventRow> {
        let mut rows: Vec<_> = self.events.values().filter(|row| !row.flags.contains(Flags::OUTLIER)).collect();
        rows.sort_by_key(|row| row.pos);
        rows
    }

    /// The IDs of the forward extremities.
    pub fn extremity_ids(&self) -> BTreeSet<OwnedEventId> {
        self.extremities.iter().map(|extremity| extremity.event_id.clone()).collect()
    }
}

impl EventRow {
    fn of(write: &Write) -> Self {
        let decision = &write.decision;
        let mut pdu = decision.event.pdu().clone();
        pdu.rejected = decision.flags.contains(Flags::REJECTED);
        Self {
            pdu: Arc::new(pdu),
            flags: decision.flags,
            place: match decision.placing {
                Placing::EndOfLine => Some(TimelinePlace::on_line(write.pos)),
                Placing::Gap(place) => Some(place),
                Placing::Nowhere => None,
            },
            before: decision.before,
            pos: write.pos,
            is_redacted: false,
            redacts: decision.event.pdu().redacts.clone(),
            key: decision.key,
            membership: decision.membership,
            auth: decision.auth.clone().into(),
            auth_depth: decision.auth_depth,
        }
    }
}

impl SideRow {
    fn of(side: &Side) -> Self {
        Self {
            base_pos: side.base_pos,
            parent: side.parent.as_ref().map(|parent| parent.nid),
            ordinal: side.ordinal,
            hash: side.hash,
            delta: sides::encode(&side.delta),
        }
    }
}
