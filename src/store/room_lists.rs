//! Reading rooms as lists and directories show them, many at once.

use super::{
    Conn, Error, RoomNid,
    conn::{fetch_32, ids_32},
    from_row, statements,
};

statements! {
    LISTED_ROOMS_32 = concat!("SELECT r.room_nid, r.room_id, h.bump_pos, h.joined, h.invited, h.name, h.topic, h.avatar, h.alias, \
        h.encryption, h.room_type, h.join_rule, h.history, h.guests, h.federates, h.heroes \
        FROM room_head h JOIN room r ON r.room_nid = h.room_nid \
        WHERE h.room_nid IN (", ids_32!(), ")");
}

/// A room as lists show it, as stored. The text of a column is NULL or empty where there is none.
#[derive(Debug)]
pub(crate) struct ListedRow {
    pub room_nid: i64,
    pub room_id: String,
    pub bump_pos: i64,
    pub joined: i64,
    pub invited: i64,
    pub name: Option<String>,
    pub topic: Option<String>,
    pub avatar: Option<String>,
    pub alias: Option<String>,
    pub encryption: Option<String>,
    pub room_type: Option<String>,
    pub join_rule: Option<String>,
    pub history: Option<String>,
    pub guests: Option<String>,
    pub federates: Option<i64>,
    pub heroes: Option<Vec<u8>>,
}

from_row!(ListedRow {
    room_nid,
    room_id,
    bump_pos,
    joined,
    invited,
    name,
    topic,
    avatar,
    alias,
    encryption,
    room_type,
    join_rule,
    history,
    guests,
    federates,
    heroes
});

/// These rooms, in no particular order; those that do not exist are missing.
pub(crate) async fn list(conn: &mut Conn<'_>, rooms: &[RoomNid]) -> Result<Vec<ListedRow>, Error> {
    let mut rows = Vec::with_capacity(rooms.len());
    for chunk in rooms.chunks(32) {
        let found: Vec<ListedRow> = fetch_32!(conn, LISTED_ROOMS_32, chunk)?;
        rows.extend(found);
    }
    Ok(rows)
}
