//! Rows of sides: the states of branches, which the state log does not have.

use super::{Conn, Error, Position, RoomNid, SideNid, from_row, on, rows::inserts, statements};

statements! {
    SIDE = "SELECT side_nid, room_nid, base_pos, parent_nid, ordinal, hash, delta FROM state_side WHERE side_nid = $1";
    SIDE_BY_HASH = "SELECT side_nid FROM state_side WHERE room_nid = $1 AND hash = $2 ORDER BY side_nid LIMIT 1";
}

inserts! {
    STATE_SIDE: StateSideColumns = "state_side" (
        side_nid: SideNid, room_nid: RoomNid, base_pos: Position, parent_nid: Option<SideNid>, ordinal: i64,
        hash: Vec<u8>, delta: Vec<u8>
    ) key 1 Fail, followed by Graph;
}

/// A side, as stored.
#[derive(Debug)]
pub(crate) struct SideRow {
    pub side_nid: i64,
    pub room_nid: i64,
    pub base_pos: i64,
    pub parent_nid: Option<i64>,
    pub ordinal: i64,
    pub hash: Vec<u8>,
    pub delta: Vec<u8>,
}

from_row!(SideRow { side_nid, room_nid, base_pos, parent_nid, ordinal, hash, delta });

/// The side with this short id.
pub(crate) async fn side(conn: &mut Conn<'_>, nid: SideNid) -> Result<Option<SideRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(SIDE.text()).bind(nid.0).fetch_optional(&mut **db).await)?)
}

/// The oldest side of a room whose state has this hash.
pub(crate) async fn side_with(conn: &mut Conn<'_>, room: RoomNid, hash: &[u8]) -> Result<Option<SideNid>, Error> {
    let found: Option<i64> = on!(conn, db =>
        sqlx::query_scalar(SIDE_BY_HASH.text()).bind(room.0).bind(hash).fetch_optional(&mut **db).await)?;
    Ok(found.map(SideNid))
}
