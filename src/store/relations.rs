//! Rows of relations between events. A redacted event relates to nothing any more: its row stays, and queries leave it
//! out.

use std::collections::HashSet;

use super::{
    Conn, Error, EventNid, Position, RoomNid, Sql, TimelinePlace, UserNid, on,
    rows::{Text, inserts},
    statements,
    timelines::places,
};

// Relation types have no short ids here: an empty `rel_type` stands for all of them.
statements! {
    RELATED_BACK = "SELECT r.pos, r.sub, r.event_nid FROM relation r \
        WHERE r.room_nid = $1 AND r.parent_id = $2 AND ($3 = '' OR r.rel_type = $3) \
        AND (r.pos, r.sub) <= ($4, $5) AND (r.pos, r.sub) > ($6, $7) \
        AND NOT EXISTS (SELECT 1 FROM redaction x WHERE x.event_nid = r.event_nid) \
        ORDER BY r.pos DESC, r.sub DESC LIMIT $8";
    RELATED_FORWARD = "SELECT r.pos, r.sub, r.event_nid FROM relation r \
        WHERE r.room_nid = $1 AND r.parent_id = $2 AND ($3 = '' OR r.rel_type = $3) \
        AND (r.pos, r.sub) <= ($4, $5) AND (r.pos, r.sub) > ($6, $7) \
        AND NOT EXISTS (SELECT 1 FROM redaction x WHERE x.event_nid = r.event_nid) \
        ORDER BY r.pos, r.sub LIMIT $8";
    // Each step ends after so many rows, redacted ones among them, before the next one begins: a recursion would first
    // queue all relations. `CROSS JOIN` keeps SQLite from beginning with all relations of the room.
    RELATED_OVER_OTHERS = "WITH direct (pos, sub, event_nid, rel_type) AS (SELECT r.pos, r.sub, r.event_nid, r.rel_type FROM (\
        SELECT r.pos, r.sub, r.event_nid, r.rel_type FROM relation r WHERE r.room_nid = $1 AND r.parent_id = $2 \
        ORDER BY r.pos DESC, r.sub DESC LIMIT $4) r \
        WHERE NOT EXISTS (SELECT 1 FROM redaction x WHERE x.event_nid = r.event_nid)), \
        two (pos, sub, event_nid, rel_type) AS (SELECT r.pos, r.sub, r.event_nid, r.rel_type FROM (\
        SELECT r.pos, r.sub, r.event_nid, r.rel_type FROM direct d CROSS JOIN event e CROSS JOIN relation r \
        WHERE e.event_nid = d.event_nid AND r.room_nid = $1 AND r.parent_id = e.event_id LIMIT $4) r \
        WHERE NOT EXISTS (SELECT 1 FROM redaction x WHERE x.event_nid = r.event_nid)), \
        three (pos, sub, event_nid, rel_type) AS (SELECT r.pos, r.sub, r.event_nid, r.rel_type FROM (\
        SELECT r.pos, r.sub, r.event_nid, r.rel_type FROM two d CROSS JOIN event e CROSS JOIN relation r \
        WHERE e.event_nid = d.event_nid AND r.room_nid = $1 AND r.parent_id = e.event_id LIMIT $4) r \
        WHERE NOT EXISTS (SELECT 1 FROM redaction x WHERE x.event_nid = r.event_nid)) \
        SELECT d.pos, d.sub, d.event_nid FROM (SELECT s.pos, s.sub, s.event_nid, s.rel_type FROM two s \
        UNION ALL SELECT t.pos, t.sub, t.event_nid, t.rel_type FROM three t) d \
        WHERE ($3 = '' OR d.rel_type = $3) ORDER BY d.pos DESC, d.sub DESC";
    // For each event: the number of relations that were read, and whether one of them is as asked for. Each event has
    // its own limit, so that one with many relations hides no other's. PostgreSQL uses the index because of the order,
    // and because it knows the limit. `CROSS JOIN` keeps SQLite from beginning with the events of the senders.
    RELATED_PARENTS_32 = "SELECT e.event_nid, (SELECT COUNT(*) FROM (SELECT r.pos FROM relation r \
        WHERE r.room_nid = $1 AND r.parent_id = e.event_id AND r.pos <= $2 ORDER BY r.pos DESC, r.sub DESC LIMIT 1000) h), \
        (SELECT COUNT(*) FROM (SELECT d.event_nid FROM (SELECT r.event_nid, r.rel_type FROM relation r \
        WHERE r.room_nid = $1 AND r.parent_id = e.event_id AND r.pos <= $2 ORDER BY r.pos DESC, r.sub DESC LIMIT 1000) d \
        CROSS JOIN event c WHERE c.event_nid = d.event_nid \
        AND ($3 = '' OR d.rel_type IN ($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)) \
        AND ($19 = CAST(0 AS BIGINT) OR c.sender_nid IN ($19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34)) \
        AND NOT EXISTS (SELECT 1 FROM redaction x WHERE x.event_nid = d.event_nid) LIMIT 1) f) \
        FROM event e WHERE e.event_nid IN ($35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, \
        $51, $52, $53, $54, $55, $56, $57, $58, $59, $60, $61, $62, $63, $64, $65, $66)";
    LATEST_ANNOTATION = "SELECT r.event_nid, x.redaction_nid FROM relation r \
        LEFT JOIN redaction x ON x.event_nid = r.event_nid WHERE r.annotation = $1 ORDER BY r.pos DESC LIMIT 1";
}

