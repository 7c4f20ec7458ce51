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

use ruma::{OwnedEventId, RoomId, room_version_rules::RoomVersionRules};

use crate::{
    graph::NoneLeft,
    held::Held,
    ids::{EventNid, KeyNid, Position, SideNid},
    pdu::Pdu,
    receive::{Decision, HeadView, RoomFacts},
    resolve::Resolutions,
    sides::{self, Side},
    standing::StateAt,
    state_log::{Checkpoint, CodecError, LoadError, LogRow, StateHashKey, StateLog, checkpoint},
};

mod read;
mod rows;

use self::rows::{KeyName, SideRow};
pub(super) use self::{
    read::NotStored,
    rows::{EventRow, Rows, Write},
};

/// The number of changes of the log between two checkpoints. Small, so that a simulated room has several.
const CHECKPOINT_EVERY: usize = 8;

/// The memory for results of resolutions: more than one room needs.
const RESOLUTIONS_BYTES: u64 = 1024 * 1024;

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
