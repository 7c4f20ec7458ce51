//! Rows of read receipts.

use super::{
    Conn, Error, Position, RoomNid, UserNid,
    conn::OfRoom,
    from_row, ids_32, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    RECEIPTS_OF_ROOMS_32 = concat!("SELECT r.room_nid, r.user_nid, u.user_id, r.kind, r.thread, r.event_id, r.ts, r.pos, \
        CASE WHEN e.sub < 0 THEN e.pos - 1 ELSE e.pos END AS event_pos FROM receipt r JOIN matrix_user u ON u.user_nid = r.user_nid \
        LEFT JOIN event e ON e.event_id = r.event_id WHERE r.room_nid IN (", ids_32!(), ")");
}

inserts! {
    RECEIPT: ReceiptColumns = "receipt" (
        room_nid: RoomNid, user_nid: UserNid, kind: i64, thread: Text, event_id: Text, ts: i64, pos: Position
    ) key 4 Replace, followed by Receipt;
}

/// A stored receipt, with the position of the line up to which it reads. For an event of history that is the one before its
/// gap.
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

/// All receipts of at most 32 rooms, in no particular order: one for each room, user, kind and thread.
pub(crate) async fn receipts_of_rooms(
    conn: &mut Conn<'_>,
    rooms: &[RoomNid],
) -> Result<Vec<OfRoom<ReceiptRow>>, Error> {
    Ok(on!(conn, db => {
        let mut query = sqlx::query_as(RECEIPTS_OF_ROOMS_32.text());
        for index in 0..32 {
            query = query.bind(rooms.get(index).map_or(0, |room| room.0));
        }
        query.fetch_all(&mut **db).await
    })?)
}
