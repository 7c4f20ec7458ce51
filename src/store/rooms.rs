//! Rows of rooms: events, timelines, state and local members.

use super::{Conn, Error, EventNid, KeyNid, Position, RoomNid, UserNid, from_row, on, rows::inserts, statements};

statements! {
    FIND_ROOM = "SELECT r.room_nid, r.room_id, r.version, h.last_pos, h.depth, h.extremities, h.state_pos, h.state_hash, \
        h.bump_pos, h.heroes FROM room r JOIN room_head h ON h.room_nid = r.room_nid WHERE r.room_id = $1";
    FIND_ROOM_BY_NID = "SELECT r.room_nid, r.room_id, r.version, h.last_pos, h.depth, h.extremities, h.state_pos, \
        h.state_hash, h.bump_pos, h.heroes FROM room r JOIN room_head h ON h.room_nid = r.room_nid WHERE r.room_nid = $1";
    LATEST_CHECKPOINT = "SELECT pos, changes, hash, blob FROM state_checkpoint WHERE room_nid = $1 AND pos <= $2 \
        ORDER BY pos DESC LIMIT 1";
    STATE_LOG_AFTER = "SELECT key_nid, pos, event_nid, membership, prev_event_nid FROM state_log \
        WHERE room_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos, key_nid";
    COUNTED_CHANGES = "SELECT l.key_nid, l.pos, l.event_nid, l.membership, l.prev_event_nid, \
        (SELECT p.membership FROM state_log p WHERE p.room_nid = l.room_nid AND p.key_nid = l.key_nid AND p.pos < l.pos \
        ORDER BY p.pos DESC LIMIT 1) AS prev_membership FROM state_log l \
        WHERE l.room_nid = $1 AND l.pos > $2 AND l.pos <= $3 AND (l.membership IS NOT NULL OR l.key_nid = $4) \
        ORDER BY l.pos, l.key_nid";
    KEY_HISTORY = "SELECT key_nid, pos, event_nid, membership, prev_event_nid FROM state_log \
        WHERE room_nid = $1 AND key_nid = $2 ORDER BY pos";
    FIND_EVENT = "SELECT event_nid, room_nid FROM event WHERE event_id = $1";
    EVENT_BY_NID = "SELECT e.event_nid, e.event_id, e.room_nid, e.key_nid, e.pos, e.state_pos, e.auth_depth, \
        j.json, r.redaction_nid, p.event_id AS prev_event_id, pj.json AS prev_json FROM event e \
        JOIN event_json j ON j.event_nid = e.event_nid \
        LEFT JOIN redaction r ON r.event_nid = e.event_nid \
        LEFT JOIN state_log l ON l.room_nid = e.room_nid AND l.key_nid = e.key_nid AND l.pos = e.pos \
        LEFT JOIN event p ON p.event_nid = l.prev_event_nid \
        LEFT JOIN event_json pj ON pj.event_nid = l.prev_event_nid \
        WHERE e.event_nid = $1";
    EVENTS_BY_NID_32 = "SELECT e.event_nid, e.event_id, e.room_nid, e.key_nid, e.pos, e.state_pos, e.auth_depth, \
        j.json, r.redaction_nid, p.event_id AS prev_event_id, pj.json AS prev_json FROM event e \
        JOIN event_json j ON j.event_nid = e.event_nid \
        LEFT JOIN redaction r ON r.event_nid = e.event_nid \
        LEFT JOIN state_log l ON l.room_nid = e.room_nid AND l.key_nid = e.key_nid AND l.pos = e.pos \
        LEFT JOIN event p ON p.event_nid = l.prev_event_nid \
        LEFT JOIN event_json pj ON pj.event_nid = l.prev_event_nid \
        WHERE e.event_nid IN ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
        $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32)";
    TIMELINE_BACK = "SELECT pos, event_nid FROM timeline WHERE room_nid = $1 AND pos <= $2 AND pos > $3 \
        ORDER BY pos DESC LIMIT $4";
    TIMELINE_FORWARD = "SELECT pos, event_nid FROM timeline WHERE room_nid = $1 AND pos > $2 AND pos <= $3 \
        ORDER BY pos LIMIT $4";
    MEMBERSHIPS_OF_USER = "SELECT room_nid, membership, event_nid, pos, forgotten, invite_state FROM member \
        WHERE user_nid = $1 ORDER BY room_nid";
    JOINED_ROOM_IDS = "SELECT r.room_nid, r.room_id FROM member m JOIN room r ON r.room_nid = m.room_nid \
        WHERE m.user_nid = $1 AND m.membership = $2 ORDER BY r.room_id";
    LOCAL_MEMBERS = "SELECT user_nid, membership FROM member WHERE room_nid = $1 ORDER BY user_nid";
    FORGET_MEMBERSHIP = "UPDATE member SET forgotten = TRUE, invite_state = NULL \
        WHERE user_nid = $1 AND room_nid = $2 AND pos = $3 AND membership IN (3, 4)";
    RECENT_TXN_IDS = "SELECT scope, txn, event_id FROM txn_id WHERE device_nid = $1 ORDER BY created_at DESC, txn LIMIT $2";
    FIND_TXN_ID = "SELECT event_id FROM txn_id WHERE device_nid = $1 AND scope = $2 AND txn = $3";
    SET_TXN_RESULT = "UPDATE txn_id SET event_id = $4 WHERE device_nid = $1 AND scope = $2 AND txn = $3";
}

