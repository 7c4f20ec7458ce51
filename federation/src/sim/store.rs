//! The store of a server: the room's rows, and the room in memory that is made of them.
//!
//! [`Rows`] are what a database has: each commit adds to them, and nothing else changes them. [`Memory`] is the room of a
//! running server, ahead of the rows by what is queued. A crash drops it, and it is loaded from the rows again: sides
//! from their blobs, and the log from its last checkpoint and the changes since.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use ruma::{EventId, OwnedEventId, RoomId, room_version_rules::RoomVersionRules};

use crate::{
    graph::{Extremities, NoneLeft},
    held::Held,
    ids::{EventNid, KeyNid, Position, SideNid, TimelinePlace},
    pdu::Pdu,
    receive::{Decision, HeadView, Placing, Redaction, RoomFacts, WaitingRedaction},
    redact::redact,
    resolve::Resolutions,
    sides::{self, Side},
    standing::{Flags, StateAt},
    state_log::{Checkpoint, CodecError, LoadError, LogRow, Membership, StateHash, StateHashKey, StateLog, checkpoint},
};

mod read;

pub(super) use self::read::NotStored;

/// The number of changes of the log between two checkpoints. Small, so that a simulated room has several.
const CHECKPOINT_EVERY: usize = 8;

/// The memory for results of resolutions: more than one room needs.
const RESOLUTIONS_BYTES: u64 = 1024 * 1024;

type KeyName = (String, String);

/// The room as its database has it.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub events: BTreeMap<EventNid, EventRow>,
    ids: BTreeMap<OwnedEventId, EventNid>,
    keys: BTreeMap<KeyName, KeyNid>,
    /// The missing events that events name or cover, and whether each covers them.
    edges: BTreeMap<OwnedEventId, BTreeMap<EventNid, bool>>,
    redactions: BTreeMap<OwnedEventId, Vec<WaitingRedaction>>,
    sides: BTreeMap<SideNid, SideRow>,
    pub log: Vec<LogRow>,
    checkpoints: BTreeMap<Position, (StateHash, Vec<u8>)>,
    pub extremities: Extremities,
    pub pos: Position,
    pub hash: StateHash,
}