inserts! {
    RELATION: RelationColumns = "relation" (
        room_nid: RoomNid, parent_id: Text, pos: Position, sub: i64, event_nid: EventNid, rel_type: Text,
        annotation: Option<Vec<u8>>
    ) key 4 Fail, not followed;
}

/// The number of relations that are followed one after the other, as in the statement.
pub const MAX_DEPTH: u32 = 3;

/// The number of relations that are read in each step of following them. The largest conversations have a few thousand,
/// and looking up this many takes tens of milliseconds.
const MAX_FOLLOWED: usize = 10_000;

/// The relations that a query asks for, and their parent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub room: RoomNid,
    pub parent_id: &'a str,
    /// `None`: every type.
    pub rel_type: Option<&'a str>,
}

/// The latest annotation with this digest, if it was not redacted. All earlier ones were redacted, because a second one
/// is refused.
pub(crate) async fn find_annotation(conn: &mut Conn<'_>, digest: &[u8]) -> Result<Option<EventNid>, Error> {
    let row: Option<(i64, Option<i64>)> =
        on!(conn, db => sqlx::query_as(LATEST_ANNOTATION.text()).bind(digest).fetch_optional(&mut **db).await)?;
    Ok(row.filter(|(_, redaction)| redaction.is_none()).map(|(event, _)| EventNid(event)))
}

/// The events that relate to an event, from `from` (inclusive) back to `until` (exclusive), newest first.
pub(crate) async fn related_back(
    conn: &mut Conn<'_>,
    wanted: Wanted<'_>,
    (from, until): (TimelinePlace, TimelinePlace),
    limit: usize,
) -> Result<Vec<(TimelinePlace, EventNid)>, Error> {
    related(conn, RELATED_BACK, wanted, (from, until), limit).await
}

/// The events that relate to an event, from `after` (exclusive) to `upto` (inclusive), oldest first.
pub(crate) async fn related_forward(
    conn: &mut Conn<'_>,
    wanted: Wanted<'_>,
    (after, upto): (TimelinePlace, TimelinePlace),
    limit: usize,
) -> Result<Vec<(TimelinePlace, EventNid)>, Error> {
    related(conn, RELATED_FORWARD, wanted, (upto, after), limit).await
}

/// The events that relate to an event through others, up to [`MAX_DEPTH`] steps from it, newest first. The newest
/// [`MAX_FOLLOWED`] direct relations are followed.
pub(crate) async fn related_over_others(
    conn: &mut Conn<'_>,
    wanted: Wanted<'_>,
) -> Result<Vec<(TimelinePlace, EventNid)>, Error> {
    if !wanted.can_be_stored() {
        return Ok(Vec::new());
    }
    let Wanted { room, parent_id, rel_type } = wanted;
    let rows: Vec<(i64, i64, i64)> = on!(conn, db => sqlx::query_as(RELATED_OVER_OTHERS.text())
        .bind(room.0).bind(parent_id).bind(rel_type.unwrap_or_default()).bind(MAX_FOLLOWED as i64)
        .fetch_all(&mut **db).await)?;
    Ok(places(rows))
}

