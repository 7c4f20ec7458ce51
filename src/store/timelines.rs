//! Rows of timelines: the events of a room in their order.

use super::{Conn, Error, EventNid, Position, RoomNid, on, rows::inserts, statements};

statements! {
    TIMELINE_BACK = "SELECT pos, event_nid FROM timeline WHERE room_nid = $1 AND pos <= $2 AND pos > $3 \
        ORDER BY pos DESC LIMIT $4";
    TIMELINE_FORWARD = "SELECT pos, event_nid FROM timeline WHERE room_nid = $1 AND pos > $2 AND pos <= $3 \
        ORDER BY pos LIMIT $4";
}

inserts! {
    TIMELINE = "timeline" ("room_nid", "pos", "event_nid") key 2 Fail, followed by Event;
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