#[derive(Clone, Debug)]
pub(super) struct EventRow {
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
    key: Option<KeyNid>,
    membership: Option<Membership>,
    auth: Box<[EventNid]>,
    auth_depth: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct SideRow {
    base_pos: Position,
    parent: Option<SideNid>,
    ordinal: u32,
    hash: StateHash,
    delta: Vec<u8>,
}

/// Everything that one decision stores.
pub(super) struct Write {
    pub decision: Decision,
    pub pos: Position,
    log: Vec<LogRow>,
    checkpoint: Option<(StateHash, Vec<u8>)>,
    extremities: Extremities,
    hash: StateHash,
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

/// Rows that do not make a room.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error(transparent)]
    Log(#[from] LoadError),
    #[error(transparent)]
    Blob(#[from] CodecError),
    #[error("the state has not the hash of the room's head")]
    Hash,
    #[error("side {0:?} has no parent")]
    NoParent(SideNid),
}

/// The room of a running server.
pub(super) struct Memory {
    pub rows: Rows,
    pub log: StateLog,
    sides: BTreeMap<SideNid, Arc<Side>>,
    secret: StateHashKey,
    create: Option<EventNid>,
    resolutions: Resolutions,
    /// The keys that have a number, stored or not.
    keys: Mutex<BTreeMap<KeyName, KeyNid>>,
    last_number: AtomicI64,
}

impl Memory {
    pub fn load(rows: Rows, secret: &StateHashKey) -> Result<Self, Damage> {
        let log = match rows.checkpoints.last_key_value() {
            None => StateLog::new(secret.clone(), Position::BEFORE_ALL).replay(rows.log.iter().copied())?,
            Some((&pos, (hash, blob))) => {
                let checkpoint = Checkpoint { pos, hash: *hash, entries: checkpoint::decode(blob)? };
                let since = rows.log.iter().copied().filter(|row| row.pos > pos);
                StateLog::from_checkpoint(secret.clone(), checkpoint, since)?
            }
        };
        if log.hash() != rows.hash {
            return Err(Damage::Hash);
        }
        let mut sides: BTreeMap<SideNid, Arc<Side>> = BTreeMap::new();
        for (&nid, row) in &rows.sides {
            let parent = |parent| sides.get(&parent).cloned().ok_or(Damage::NoParent(nid));
            let parent = row.parent.map(parent).transpose()?;
            let SideRow { base_pos, ordinal, hash, .. } = *row;
            sides.insert(
                nid,
                Arc::new(Side { nid, base_pos, parent, ordinal, hash, delta: sides::decode(&row.delta)? }),
            );
        }
        let numbers = [
            rows.events.last_key_value().map(|(nid, _)| nid.0),
            rows.sides.last_key_value().map(|(nid, _)| nid.0),
            rows.keys.values().map(|nid| nid.0).max(),
        ];
        Ok(Self {
            log,
            sides,
            secret: secret.clone(),
            create: rows.events.iter().find(|(_, row)| row.pdu.is_state("m.room.create", "")).map(|(nid, _)| *nid),
            resolutions: Resolutions::new(RESOLUTIONS_BYTES),
            keys: Mutex::new(rows.keys.clone()),
            last_number: AtomicI64::new(numbers.into_iter().flatten().max().unwrap_or_default()),
            rows,
        })
    }

    /// Takes a decision into memory, and returns its write.
    ///
    /// # Errors
    /// When no forward extremity would be left.
    pub fn take(&mut self, rules: &RoomVersionRules, decision: Decision) -> Result<Write, NoneLeft> {
        let pos = Position(self.rows.pos.0 + 1);
        let mut extremities = self.rows.extremities.clone();
        if decision.extremity.is_some() || !decision.covers.is_empty() {
            extremities.accept(decision.extremity.clone(), &decision.covers)?;
        }
        let mut log = Vec::new();
        for (key, held) in &decision.changes {
            let change =
                self.log.change(*key, pos, held.map(|held| held.event_nid), held.and_then(|held| held.membership));
            let event_nid = change.now.map(|entry| entry.event_nid);
            let membership = change.now.and_then(|entry| entry.membership);
            let prev_event_nid = change.before.map(|entry| entry.event_nid);
            log.push(LogRow { key: *key, pos, event_nid, membership, prev_event_nid });
            self.log.apply(change);
        }
        let is_due = (self.rows.log.len() + log.len()) / CHECKPOINT_EVERY > self.rows.log.len() / CHECKPOINT_EVERY;
        let checkpoint = is_due.then(|| (self.log.hash(), checkpoint::encode(self.log.entries())));
        self.sides.extend(decision.sides.iter().map(|side| (side.nid, Arc::clone(side))));
        if decision.event.pdu().is_state("m.room.create", "") {
            self.create = Some(decision.nid);
        }
        let write = Write { decision, pos, log, checkpoint, extremities, hash: self.log.hash() };
        self.rows.commit(rules, &write);
        Ok(write)
    }

    pub fn head(&self) -> HeadView<'_> {
        HeadView {
            extremities: &self.rows.extremities,
            state_pos: self.rows.pos,
            hash: self.rows.hash,
            reject_epoch: 0,
            partial: false,
        }
    }

    pub fn facts<'a>(&'a self, rules: &'a RoomVersionRules, room_id: &'a RoomId) -> RoomFacts<'a> {
        RoomFacts { rules, room_id, create: self.create, secret: &self.secret, resolutions: &self.resolutions }
    }

    /// The events of a state, by brute force.
    pub fn events_of(&self, state: StateAt) -> BTreeSet<OwnedEventId> {
        let side = state.side.map(|nid| Arc::clone(&self.sides[&nid]));
        let base = side.as_ref().map_or(state.pos, |side| side.base_pos);
        let mut held: BTreeMap<KeyNid, Held> = self.whole_at(base).into_iter().collect();
        for (key, value) in side.iter().flat_map(|side| side.against_base().iter().collect::<Vec<_>>()) {
            match value {
                Some(value) => drop(held.insert(key, value)),
                None => drop(held.remove(&key)),
            }
        }
        held.values().map(|held| self.rows.events[&held.event_nid].pdu.event_id.clone()).collect()
    }

    /// The event that holds a key in the room's current state.
    pub fn current(&self, event_type: &str, state_key: &str) -> Option<Arc<Pdu>> {
        let key = self.rows.keys.get(&(event_type.to_owned(), state_key.to_owned()))?;
        self.log.get(*key).map(|entry| Arc::clone(&self.rows.events[&entry.event_nid].pdu))
    }

    fn next_number(&self) -> i64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }
}
