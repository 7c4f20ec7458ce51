//! Rows of stored unread tallies.

use super::{Conn, Error, Position, RoomNid, UserNid, from_row, on, rows::inserts, statements};

statements! {
    TALLIES_OF_USER = "SELECT room_nid, upto, basis, tally FROM unread_tally WHERE user_nid = $1 AND room_nid >= $2 \
        ORDER BY room_nid LIMIT $3";
    FIND_TALLY = "SELECT room_nid, upto, basis, tally FROM unread_tally WHERE user_nid = $1 AND room_nid = $2";
}

inserts! {
    TALLY: TallyColumns = "unread_tally" (
        user_nid: UserNid, room_nid: RoomNid, upto: Position, basis: Vec<u8>, tally: Vec<u8>
    ) key 2 Replace, not followed;
}

/// A stored tally of one room.
#[derive(Debug)]
pub(crate) struct TallyRow {
    pub room_nid: i64,
    pub upto: i64,
    pub basis: Vec<u8>,
    pub tally: Vec<u8>,
}

from_row!(TallyRow { room_nid, upto, basis, tally });

/// At most `limit` tallies of a user from a room on, in the order of rooms, at most one for each.
pub(crate) async fn tallies_of_user(
    conn: &mut Conn<'_>,
    user: UserNid,
    from: RoomNid,
    limit: usize,
) -> Result<Vec<TallyRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(TALLIES_OF_USER.text())
        .bind(user.0).bind(from.0).bind(limit as i64).fetch_all(&mut **db).await)?)
}

/// The tally of a user in one room.
pub(crate) async fn find_tally(conn: &mut Conn<'_>, user: UserNid, room: RoomNid) -> Result<Option<TallyRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(FIND_TALLY.text()).bind(user.0).bind(room.0).fetch_optional(&mut **db).await)?)
}
