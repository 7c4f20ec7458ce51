//! Reading a log back from storage: a checkpoint, then the rows after it.
//!
//! Promise: a log comes out only if every row follows on the one before it. A last row that is missing
//! leaves no such trace; for that, compare [`StateLog::hash`] with the hash in the room's head.

use std::collections::BTreeMap;

use super::{Change, LogRow, StateEntry, StateHash, StateHashKey, StateLog, overlay};
use crate::ids::{KeyNid, Position};

/// A stored state, from which a log can start without the rows before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub pos: Position,
    /// The hash that was stored beside the entries, not one computed from them.
    pub hash: StateHash,
    /// The entries, sorted by key.
    pub entries: Vec<(KeyNid, StateEntry)>,
}

/// Errors of loading stored state. Each of these is corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("the change of state key {} at {} follows on another event than the one before it", key.0, pos.0)]
    PrevEventDiffers { key: KeyNid, pos: Position },
    #[error("the change of state key {} at {} is not in the order of positions", key.0, pos.0)]
    OutOfOrder { key: KeyNid, pos: Position },
    #[error("the checkpoint's entries do not have the hash it was stored with")]
    HashDiffers,
    #[error("the checkpoint holds state key {} twice, out of order, or from after the checkpoint", .0.0)]
    BadEntry(KeyNid),
}

impl StateLog {
    /// The log of a room from a stored state and the rows after it, oldest first.
    ///
    /// # Errors
    /// Fails if the entries are not the ones that were stored, or if the rows do not follow on them.
    pub fn from_checkpoint(
        secret: StateHashKey,
        checkpoint: Checkpoint,
        rows: impl IntoIterator<Item = LogRow>,
    ) -> Result<Self, LoadError> {
        let Checkpoint { pos, hash, entries } = checkpoint;
        let mut last_key = None;
        for (key, entry) in &entries {
            if last_key >= Some(*key) || entry.pos > pos {
                return Err(LoadError::BadEntry(*key));
            }
            last_key = Some(*key);
        }
        if StateHash::of(&secret, &entries) != hash {
            return Err(LoadError::HashDiffers);
        }

        let mut log = Self { hash, ..Self::new(secret, pos) };
        for (_, entry) in &entries {
            log.count(None, Some(*entry));
        }
        log.entries = entries;
        log.replay(rows)
    }

    /// Adds stored rows, oldest first, that are newer than everything in the log.
    ///
    /// This is for many rows at once: the sorted array is rebuilt once, not moved for every new key.
    /// It takes the log by value because after an error half of the rows would be in it.
    ///
    /// # Errors
    /// Fails if a row does not follow on the state before it.
    pub fn replay(mut self, rows: impl IntoIterator<Item = LogRow>) -> Result<Self, LoadError> {
        let mut touched = BTreeMap::new();
        for row in rows {
            let LogRow { key, pos, .. } = row;
            let before = touched.get(&key).copied().unwrap_or_else(|| self.get(key));
            if !self.may_follow(pos, before) {
                return Err(LoadError::OutOfOrder { key, pos });
            }
            if before.map(|entry| entry.event_nid) != row.prev_event_nid {
                return Err(LoadError::PrevEventDiffers { key, pos });
            }
            let membership = row.membership;
            let now = row.event_nid.map(|event_nid| StateEntry { event_nid, pos, membership });
            touched.insert(key, now);
            self.record(Change { key, pos, now, before });
        }
        if !touched.is_empty() {
            self.entries = overlay(&self.entries, &touched);
            self.entries.shrink_to_fit();
        }
        Ok(self)
    }
}
