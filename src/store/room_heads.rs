//! Rows of rooms and of their heads.

use super::{
    Conn, Error, Position, RoomNid, from_row, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    FIND_ROOM = "SELECT r.room_nid, r.room_id, r.version, h.last_pos, h.depth, h.extremities, h.state_pos, h.state_hash, \
        h.jumps, h.our_pos, h.reject_epoch, h.bump_pos, h.heroes FROM room r JOIN room_head h ON h.room_nid = r.room_nid \
        WHERE r.room_id = $1";
    FIND_ROOM_BY_NID = "SELECT r.room_nid, r.room_id, r.version, h.last_pos, h.depth, h.extremities, h.state_pos, \
        h.state_hash, h.jumps, h.our_pos, h.reject_epoch, h.bump_pos, h.heroes FROM room r \
        JOIN room_head h ON h.room_nid = r.room_nid WHERE r.room_nid = $1";
}

inserts! {
    ROOM: RoomColumns = "room" (
        room_nid: RoomNid, room_id: Text, version: Text, created_at: i64
    ) key 1 Fail, followed by Event;
    ROOM_HEAD: RoomHeadColumns = "room_head" (
        room_nid: RoomNid, last_pos: Position, depth: i64, extremities: Vec<u8>, state_pos: Position,
        state_hash: Vec<u8>, jumps: Option<Vec<u8>>, our_pos: Position, reject_epoch: i64,
        bump_pos: Position, joined: i64, invited: i64, name: Option<Text>, topic: Option<Text>, avatar: Option<Text>,
        alias: Option<Text>, encryption: Option<Text>, room_type: Option<Text>, join_rule: Option<Text>,
        history: Option<Text>, guests: Option<Text>, federates: Option<i64>, heroes: Option<Vec<u8>>
    ) key 1 Merge, followed by Event or Jump;
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
    pub jumps: Option<Vec<u8>>,
    pub our_pos: i64,
    pub reject_epoch: i64,
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
    jumps,
    our_pos,
    reject_epoch,
    bump_pos,
    heroes
});

pub(crate) async fn find_room(conn: &mut Conn<'_>, room_id: &str) -> Result<Option<RoomRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(FIND_ROOM.text()).bind(room_id).fetch_optional(&mut **db).await)?)
}

pub(crate) async fn find_room_by_nid(conn: &mut Conn<'_>, room: RoomNid) -> Result<Option<RoomRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(FIND_ROOM_BY_NID.text()).bind(room.0).fetch_optional(&mut **db).await)?)
}