async fn related(
    conn: &mut Conn<'_>,
    text: Sql,
    wanted: Wanted<'_>,
    (highest, below): (TimelinePlace, TimelinePlace),
    limit: usize,
) -> Result<Vec<(TimelinePlace, EventNid)>, Error> {
    if !wanted.can_be_stored() {
        return Ok(Vec::new());
    }
    let Wanted { room, parent_id, rel_type } = wanted;
    let rows: Vec<(i64, i64, i64)> = on!(conn, db => sqlx::query_as(text.text())
        .bind(room.0).bind(parent_id).bind(rel_type.unwrap_or_default())
        .bind(highest.pos.0).bind(highest.sub).bind(below.pos.0).bind(below.sub).bind(limit as i64)
        .fetch_all(&mut **db).await)?;
    Ok(places(rows))
}

impl Wanted<'_> {
    /// Returns whether a stored row can match: no stored text holds a NUL, and PostgreSQL would not even compare one.
    fn can_be_stored(&self) -> bool {
        let type_fits = |rel_type: &str| !rel_type.contains('\0') && !rel_type.is_empty();
        !self.parent_id.contains('\0') && self.rel_type.is_none_or(type_fits)
    }
}

/// The number of types, and of senders, that can be asked for at once: as many as the statement has places.
pub const MAX_RELATED_BY: usize = 16;

/// The number of parents that one statement asks for.
const PARENTS: usize = 32;

/// The number of relations of one event that are read for a filter, newest first, as in the statement. Few events have
/// more, and reading so many for all events of one statement takes tens of milliseconds.
pub const MAX_RELATIONS_OF_EVENT: usize = 1_000;

/// The conditions that a relation to an event must meet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct By<'a> {
    pub room: RoomNid,
    /// Relations that came later do not count.
    pub upto: Position,
    /// The types, at most [`MAX_RELATED_BY`], none of them empty. None at all: every type.
    pub rel_types: &'a [String],
    /// The senders, at most [`MAX_RELATED_BY`]. None at all: every sender.
    pub senders: &'a [UserNid],
}

/// The result of a search for relations to some events.
#[derive(Debug, Default)]
pub(crate) struct RelatedParents {
    /// The events that another one relates to as asked for.
    pub found: HashSet<EventNid>,
    /// The number of events that were asked about, from the first on. `found` holds none of the later ones.
    pub settled: usize,
    /// The number of relations that were read.
    pub relations: usize,
}

/// Finds the parents that an event relates to. Asks about no more of them once `enough` relations were read.
pub(crate) async fn related_parents(
    conn: &mut Conn<'_>,
    by: By<'_>,
    parents: &[EventNid],
    enough: usize,
) -> Result<RelatedParents, Error> {
    let mut related = RelatedParents::default();
    for chunk in parents.chunks(PARENTS) {
        let rows: Vec<(i64, i64, i64)> = on!(conn, db => {
            // No stored text is empty and ids start at 1, so an empty place finds nothing.
            let mut query = sqlx::query_as(RELATED_PARENTS_32.text()).bind(by.room.0).bind(by.upto.0);
            for index in 0..MAX_RELATED_BY {
                query = query.bind(by.rel_types.get(index).map_or("", String::as_str));
            }
            for index in 0..MAX_RELATED_BY {
                query = query.bind(by.senders.get(index).map_or(0, |sender| sender.0));
            }
            for index in 0..PARENTS {
                query = query.bind(chunk.get(index).map_or(0, |parent| parent.0));
            }
            query.fetch_all(&mut **db).await
        })?;
        related.settled += chunk.len();
        for (parent, relations, found) in rows {
            let relations = usize::try_from(relations).unwrap_or_default();
            debug_assert!(relations <= MAX_RELATIONS_OF_EVENT, "the statement has this limit");
            related.relations += relations;
            if found > 0 {
                related.found.insert(EventNid(parent));
            }
        }
        if related.relations >= enough {
            break;
        }
    }
    Ok(related)
}
