//! Rows of the rooms' state: its changes and its checkpoints.

use super::{Conn, Error, EventNid, KeyNid, Position, RoomNid, from_row, on, rows::inserts, statements};

statements! {
    LATEST_CHECKPOINT = "SELECT pos, changes, hash, blob FROM state_checkpoint WHERE room_nid = $1 AND pos <= $2 \
        ORDER BY pos DESC LIMIT 1";
    STATE_LOG_AFTER = "SELECT key_nid, pos, event_nid, membership, prev_event_nid FROM state_log \
        WHERE room_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos, key_nid";
    CHECKPOINT_WITH = "SELECT pos FROM state_checkpoint WHERE room_nid = $1 AND hash = $2 ORDER BY pos DESC LIMIT 1";
    JUMP = "SELECT blob, before FROM state_checkpoint WHERE room_nid = $1 AND pos = $2 AND before IS NOT NULL";
    COUNTED_CHANGES = "SELECT l.key_nid, l.pos, l.event_nid, l.membership, l.prev_event_nid, \
        (SELECT p.membership FROM state_log p WHERE p.room_nid = l.room_nid AND p.key_nid = l.key_nid AND p.pos < l.pos \
        AND p.pos > $5 ORDER BY p.pos DESC LIMIT 1) AS prev_membership FROM state_log l \
        WHERE l.room_nid = $1 AND l.pos > $2 AND l.pos <= $3 \
        AND (l.membership IS NOT NULL OR l.event_nid IS NULL OR l.key_nid = $4) ORDER BY l.pos, l.key_nid";
    KEY_HISTORY = "SELECT key_nid, pos, event_nid, membership, prev_event_nid FROM state_log \
        WHERE room_nid = $1 AND key_nid = $2 ORDER BY pos";
}

inserts! {
    STATE_LOG: StateLogColumns = "state_log" (
        room_nid: RoomNid, key_nid: KeyNid, pos: Position, event_nid: Option<EventNid>,
        prev_event_nid: Option<EventNid>, membership: Option<i64>
    ) key 3 Fail, followed by State;
    STATE_CHECKPOINT: StateCheckpointColumns = "state_checkpoint" (
        room_nid: RoomNid, pos: Position, changes: i64, hash: Vec<u8>, blob: Vec<u8>, before: Option<Vec<u8>>
    ) key 2 Replace, not followed;
}

/// A change of state, as stored.
#[derive(Debug)]
pub(crate) struct StateLogRow {
    pub key_nid: i64,
    pub pos: i64,
    pub event_nid: Option<i64>,
    pub membership: Option<i64>,
    pub prev_event_nid: Option<i64>,
}

from_row!(StateLogRow { key_nid, pos, event_nid, membership, prev_event_nid });

/// A change of a membership or of one other key, or a key that went, with the membership before it.
#[derive(Debug)]
pub(crate) struct CountedChangeRow {
    pub key_nid: i64,
    pub pos: i64,
    pub event_nid: Option<i64>,
    pub membership: Option<i64>,
    pub prev_event_nid: Option<i64>,
    pub prev_membership: Option<i64>,
}

from_row!(CountedChangeRow { key_nid, pos, event_nid, membership, prev_event_nid, prev_membership });

/// The states before and after a jump, as blobs.
#[derive(Debug)]
pub(crate) struct JumpRow {
    pub before: Vec<u8>,
    pub blob: Vec<u8>,
}

from_row!(JumpRow { before, blob });

/// A stored state.
#[derive(Debug)]
pub(crate) struct CheckpointRow {
    pub pos: i64,
    pub changes: i64,
    pub hash: Vec<u8>,
    pub blob: Vec<u8>,
}

from_row!(CheckpointRow { pos, changes, hash, blob });

/// The newest stored state at or before `upto`.
pub(crate) async fn latest_checkpoint(
    conn: &mut Conn<'_>,
    room: RoomNid,
    upto: Position,
) -> Result<Option<CheckpointRow>, Error> {
    Ok(on!(conn, db =>
        sqlx::query_as(LATEST_CHECKPOINT.text()).bind(room.0).bind(upto.0).fetch_optional(&mut **db).await)?)
}

/// The position of the newest stored state with this hash.
pub(crate) async fn checkpoint_with(
    conn: &mut Conn<'_>,
    room: RoomNid,
    hash: &[u8],
) -> Result<Option<Position>, Error> {
    let found: Option<i64> = on!(conn, db =>
        sqlx::query_scalar(CHECKPOINT_WITH.text()).bind(room.0).bind(hash).fetch_optional(&mut **db).await)?;
    Ok(found.map(Position))
}

/// The changes of state in (`after`, `upto`], oldest first.
pub(crate) async fn state_log(
    conn: &mut Conn<'_>,
    room: RoomNid,
    after: Position,
    upto: Position,
) -> Result<Vec<StateLogRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(STATE_LOG_AFTER.text())
        .bind(room.0).bind(after.0).bind(upto.0).fetch_all(&mut **db).await)?)
}

/// The states before and after the jump at `pos`. `None`: no jump is there.
pub(crate) async fn jump(conn: &mut Conn<'_>, room: RoomNid, pos: Position) -> Result<Option<JumpRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(JUMP.text()).bind(room.0).bind(pos.0).fetch_optional(&mut **db).await)?)
}

/// The changes of memberships and of `other`, and keys that went, in (`after`, `upto`], oldest first. The membership before a
/// change is only looked for in the changes after `since`.
pub(crate) async fn counted_changes(
    conn: &mut Conn<'_>,
    room: RoomNid,
    (after, upto): (Position, Position),
    other: Option<KeyNid>,
    since: Position,
) -> Result<Vec<CountedChangeRow>, Error> {
    // Ids start at 1, so 0 finds nothing.
    let other = other.map_or(0, |key| key.0);
    Ok(on!(conn, db => sqlx::query_as(COUNTED_CHANGES.text())
        .bind(room.0).bind(after.0).bind(upto.0).bind(other).bind(since.0).fetch_all(&mut **db).await)?)
}

/// All changes of one key of the room's state, oldest first.
pub(crate) async fn key_history(conn: &mut Conn<'_>, room: RoomNid, key: KeyNid) -> Result<Vec<StateLogRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(KEY_HISTORY.text()).bind(room.0).bind(key.0).fetch_all(&mut **db).await)?)
}