inserts! {
    ROOM = "room" ("room_nid", "room_id", "version", "created_at") key 1 Fail;
    EVENT = "event" ("event_nid", "event_id", "room_nid", "type_nid", "key_nid", "sender_nid", "pos", "depth", "ts",
        "auth_depth", "state_pos", "flags", "prev", "auth") key 1 Fail;
    EVENT_JSON = "event_json" ("event_nid", "json") key 1 Replace;
    REDACTION = "redaction" ("event_nid", "redaction_nid") key 1 Replace;
    TIMELINE = "timeline" ("room_nid", "pos", "event_nid") key 2 Fail;
    ROOM_HEAD = "room_head" ("room_nid", "last_pos", "depth", "extremities", "state_pos", "state_hash", "bump_pos", "joined",
        "invited", "name", "topic", "avatar", "alias", "encryption", "room_type", "join_rule", "history", "guests",
        "federates", "heroes") key 1 Merge;
    STATE_LOG = "state_log" ("room_nid", "key_nid", "pos", "event_nid", "prev_event_nid", "membership") key 3 Fail;
    STATE_CHECKPOINT = "state_checkpoint" ("room_nid", "pos", "changes", "hash", "blob") key 2 Replace;
    MEMBER = "member" ("user_nid", "room_nid", "membership", "event_nid", "pos", "forgotten", "invite_state")
        key 2 Replace;
    TXN_ID = "txn_id" ("device_nid", "scope", "txn", "event_id", "created_at") key 3 Fail;
}

/// A room with its head, as stored.
#[derive(Debug)]
pub(crate) struct RoomRow {
    pub room_nid: i64,
    pub room_id: String,
    pub version: String,
    pub last_pos: i64,
    pub depth: i64,
    pub extremities: Vec<u8>,
    pub state_pos: i64,
    pub state_hash: Vec<u8>,
    pub bump_pos: i64,
    pub heroes: Option<Vec<u8>>,
}

from_row!(RoomRow {
    room_nid,
    room_id,
    version,
    last_pos,
    depth,
    extremities,
    state_pos,
    state_hash,
    bump_pos,
    heroes
});

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

/// A change of a membership or of one other key, with the membership before it.
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

