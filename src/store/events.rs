//! Rows of events: the events themselves, their JSON and their redactions.

use sabha_federation::standing::{Flags, Standing, StateAt};

use super::{
    Conn, Error, EventNid, KeyNid, Position, RoomNid, SideNid, TimelinePlace, TypeNid, UserNid,
    conn::{fetch_32, ids_32},
    from_row,
    ids::pack,
    on,
    rows::{Text, inserts},
    statements,
};

/// The columns of an [`EventRow`], with the redaction of the event and the state event that it replaced.
macro_rules! select_event {
    () => {
        "SELECT e.event_nid, e.event_id, e.room_nid, e.key_nid, e.pos, e.sub, e.depth, e.ts, e.state_pos, \
        e.side_nid, e.auth_depth, e.flags, j.json, r.redaction_nid, p.event_id AS prev_event_id, pj.json AS prev_json \
        FROM event e \
        JOIN event_json j ON j.event_nid = e.event_nid \
        LEFT JOIN redaction r ON r.event_nid = e.event_nid \
        LEFT JOIN state_log l ON l.room_nid = e.room_nid AND l.key_nid = e.key_nid AND l.pos = e.pos \
        AND l.event_nid = e.event_nid \
        LEFT JOIN event p ON p.event_nid = l.prev_event_nid \
        LEFT JOIN event_json pj ON pj.event_nid = l.prev_event_nid "
    };
}

statements! {
    FIND_EVENT = "SELECT event_nid, room_nid FROM event WHERE event_id = $1";
    EVENT_BY_NID = concat!(select_event!(), "WHERE e.event_nid = $1");
    EVENTS_BY_NID_32 = concat!(select_event!(), "WHERE e.event_nid IN (", ids_32!(), ")");
    FIXED_BY_NID_32 = concat!("SELECT event_nid, event_id, room_nid, type_nid, key_nid, sender_nid, depth, ts, auth_depth, \
        auth FROM event WHERE event_nid IN (", ids_32!(), ")");
}

inserts! {
    EVENT: EventColumns = "event" (
        event_nid: EventNid, event_id: Text, room_nid: RoomNid, type_nid: TypeNid, key_nid: Option<KeyNid>,
        sender_nid: UserNid, pos: Option<Position>, sub: i64, depth: i64, ts: i64, auth_depth: i64,
        state_pos: Position, side_nid: Option<SideNid>, flags: i64, prev: Vec<u8>, auth: Vec<u8>
    ) key 1 Replace, followed by Event;
    EVENT_JSON: EventJsonColumns = "event_json" (event_nid: EventNid, json: Text) key 1 Replace, followed by Event;
    REDACTION: RedactionColumns = "redaction" (event_nid: EventNid, redaction_nid: EventNid)
        key 1 Replace, followed by Redacted;
}

/// A stored event with its data for `unsigned`.
#[derive(Debug)]
pub(crate) struct EventRow {
    pub event_nid: i64,
    pub event_id: String,
    pub room_nid: i64,
    pub key_nid: Option<i64>,
    pub pos: Option<i64>,
    pub sub: i64,
    pub depth: i64,
    pub ts: i64,
    pub state_pos: i64,
    pub side_nid: Option<i64>,
    pub auth_depth: i64,
    pub flags: i64,
    pub json: String,
    pub redaction_nid: Option<i64>,
    pub prev_event_id: Option<String>,
    pub prev_json: Option<String>,
}

from_row!(EventRow {
    event_nid,
    event_id,
    room_nid,
    key_nid,
    pos,
    sub,
    depth,
    ts,
    state_pos,
    side_nid,
    auth_depth,
    flags,
    json,
    redaction_nid,
    prev_event_id,
    prev_json
});

impl EventRow {
    pub(crate) fn standing(&self) -> Standing {
        standing(self.flags, (self.pos, self.sub), (self.state_pos, self.side_nid))
    }
}

/// The standing of an event from the columns that say it.
pub(super) fn standing(flags: i64, (pos, sub): (Option<i64>, i64), (state_pos, side): (i64, Option<i64>)) -> Standing {
    Standing {
        flags: Flags::from_bits(flags),
        place: pos.map(|pos| TimelinePlace { pos: Position(pos), sub }),
        before: StateAt { pos: Position(state_pos), side: side.map(SideNid) },
    }
}

/// The columns of an event that never change.
#[derive(Debug)]
pub(crate) struct FixedRow {
    pub event_nid: i64,
    pub event_id: String,
    pub room_nid: i64,
    pub type_nid: i64,
    pub key_nid: Option<i64>,
    pub sender_nid: i64,
    pub depth: i64,
    pub ts: i64,
    pub auth_depth: i64,
    pub auth: Vec<u8>,
}

from_row!(FixedRow { event_nid, event_id, room_nid, type_nid, key_nid, sender_nid, depth, ts, auth_depth, auth });

impl FixedRow {
    /// The whole row of the event, with another standing and other previous events.
    pub(crate) fn restated(self, Standing { flags, place, before }: Standing, prev: &[EventNid]) -> EventColumns {
        EventColumns {
            event_nid: EventNid(self.event_nid),
            event_id: self.event_id.into(),
            room_nid: RoomNid(self.room_nid),
            type_nid: TypeNid(self.type_nid),
            key_nid: self.key_nid.map(KeyNid),
            sender_nid: UserNid(self.sender_nid),
            pos: place.map(|place| place.pos),
            sub: place.map_or(0, |place| place.sub),
            depth: self.depth,
            ts: self.ts,
            auth_depth: self.auth_depth,
            state_pos: before.pos,
            side_nid: before.side,
            flags: flags.bits(),
            prev: pack(prev),
            auth: self.auth,
        }
    }
}

/// The columns of these events that never change, in no particular order; events that do not exist are missing.
pub(crate) async fn fixed(conn: &mut Conn<'_>, nids: &[EventNid]) -> Result<Vec<FixedRow>, Error> {
    let mut rows = Vec::with_capacity(nids.len());
    for chunk in nids.chunks(32) {
        let found: Vec<FixedRow> = fetch_32!(conn, FIXED_BY_NID_32, chunk)?;
        rows.extend(found);
    }
    Ok(rows)
}

/// The short ids of an event and of its room.
pub(crate) async fn find_event(conn: &mut Conn<'_>, event_id: &str) -> Result<Option<(EventNid, RoomNid)>, Error> {
    // No event ID holds a NUL, and PostgreSQL would not even compare one.
    if event_id.contains('\0') {
        return Ok(None);
    }
    let row: Option<(i64, i64)> =
        on!(conn, db => sqlx::query_as(FIND_EVENT.text()).bind(event_id).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(event, room)| (EventNid(event), RoomNid(room))))
}

/// The stored events, in no particular order; those that do not exist are missing.
pub(crate) async fn events(conn: &mut Conn<'_>, nids: &[EventNid]) -> Result<Vec<EventRow>, Error> {
    if let [nid] = nids {
        return Ok(on!(conn, db => sqlx::query_as(EVENT_BY_NID.text()).bind(nid.0).fetch_all(&mut **db).await)?);
    }
    let mut rows = Vec::with_capacity(nids.len());
    for chunk in nids.chunks(32) {
        let found: Vec<EventRow> = fetch_32!(conn, EVENTS_BY_NID_32, chunk)?;
        rows.extend(found);
    }
    Ok(rows)
}
