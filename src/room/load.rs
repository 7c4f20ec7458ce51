//! Loading a room from the database: its head, and its current and earlier state.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicI64},
    },
};

use ruma::{EventId, RoomId};
use sabha_federation::{
    graph::{Extremities, Extremity},
    standing::{Flags, Standing},
    state_log::{
        Checkpoint, LogRow, Lookup, Membership, StateEntry, StateHash, StateHashKey, StateLog, checkpoint, merge,
    },
};

use super::{
    Head, Room, RoomView, Rooms, absent_keys::AbsentKeys, events::rules_of, jumps::entry_in, listing::heroes::Heroes,
    ring::Ring, write::queued::Queued,
};
use crate::store::{
    Error, EventNid, KeyNid, Lineage, Position, Reader, RoomNid, events,
    ids::{unpack, unpack_positions},
    room_heads::RoomRow,
    states::{self as rows, CheckpointRow, StateLogRow},
};

/// The rows of a room, from which it is made.
pub(super) struct RoomRows {
    pub(super) row: RoomRow,
    /// The latest checkpoint.
    pub(super) checkpoint: Option<CheckpointRow>,
    /// The changes of state since then.
    pub(super) changes: Vec<StateLogRow>,
    /// The forward extremities that are stored.
    pub(super) extremities: Vec<StoredExtremity>,
}

/// A forward extremity, as it is stored.
pub(super) struct StoredExtremity {
    nid: EventNid,
    event_id: String,
    depth: i64,
    ts: i64,
    standing: Standing,
    is_state: bool,
}

impl StoredExtremity {
    pub(super) fn of(row: &events::EventRow) -> Self {
        Self {
            nid: EventNid(row.event_nid),
            event_id: row.event_id.clone(),
            depth: row.depth,
            ts: row.ts,
            standing: row.standing(),
            is_state: row.key_nid.is_some(),
        }
    }

    /// # Errors
    /// [`Error::Damaged`] if the event cannot be one.
    fn read(self, room_id: &RoomId) -> Result<Extremity, Error> {
        let Self { nid, event_id, depth, ts, standing: Standing { flags, before, .. }, .. } = self;
        if !flags.is_accepted() {
            return Err(Error::damaged("room", format!("{room_id}: a forward extremity was not accepted")));
        }
        let event_id = EventId::parse(&event_id).map_err(|error| Error::damaged("event ID", error))?;
        let after = (!flags.contains(Flags::TIP)).then_some(before);
        Ok(Extremity { nid, event_id, depth, ts, ours: flags.contains(Flags::OURS), after })
    }
}

/// Reads a room. The head is read first, and the other rows up to it: these stay as they are, so they fit together while
/// another process writes. This process does not write to a room that is not in memory.
///
/// # Errors
/// [`Error::Damaged`] when the rows contradict each other: a missing row is never taken for "empty".
pub(super) async fn load(rooms: &Rooms, reader: &mut Reader<'_>, row: RoomRow) -> Result<Room, Error> {
    let (nid, last_pos) = (RoomNid(row.room_nid), Position(row.last_pos));
    let (checkpoint, changes) = state_rows(reader, nid, last_pos).await?;
    let extremities = events::events(&mut reader.conn(), &unpack(&row.extremities)?).await?;
    let extremities = extremities.iter().map(StoredExtremity::of).collect();
    from_rows(rooms, RoomRows { row, checkpoint, changes, extremities })
}

