//! Rows of timelines: the events of a room in the order in which clients read them.

use super::{Conn, Error, EventNid, Position, RoomNid, TimelinePlace, from_row, on, rows::inserts, statements};

statements! {
    LINE_BACK = "SELECT pos, event_nid FROM timeline WHERE room_nid = $1 AND pos <= $2 AND pos > $3 AND sub = 0 \
        ORDER BY pos DESC LIMIT $4";
    PLAIN_LINE_BACK = "SELECT t.pos, t.event_nid, \
        (SELECT e.event_id FROM event e WHERE e.event_nid = t.event_nid) AS event_id, \
        (SELECT j.json FROM event_json j WHERE j.event_nid = t.event_nid) AS json, \
        (SELECT r.redaction_nid FROM redaction r WHERE r.event_nid = t.event_nid) AS redaction_nid \
        FROM timeline t WHERE t.room_nid = $1 AND t.pos <= $2 AND t.pos > $3 AND t.sub = 0 \
        ORDER BY t.pos DESC LIMIT $4";
    // One row for a page: SQLite's thread hands over each row by itself, which costs more than the row. No engine promises
    // the order of the rows that it gathers, so `read_page` sorts them.
    TIMELINE_BACK = "SELECT string_agg(t.pos || ' ' || t.sub || ' ' || t.event_nid, ',') \
        FROM (SELECT pos, sub, event_nid FROM timeline WHERE room_nid = $1 \
        AND (pos, sub) <= ($2, $3) AND (pos, sub) > ($4, $5) ORDER BY pos DESC, sub DESC LIMIT $6) t";
    TIMELINE_FORWARD = "SELECT string_agg(t.pos || ' ' || t.sub || ' ' || t.event_nid, ',') \
        FROM (SELECT pos, sub, event_nid FROM timeline WHERE room_nid = $1 \
        AND (pos, sub) > ($2, $3) AND (pos, sub) <= ($4, $5) ORDER BY pos, sub LIMIT $6) t";
}

inserts! {
    TIMELINE: TimelineColumns = "timeline" (
        room_nid: RoomNid, pos: Position, sub: i64, event_nid: EventNid
    ) key 3 Fail, followed by Event;
}

/// An event of the line, as stored, without the other events that clients see with it.
#[derive(Debug)]
pub(crate) struct PlainRow {
    pub pos: i64,
    pub event_nid: i64,
    pub event_id: Option<String>,
    pub json: Option<String>,
    pub redaction_nid: Option<i64>,
}

from_row!(PlainRow { pos, event_nid, event_id, json, redaction_nid });

/// The line from `from` (inclusive) back to `until` (exclusive), newest first. Leaves out fetched history.
pub(crate) async fn line_back(
    conn: &mut Conn<'_>,
    room: RoomNid,
    from: Position,
    until: Position,
    limit: usize,
) -> Result<Vec<(Position, EventNid)>, Error> {
    let rows: Vec<(i64, i64)> = on!(conn, db => sqlx::query_as(LINE_BACK.text())
        .bind(room.0).bind(from.0).bind(until.0).bind(limit as i64).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(pos, event)| (Position(pos), EventNid(event))).collect())
}

/// The events of the line from `from` (inclusive) back to `until` (exclusive), newest first.
pub(crate) async fn plain_line_back(
    conn: &mut Conn<'_>,
    room: RoomNid,
    from: Position,
    until: Position,
    limit: usize,
) -> Result<Vec<PlainRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(PLAIN_LINE_BACK.text())
        .bind(room.0).bind(from.0).bind(until.0).bind(limit as i64).fetch_all(&mut **db).await)?)
}

/// The timeline from `from` (inclusive) back to `until` (exclusive), newest first.
pub(crate) async fn timeline_back(
    conn: &mut Conn<'_>,
    room: RoomNid,
    from: TimelinePlace,
    until: TimelinePlace,
    limit: usize,
) -> Result<Vec<(TimelinePlace, EventNid)>, Error> {
    let page: Option<String> = on!(conn, db => sqlx::query_scalar(TIMELINE_BACK.text())
        .bind(room.0).bind(from.pos.0).bind(from.sub).bind(until.pos.0).bind(until.sub).bind(limit as i64)
        .fetch_one(&mut **db).await)?;
    let mut rows = read_page(page.as_deref().unwrap_or_default())?;
    rows.reverse();
    Ok(rows)
}

/// The timeline from `after` (exclusive) to `upto` (inclusive), oldest first.
pub(crate) async fn timeline_forward(
    conn: &mut Conn<'_>,
    room: RoomNid,
    after: TimelinePlace,
    upto: TimelinePlace,
    limit: usize,
) -> Result<Vec<(TimelinePlace, EventNid)>, Error> {
    let page: Option<String> = on!(conn, db => sqlx::query_scalar(TIMELINE_FORWARD.text())
        .bind(room.0).bind(after.pos.0).bind(after.sub).bind(upto.pos.0).bind(upto.sub).bind(limit as i64)
        .fetch_one(&mut **db).await)?;
    read_page(page.as_deref().unwrap_or_default())
}

/// The places and events of rows with `pos`, `sub` and `event_nid`.
pub(super) fn places(rows: Vec<(i64, i64, i64)>) -> Vec<(TimelinePlace, EventNid)> {
    rows.into_iter().map(|(pos, sub, event)| (TimelinePlace { pos: Position(pos), sub }, EventNid(event))).collect()
}

/// The places and events of a page, `pos sub event_nid` of each, with commas between; oldest first.
fn read_page(page: &str) -> Result<Vec<(TimelinePlace, EventNid)>, Error> {
    let read = |row: &str| {
        let mut numbers = row.split(' ').map(str::parse::<i64>);
        let mut next = || numbers.next()?.ok();
        let (pos, sub, event) = (next()?, next()?, next()?);
        Some((TimelinePlace { pos: Position(pos), sub }, EventNid(event)))
    };
    let rows = page.split(',').filter(|row| !row.is_empty());
    let rows = rows.map(|row| read(row).ok_or_else(|| Error::damaged("page of a timeline", row)));
    let mut rows: Vec<_> = rows.collect::<Result<_, _>>()?;
    rows.sort_unstable_by_key(|(place, _)| *place);
    Ok(rows)
}