/// A stored event with its data for `unsigned`.
#[derive(Debug)]
pub(crate) struct EventRow {
    pub event_nid: i64,
    pub event_id: String,
    pub room_nid: i64,
    pub key_nid: Option<i64>,
    pub pos: Option<i64>,
    pub state_pos: i64,
    pub auth_depth: i64,
    pub json: String,
    pub redaction_nid: Option<i64>,
    pub prev_event_id: Option<String>,
    pub prev_json: Option<String>,
}

from_row!(EventRow {
    event_nid,
    event_id,
    room_nid,
    key_nid,
    pos,
    state_pos,
    auth_depth,
    json,
    redaction_nid,
    prev_event_id,
    prev_json
});

/// A local user's membership in a room, as stored.
#[derive(Debug)]
pub(crate) struct MemberRow {
    pub room_nid: i64,
    pub membership: i64,
    pub event_nid: i64,
    pub pos: i64,
    pub forgotten: bool,
    pub invite_state: Option<String>,
}

from_row!(MemberRow { room_nid, membership, event_nid, pos, forgotten, invite_state });

pub(crate) async fn find_room(conn: &mut Conn<'_>, room_id: &str) -> Result<Option<RoomRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(FIND_ROOM.text()).bind(room_id).fetch_optional(&mut **db).await)?)
}

pub(crate) async fn find_room_by_nid(conn: &mut Conn<'_>, room: RoomNid) -> Result<Option<RoomRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(FIND_ROOM_BY_NID.text()).bind(room.0).fetch_optional(&mut **db).await)?)
}

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

/// The changes of memberships and of `other` in (`after`, `upto`], oldest first.
pub(crate) async fn counted_changes(
    conn: &mut Conn<'_>,
    room: RoomNid,
    (after, upto): (Position, Position),
    other: Option<KeyNid>,
) -> Result<Vec<CountedChangeRow>, Error> {
    // Ids start at 1, so 0 finds nothing.
    let other = other.map_or(0, |key| key.0);
    Ok(on!(conn, db => sqlx::query_as(COUNTED_CHANGES.text())
        .bind(room.0).bind(after.0).bind(upto.0).bind(other).fetch_all(&mut **db).await)?)
}

/// All changes of one key of the room's state, oldest first.
pub(crate) async fn key_history(conn: &mut Conn<'_>, room: RoomNid, key: KeyNid) -> Result<Vec<StateLogRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(KEY_HISTORY.text()).bind(room.0).bind(key.0).fetch_all(&mut **db).await)?)
}

/// The short ids of an event and of its room.
pub(crate) async fn find_event(conn: &mut Conn<'_>, event_id: &str) -> Result<Option<(EventNid, RoomNid)>, Error> {
    // No event ID holds a NUL, and PostgreSQL would not even compare one.
    if event_id.contains('\0') {
        return Ok(None);
    }
    let row: Option<(i64, i64)> =
        on!(conn, db => sqlx::query_as(FIND_EVENT.text()).bind(event_id).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(event, room)| (EventNid(event), RoomNid(room))))
}

/// The stored events, in no particular order; those that do not exist are missing.
pub(crate) async fn events(conn: &mut Conn<'_>, nids: &[EventNid]) -> Result<Vec<EventRow>, Error> {
    if let [nid] = nids {
        return Ok(on!(conn, db => sqlx::query_as(EVENT_BY_NID.text()).bind(nid.0).fetch_all(&mut **db).await)?);
    }
    let mut rows = Vec::with_capacity(nids.len());
    for chunk in nids.chunks(32) {
        let found: Vec<EventRow> = on!(conn, db => {
            let mut query = sqlx::query_as(EVENTS_BY_NID_32.text());
            for index in 0..32 {
                // Ids start at 1, so 0 finds nothing.
                query = query.bind(chunk.get(index).map_or(0, |nid| nid.0));
            }
            query.fetch_all(&mut **db).await
        })?;
        rows.extend(found);
    }
    Ok(rows)
}