/// Makes the room from its rows.
///
/// # Errors
/// As [`load`].
pub(super) fn from_rows(rooms: &Rooms, rows: RoomRows) -> Result<Room, Error> {
    let RoomRows { row, checkpoint, changes, extremities: stored } = rows;
    let nid = RoomNid(row.room_nid);
    let (version, rules) = rules_of(&row.version)?;
    let room_id = RoomId::parse(&row.room_id).map_err(|error| Error::damaged("room ID", error))?;
    let last_pos = Position(row.last_pos);
    let LoadedState { state, changes, saved_changes } = state_of(&rooms.state_hash_key, checkpoint, changes)?;
    if state.hash().to_bytes().as_slice() != row.state_hash {
        return Err(Error::damaged("room state", format!("{room_id}: the log does not lead to the stored hash")));
    }
    let extremities = unpack(&row.extremities)?;
    let mut stored: BTreeMap<EventNid, StoredExtremity> =
        stored.into_iter().map(|stored| (stored.nid, stored)).collect();
    let is_without_state = |stored: &&StoredExtremity| stored.is_state && !stored.standing.flags.contains(Flags::TIP);
    let without_state = stored.values().filter(is_without_state).map(|stored| stored.nid).collect();
    // In the order in which they became it.
    let forward_extremities = extremities.iter().filter_map(|nid| stored.remove(nid));
    let forward_extremities: Extremities =
        forward_extremities.map(|stored| stored.read(&room_id)).collect::<Result<_, _>>()?;
    if forward_extremities.is_empty() || forward_extremities.len() != extremities.len() {
        return Err(Error::damaged("room", format!("{room_id}: forward extremities are missing")));
    }
    let (state_pos, bump_pos) = (Position(row.state_pos), Position(row.bump_pos));
    let head = Head {
        forward_extremities,
        without_state,
        depth: row.depth,
        last_pos,
        state_pos,
        our_pos: Position(row.our_pos),
        reject_epoch: row.reject_epoch,
        bump_pos,
        changes,
        saved_changes,
        joined_by_server: None,
    };
    let heroes = Heroes::new(row.heroes.as_deref().map(unpack).transpose()?.unwrap_or_default());
    let jumps = row.jumps.as_deref().map(unpack_positions).transpose()?.unwrap_or_default();
    // The ring starts empty: older events are read from the database when someone asks.
    let view = RoomView { state, jumps, heroes, ring: Ring::new(last_pos, Arc::clone(&rooms.rings)) };
    Ok(Room {
        nid,
        room_id,
        version,
        rules,
        head: Arc::new(tokio::sync::Mutex::new(head)),
        lineage: Lineage::default(),
        queued: Queued::default(),
        view: RwLock::new(view),
        last_pos: AtomicI64::new(last_pos.0),
        used: AtomicBool::new(true),
        absent: AbsentKeys::default(),
    })
}

struct LoadedState {
    state: StateLog,
    /// The number of changes up to this state, and up to the checkpoint before it.
    changes: i64,
    saved_changes: i64,
}

/// The latest checkpoint before `upto`, and the changes since then.
async fn state_rows(
    reader: &mut Reader<'_>,
    room: RoomNid,
    upto: Position,
) -> Result<(Option<CheckpointRow>, Vec<StateLogRow>), Error> {
    let checkpoint = rows::latest_checkpoint(&mut reader.conn(), room, upto).await?;
    let after = checkpoint.as_ref().map_or(Position::BEFORE_ALL, |checkpoint| Position(checkpoint.pos));
    let changes = rows::state_log(&mut reader.conn(), room, after, upto).await?;
    Ok((checkpoint, changes))
}

/// The state, from a checkpoint and the changes since then.
fn state_of(
    secret: &StateHashKey,
    stored: Option<CheckpointRow>,
    rows: Vec<StateLogRow>,
) -> Result<LoadedState, Error> {
    let saved_changes = stored.as_ref().map_or(0, |row| row.changes);
    let checkpoint = match stored {
        Some(row) => Some(Checkpoint {
            pos: Position(row.pos),
            hash: StateHash::from_bytes(
                row.hash.try_into().map_err(|_| Error::damaged("state checkpoint", "hash of a wrong length"))?,
            ),
            entries: checkpoint::decode(&row.blob).map_err(|error| Error::damaged("state checkpoint", error))?,
        }),
        None => None,
    };
    let changes = saved_changes + i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let rows = rows.into_iter().map(log_row).collect::<Result<Vec<_>, _>>()?;
    let state = match checkpoint {
        Some(checkpoint) => StateLog::from_checkpoint(secret.clone(), checkpoint, rows),
        None => StateLog::new(secret.clone(), Position::BEFORE_ALL).replay(rows),
    };
    let state = state.map_err(|error| Error::damaged("state log", error))?;
    Ok(LoadedState { state, changes, saved_changes })
}

/// The membership that a row holds.
pub(super) fn membership(code: i64) -> Result<Membership, Error> {
    u8::try_from(code).ok().and_then(Membership::from_code).ok_or_else(|| Error::damaged("membership", code))
}

