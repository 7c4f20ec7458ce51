//! Queries for a client that was away: which of its rooms changed, and the rows of many rooms at once.

use super::{Conn, Error, Position, RoomNid, UserNid, on, statements};

statements! {
    // Without its head, a room is damaged. It counts as changed, so that the client is told when it is repaired.
    CHANGED_ROOMS = "SELECT m.room_nid, r.room_id FROM member m LEFT JOIN room r ON r.room_nid = m.room_nid \
        LEFT JOIN room_head h ON h.room_nid = m.room_nid WHERE m.user_nid = $1 AND (m.pos > $2 OR (m.membership = $3 \
        AND (h.last_pos IS NULL OR h.last_pos > $2 \
        OR (SELECT MAX(p.pos) FROM receipt p WHERE p.room_nid = m.room_nid) > $2)))";
}

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
