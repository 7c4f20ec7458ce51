//! Rows of read receipts.

use super::{
    Conn, Error, Position, RoomNid, UserNid, from_row, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    RECEIPTS_OF_ROOM = "SELECT r.user_nid, u.user_id, r.kind, r.thread, r.event_id, r.ts, r.pos, e.pos AS event_pos \
        FROM receipt r JOIN matrix_user u ON u.user_nid = r.user_nid LEFT JOIN event e ON e.event_id = r.event_id \
        WHERE r.room_nid = $1 ORDER BY r.pos, r.user_nid, r.kind, r.thread";
}

inserts! {
    RECEIPT: ReceiptColumns = "receipt" (
        room_nid: RoomNid, user_nid: UserNid, kind: i64, thread: Text, event_id: Text, ts: i64, pos: Position
    ) key 4 Replace, followed by Receipt;
}

/// A stored receipt, with the place of its event in the room's timeline.
#[derive(Debug)]
pub(crate) struct ReceiptRow {
    pub user_nid: i64,
    pub user_id: String,
    pub kind: i64,
    pub thread: String,
    pub event_id: String,
    pub ts: i64,
    pub pos: i64,
    pub event_pos: Option<i64>,
}

from_row!(ReceiptRow { user_nid, user_id, kind, thread, event_id, ts, pos, event_pos });

/// All receipts of a room, oldest first: one for each user, kind and thread.
pub(crate) async fn receipts_of_room(conn: &mut Conn<'_>, room: RoomNid) -> Result<Vec<ReceiptRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(RECEIPTS_OF_ROOM.text()).bind(room.0).fetch_all(&mut **db).await)?)
}