pub(super) fn log_row(row: StateLogRow) -> Result<LogRow, Error> {
    let membership = match row.membership {
        Some(code) => Some(self::membership(code)?),
        None => None,
    };
    Ok(LogRow {
        key: KeyNid(row.key_nid),
        pos: Position(row.pos),
        event_nid: row.event_nid.map(EventNid),
        membership,
        prev_event_nid: row.prev_event_nid.map(EventNid),
    })
}

impl Rooms {
    /// The entry of one key as of `upto`.
    pub(crate) async fn entry_at(&self, room: &Room, key: KeyNid, upto: Position) -> Result<Option<StateEntry>, Error> {
        let found = room.view().state.get_at(key, upto);
        match found {
            Lookup::Present(entry) => Ok(Some(entry)),
            Lookup::Absent => Ok(None),
            Lookup::NotInMemory => {
                let row = self.stored_history(room, key).await?.into_iter().rev().find(|row| row.pos <= upto);
                let since = row.as_ref().map_or(Position::BEFORE_ALL, |row| row.pos);
                // The state after a later jump has the entry, whether the jump changed it or not.
                if let Some(pos) = self.jumps(room, since, upto).pop() {
                    return Ok(entry_in(&self.jump(room, pos).await?.after, key));
                }
                Ok(row.and_then(|row| {
                    let LogRow { event_nid, pos, membership, .. } = row;
                    event_nid.map(|event_nid| StateEntry { event_nid, pos, membership })
                }))
            }
        }
    }

    /// Every committed change of one key, oldest first.
    pub(crate) async fn key_history(&self, room: &Room, key: KeyNid) -> Result<Vec<LogRow>, Error> {
        let stored = self.stored_history(room, key).await?;
        let [history] = self.with_jumps(room, [Some(key)], [stored]).await?;
        Ok(history)
    }

    /// As [`Rooms::key_history`], without the changes of jumps.
    async fn stored_history(&self, room: &Room, key: KeyNid) -> Result<Vec<LogRow>, Error> {
        let mut reader = self.db.read().await?;
        let rows = rows::key_history(&mut reader.conn(), room.nid, key).await?;
        rows.into_iter().map(log_row).collect()
    }

    /// The whole state as of `upto`, sorted by key.
    pub(crate) async fn state_at(&self, room: &Room, upto: Position) -> Result<Vec<(KeyNid, StateEntry)>, Error> {
        let in_memory = room.view().state.state_at(upto);
        if let Some(state) = in_memory {
            return Ok(state);
        }
        let mut reader = self.db.read().await?;
        let (checkpoint, changes) = state_rows(&mut reader, room.nid, upto).await?;
        drop(reader);
        let loaded = state_of(&self.state_hash_key, checkpoint, changes)?;
        Ok(loaded.state.entries().to_vec())
    }

    /// The keys whose event at `upto` differs from the one at `after`, each with its entry at `upto`.
    pub(crate) async fn state_changes(
        &self,
        room: &Room,
        after: Position,
        upto: Position,
    ) -> Result<Vec<(KeyNid, Option<StateEntry>)>, Error> {
        let in_memory = room.view().state.changes_between(after, upto);
        if let Some(changes) = in_memory {
            return Ok(changes);
        }
        let mut reader = self.db.read().await?;
        let rows = rows::state_log(&mut reader.conn(), room.nid, after, upto).await?;
        drop(reader);
        let mut rows = rows.into_iter().map(log_row).collect::<Result<Vec<_>, _>>()?;
        for pos in self.jumps(room, after, upto) {
            rows = merge(rows, self.jump(room, pos).await?.rows());
        }
        let mut changed: BTreeMap<KeyNid, (Option<EventNid>, Option<StateEntry>)> = BTreeMap::new();
        for LogRow { key, pos, event_nid, membership, prev_event_nid } in rows {
            let now = event_nid.map(|event_nid| StateEntry { event_nid, pos, membership });
            changed.entry(key).or_insert((prev_event_nid, None)).1 = now;
        }
        let other =
            |(before, now): &(Option<EventNid>, Option<StateEntry>)| *before != now.map(|entry| entry.event_nid);
        Ok(changed.into_iter().filter(|(_, change)| other(change)).map(|(key, (_, now))| (key, now)).collect())
    }
}