/// The timeline from `from` (inclusive) back to `until` (exclusive), newest first.
pub(crate) async fn timeline_back(
    conn: &mut Conn<'_>,
    room: RoomNid,
    from: Position,
    until: Position,
    limit: usize,
) -> Result<Vec<(Position, EventNid)>, Error> {
    let rows: Vec<(i64, i64)> = on!(conn, db => sqlx::query_as(TIMELINE_BACK.text())
        .bind(room.0).bind(from.0).bind(until.0).bind(limit as i64).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(pos, event)| (Position(pos), EventNid(event))).collect())
}

/// The timeline from `after` (exclusive) to `upto` (inclusive), oldest first.
pub(crate) async fn timeline_forward(
    conn: &mut Conn<'_>,
    room: RoomNid,
    after: Position,
    upto: Position,
    limit: usize,
) -> Result<Vec<(Position, EventNid)>, Error> {
    let rows: Vec<(i64, i64)> = on!(conn, db => sqlx::query_as(TIMELINE_FORWARD.text())
        .bind(room.0).bind(after.0).bind(upto.0).bind(limit as i64).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(pos, event)| (Position(pos), EventNid(event))).collect())
}

/// All rooms in which the local user has or had a membership.
pub(crate) async fn memberships(conn: &mut Conn<'_>, user: UserNid) -> Result<Vec<MemberRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(MEMBERSHIPS_OF_USER.text()).bind(user.0).fetch_all(&mut **db).await)?)
}

/// Forgets a membership. Returns whether it was still the latest one, and the user is out of the room.
pub(crate) async fn forget_membership(
    conn: &mut Conn<'_>,
    user: UserNid,
    room: RoomNid,
    pos: Position,
) -> Result<bool, Error> {
    let updated = on!(conn, db => sqlx::query(FORGET_MEMBERSHIP.text())
        .bind(user.0).bind(room.0).bind(pos.0).execute(&mut **db).await.map(|done| done.rows_affected()))?;
    Ok(updated > 0)
}

/// The IDs of the rooms in which the local user has this membership, in order.
pub(crate) async fn room_ids(conn: &mut Conn<'_>, user: UserNid, membership: u8) -> Result<Vec<(i64, String)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(JOINED_ROOM_IDS.text())
        .bind(user.0).bind(i64::from(membership)).fetch_all(&mut **db).await)?)
}

/// The local users of a room, with their memberships.
pub(crate) async fn local_members(conn: &mut Conn<'_>, room: RoomNid) -> Result<Vec<(i64, i64)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(LOCAL_MEMBERS.text()).bind(room.0).fetch_all(&mut **db).await)?)
}

/// The latest transaction IDs of a device: scope, transaction ID and event ID, newest first.
pub(crate) async fn recent_txn_ids(
    conn: &mut Conn<'_>,
    device: super::DeviceNid,
    limit: usize,
) -> Result<Vec<(String, String, String)>, Error> {
    Ok(
        on!(conn, db => sqlx::query_as(RECENT_TXN_IDS.text()).bind(device.0).bind(limit as i64).fetch_all(&mut **db).await)?,
    )
}

pub(crate) async fn find_txn_id(
    conn: &mut Conn<'_>,
    device: super::DeviceNid,
    scope: &str,
    txn: &str,
) -> Result<Option<String>, Error> {
    let row: Option<(String,)> = on!(conn, db => sqlx::query_as(FIND_TXN_ID.text())
        .bind(device.0).bind(scope).bind(txn).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(event_id,)| event_id))
}

/// Changes the result of a transaction ID.
pub(crate) async fn set_txn_result(
    conn: &mut Conn<'_>,
    device: super::DeviceNid,
    scope: &str,
    txn: &str,
    result: &str,
) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(SET_TXN_RESULT.text())
        .bind(device.0).bind(scope).bind(txn).bind(result).execute(&mut **db).await.map(|_| ()))?)
}
