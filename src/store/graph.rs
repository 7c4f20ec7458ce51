//! Rows of a room's events as the walks through its graph see them.

use sabha_federation::standing::Standing;

use super::{
    Conn, Error, EventNid, RoomNid,
    conn::{fetch_32, fetch_texts_32, ids_32},
    events::standing,
    from_row, statements,
    vocabulary::{escape, unescape},
};

statements! {
    GRAPH_NODES_32 = concat!("SELECT e.event_nid, e.event_id, e.key_nid, e.pos, e.sub, e.depth, e.ts, e.state_pos, \
        e.side_nid, e.flags, e.prev, j.json FROM event e \
        LEFT JOIN event_json j ON j.event_nid = e.event_nid AND e.key_nid IS NOT NULL \
        WHERE e.event_nid IN (", ids_32!(), ") AND e.room_nid = $33");
    AUTH_NODES_32 = concat!("SELECT event_nid, key_nid, auth_depth, flags, auth FROM event \
        WHERE event_nid IN (", ids_32!(), ") AND room_nid = $33");
    EVENTS_BY_ID_32 = concat!("SELECT event_id, event_nid FROM event WHERE event_id IN (", ids_32!(), ") \
        AND room_nid = $33");
    COVERERS_32 = concat!("SELECT missing_id, child_nid FROM edge_missing WHERE missing_id IN (", ids_32!(), ") \
        AND room_nid = $33 AND covers");
}

/// An event with the events that it names as previous ones.
#[derive(Debug)]
pub(crate) struct GraphRow {
    pub event_nid: i64,
    pub event_id: String,
    pub key_nid: Option<i64>,
    pub pos: Option<i64>,
    pub sub: i64,
    pub depth: i64,
    pub ts: i64,
    pub state_pos: i64,
    pub side_nid: Option<i64>,
    pub flags: i64,
    pub prev: Vec<u8>,
    /// Set for state events only.
    pub json: Option<String>,
}

from_row!(GraphRow { event_nid, event_id, key_nid, pos, sub, depth, ts, state_pos, side_nid, flags, prev, json });

impl GraphRow {
    pub(crate) fn standing(&self) -> Standing {
        standing(self.flags, (self.pos, self.sub), (self.state_pos, self.side_nid))
    }
}

/// An event with its auth events.
#[derive(Debug)]
pub(crate) struct AuthRow {
    pub event_nid: i64,
    pub key_nid: Option<i64>,
    pub auth_depth: i64,
    pub flags: i64,
    pub auth: Vec<u8>,
}

from_row!(AuthRow { event_nid, key_nid, auth_depth, flags, auth });

/// The stored events of the room among these, in no particular order.
pub(crate) async fn graph_nodes(conn: &mut Conn<'_>, room: RoomNid, nids: &[EventNid]) -> Result<Vec<GraphRow>, Error> {
    let mut rows = Vec::with_capacity(nids.len());
    for chunk in nids.chunks(32) {
        let found: Vec<GraphRow> = fetch_32!(conn, GRAPH_NODES_32, chunk, room.0)?;
        rows.extend(found);
    }
    Ok(rows)
}

/// As [`graph_nodes`], with the auth events.
pub(crate) async fn auth_nodes(conn: &mut Conn<'_>, room: RoomNid, nids: &[EventNid]) -> Result<Vec<AuthRow>, Error> {
    let mut rows = Vec::with_capacity(nids.len());
    for chunk in nids.chunks(32) {
        let found: Vec<AuthRow> = fetch_32!(conn, AUTH_NODES_32, chunk, room.0)?;
        rows.extend(found);
    }
    Ok(rows)
}

/// The stored events of the room with these IDs, in no particular order.
pub(crate) async fn events_by_id(
    conn: &mut Conn<'_>,
    room: RoomNid,
    event_ids: &[&str],
) -> Result<Vec<(String, EventNid)>, Error> {
    by_id(conn, EVENTS_BY_ID_32, room, event_ids).await
}

/// The accepted events that came before these missing ones and name them, each with the ID that it names.
pub(crate) async fn coverers(
    conn: &mut Conn<'_>,
    room: RoomNid,
    event_ids: &[&str],
) -> Result<Vec<(String, EventNid)>, Error> {
    // The column of missing events holds any text that another server sent, and so escaped words.
    let words: Vec<_> = event_ids.iter().map(|event_id| escape(event_id)).collect();
    let words: Vec<&str> = words.iter().map(|word| &**word).collect();
    let found = by_id(conn, COVERERS_32, room, &words).await?;
    found.into_iter().map(|(word, nid)| Ok((unescape(word)?, nid))).collect()
}

async fn by_id(
    conn: &mut Conn<'_>,
    sql: super::Sql,
    room: RoomNid,
    event_ids: &[&str],
) -> Result<Vec<(String, EventNid)>, Error> {
    // No event ID holds a NUL, and PostgreSQL would not even compare one.
    let event_ids: Vec<&str> = event_ids.iter().copied().filter(|id| !id.contains('\0')).collect();
    let mut rows = Vec::with_capacity(event_ids.len());
    for chunk in event_ids.chunks(32) {
        let found: Vec<(String, i64)> = fetch_texts_32!(conn, sql, chunk, room.0)?;
        rows.extend(found.into_iter().map(|(event_id, nid)| (event_id, EventNid(nid))));
    }
    Ok(rows)
}
