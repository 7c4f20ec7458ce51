//! Rows of timelines: the events of a room in the order in which clients read them.

use super::{Conn, Error, EventNid, Position, RoomNid, TimelinePlace, on, rows::inserts, statements};

statements! {
    LINE_BACK = "SELECT pos, event_nid FROM timeline WHERE room_nid = $1 AND pos <= $2 AND pos > $3 AND sub = 0 \
        ORDER BY pos DESC LIMIT $4";
    TIMELINE_BACK = "SELECT pos, sub, event_nid FROM timeline WHERE room_nid = $1 \
        AND (pos, sub) <= ($2, $3) AND (pos, sub) > ($4, $5) ORDER BY pos DESC, sub DESC LIMIT $6";
    TIMELINE_FORWARD = "SELECT pos, sub, event_nid FROM timeline WHERE room_nid = $1 \
        AND (pos, sub) > ($2, $3) AND (pos, sub) <= ($4, $5) ORDER BY pos, sub LIMIT $6";
}

inserts! {
    TIMELINE = "timeline" ("room_nid", "pos", "sub", "event_nid") key 3 Fail, followed by Event;
}

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

/// The timeline from `from` (inclusive) back to `until` (exclusive), newest first.
pub(crate) async fn timeline_back(
    conn: &mut Conn<'_>,
    room: RoomNid,
    from: TimelinePlace,
    until: TimelinePlace,
    limit: usize,
) -> Result<Vec<(TimelinePlace, EventNid)>, Error> {
    let rows: Vec<(i64, i64, i64)> = on!(conn, db => sqlx::query_as(TIMELINE_BACK.text())
        .bind(room.0).bind(from.pos.0).bind(from.sub).bind(until.pos.0).bind(until.sub).bind(limit as i64)
        .fetch_all(&mut **db).await)?;
    Ok(places(rows))
}

/// The timeline from `after` (exclusive) to `upto` (inclusive), oldest first.
pub(crate) async fn timeline_forward(
    conn: &mut Conn<'_>,
    room: RoomNid,
    after: TimelinePlace,
    upto: TimelinePlace,
    limit: usize,
) -> Result<Vec<(TimelinePlace, EventNid)>, Error> {
    let rows: Vec<(i64, i64, i64)> = on!(conn, db => sqlx::query_as(TIMELINE_FORWARD.text())
        .bind(room.0).bind(after.pos.0).bind(after.sub).bind(upto.pos.0).bind(upto.sub).bind(limit as i64)
        .fetch_all(&mut **db).await)?;
    Ok(places(rows))
}

/// The places and events of rows with `pos`, `sub` and `event_nid`.
pub(super) fn places(rows: Vec<(i64, i64, i64)>) -> Vec<(TimelinePlace, EventNid)> {
    rows.into_iter().map(|(pos, sub, event)| (TimelinePlace { pos: Position(pos), sub }, EventNid(event))).collect()
}
