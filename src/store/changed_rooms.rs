//! Queries for a client that was away: which of its rooms changed, and the rows of many rooms at once.
//!
//! The rows of rooms are those that `room_heads`, `states` and `timelines` read for one room.

use super::{
    Conn, Error, EventNid, KeyNid, Position, RoomNid, UserNid,
    conn::{OfRoom, fetch_32},
    from_row, ids_32, on,
    room_heads::RoomRow,
    statements,
    states::{CheckpointRow, StateLogRow},
};

/// The largest number of rooms in one statement.
pub(crate) const AT_ONCE: usize = 32;

statements! {
    // Without its head, a room is damaged. It counts as changed, so that the client is told when it is repaired.
    CHANGED_ROOMS = "SELECT m.room_nid, r.room_id FROM member m LEFT JOIN room r ON r.room_nid = m.room_nid \
        LEFT JOIN room_head h ON h.room_nid = m.room_nid WHERE m.user_nid = $1 AND (m.pos > $2 OR (m.membership = $3 \
        AND (h.last_pos IS NULL OR h.last_pos > $2 \
        OR (SELECT MAX(p.pos) FROM receipt p WHERE p.room_nid = m.room_nid) > $2)))";
    ROOMS_32 = concat!("SELECT r.room_nid, r.room_id, r.version, h.last_pos, h.depth, h.extremities, h.state_pos, \
        h.state_hash, h.jumps, h.our_pos, h.reject_epoch, h.bump_pos, h.heroes, c.pos, c.changes, c.hash, c.blob FROM room r \
        JOIN room_head h ON h.room_nid = r.room_nid \
        LEFT JOIN state_checkpoint c ON c.room_nid = r.room_nid \
        AND c.pos = (SELECT MAX(p.pos) FROM state_checkpoint p WHERE p.room_nid = r.room_nid) \
        WHERE r.room_nid IN (", ids_32!(), ")");
    LOGS_OF_ROOMS_32 = concat!("SELECT l.room_nid, l.key_nid, l.pos, l.event_nid, l.membership, l.prev_event_nid \
        FROM room_head h JOIN state_log l ON l.room_nid = h.room_nid AND l.pos <= h.last_pos \
        AND l.pos > COALESCE((SELECT MAX(p.pos) FROM state_checkpoint p WHERE p.room_nid = h.room_nid), 0) \
        WHERE h.room_nid IN (", ids_32!(), ") ORDER BY l.room_nid, l.pos, l.key_nid");
    LATEST_PLACES_32 = concat!("SELECT t.room_nid, t.pos, t.event_nid FROM room_head h \
        JOIN timeline t ON t.room_nid = h.room_nid AND t.pos > COALESCE((SELECT s.pos FROM timeline s \
        WHERE s.room_nid = h.room_nid AND s.sub = 0 ORDER BY s.pos DESC LIMIT 1 OFFSET $33), 0) \
        AND t.sub = 0 WHERE h.room_nid IN (", ids_32!(), ") ORDER BY t.room_nid, t.pos");
    HISTORIES_32 = concat!("SELECT room_nid, key_nid, pos, event_nid, membership, prev_event_nid FROM state_log \
        WHERE room_nid IN (", ids_32!(), ") AND key_nid IN ($33, $34) ORDER BY room_nid, key_nid, pos");
}

/// A room with its head and its latest checkpoint.
#[derive(Debug)]
pub(crate) struct StoredRoom {
    pub(crate) row: RoomRow,
    pub(crate) checkpoint: Option<CheckpointRow>,
}

macro_rules! stored_room_from {
    ($row:ty) => {
        impl sqlx::FromRow<'_, $row> for StoredRoom {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                // A room without a checkpoint has no value in any of its columns.
                let checkpoint: Option<i64> = sqlx::Row::try_get(row, "pos")?;
                let checkpoint = checkpoint.map(|_| CheckpointRow::from_row(row)).transpose()?;
                Ok(Self { row: RoomRow::from_row(row)?, checkpoint })
            }
        }
    };
}
stored_room_from!(sqlx::sqlite::SqliteRow);
stored_room_from!(sqlx::postgres::PgRow);

/// An event's place in the timeline of a room.
#[derive(Debug)]
pub(crate) struct PlaceRow {
    pub(crate) pos: i64,
    pub(crate) event_nid: i64,
}

from_row!(PlaceRow { pos, event_nid });

/// The rooms of a local user in which something changed after `since`: the user's own membership, or in rooms where it
/// is `joined`, an event or a receipt. Each with its ID, if it is there.
pub(crate) async fn changed_rooms(
    conn: &mut Conn<'_>,
    user: UserNid,
    since: Position,
    joined: u8,
) -> Result<Vec<(RoomNid, Option<String>)>, Error> {
    let rows: Vec<(i64, Option<String>)> = on!(conn, db => sqlx::query_as(CHANGED_ROOMS.text())
        .bind(user.0).bind(since.0).bind(i64::from(joined)).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(room, room_id)| (RoomNid(room), room_id)).collect())
}

/// At most [`AT_ONCE`] rooms, in no particular order; those that do not exist, or have no head, are missing.
pub(crate) async fn rooms(conn: &mut Conn<'_>, rooms: &[RoomNid]) -> Result<Vec<StoredRoom>, Error> {
    Ok(fetch_32!(conn, ROOMS_32, rooms)?)
}

/// The changes of state since the latest checkpoint of each of these rooms, oldest first.
pub(crate) async fn state_logs(conn: &mut Conn<'_>, rooms: &[RoomNid]) -> Result<Vec<OfRoom<StateLogRow>>, Error> {
    Ok(fetch_32!(conn, LOGS_OF_ROOMS_32, rooms)?)
}

/// The latest places in the timelines of these rooms, at most `limit` of each, oldest first.
pub(crate) async fn latest_places(
    conn: &mut Conn<'_>,
    rooms: &[RoomNid],
    limit: usize,
) -> Result<Vec<(RoomNid, Position, EventNid)>, Error> {
    let rows: Vec<OfRoom<PlaceRow>> = fetch_32!(conn, LATEST_PLACES_32, rooms, limit as i64)?;
    Ok(rows.into_iter().map(|place| (place.room, Position(place.row.pos), EventNid(place.row.event_nid))).collect())
}

/// Every change of two keys in each of these rooms, oldest first. A key that does not exist changes nowhere.
pub(crate) async fn key_histories(
    conn: &mut Conn<'_>,
    rooms: &[RoomNid],
    keys: [Option<KeyNid>; 2],
) -> Result<Vec<OfRoom<StateLogRow>>, Error> {
    let [first, second] = keys.map(|key| key.map_or(0, |key| key.0));
    Ok(fetch_32!(conn, HISTORIES_32, rooms, first, second)?)
}
