//! Rows of timelines: the events of a room in their order.

use super::{Conn, Error, EventNid, Position, RoomNid, from_row, on, rows::inserts, statements};

statements! {
    TIMELINE_BACK = "SELECT pos, event_nid FROM timeline WHERE room_nid = $1 AND pos <= $2 AND pos > $3 \
        ORDER BY pos DESC LIMIT $4";
    PLAIN_TIMELINE_BACK = "SELECT t.pos, t.event_nid, \
        (SELECT e.event_id FROM event e WHERE e.event_nid = t.event_nid) AS event_id, \
        (SELECT j.json FROM event_json j WHERE j.event_nid = t.event_nid) AS json, \
        (SELECT r.redaction_nid FROM redaction r WHERE r.event_nid = t.event_nid) AS redaction_nid \
        FROM timeline t WHERE t.room_nid = $1 AND t.pos <= $2 AND t.pos > $3 ORDER BY t.pos DESC LIMIT $4";
    TIMELINE_FORWARD = "SELECT pos, event_nid FROM timeline WHERE room_nid = $1 AND pos > $2 AND pos <= $3 \
        ORDER BY pos LIMIT $4";
}

inserts! {
    TIMELINE = "timeline" ("room_nid", "pos", "event_nid") key 2 Fail, followed by Event;
}

/// An event of a timeline, as stored, without the other events that clients see with it.
#[derive(Debug)]
pub(crate) struct PlainRow {
    pub pos: i64,
    pub event_nid: i64,
    pub event_id: Option<String>,
    pub json: Option<String>,
    pub redaction_nid: Option<i64>,
}

from_row!(PlainRow { pos, event_nid, event_id, json, redaction_nid });

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

/// The events of the timeline from `from` (inclusive) back to `until` (exclusive), newest first.
pub(crate) async fn plain_timeline_back(
    conn: &mut Conn<'_>,
    room: RoomNid,
    from: Position,
    until: Position,
    limit: usize,
) -> Result<Vec<PlainRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(PLAIN_TIMELINE_BACK.text())
        .bind(room.0).bind(from.0).bind(until.0).bind(limit as i64).fetch_all(&mut **db).await)?)
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
