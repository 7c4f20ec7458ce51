//! Rows of redactions whose target was not known when they came.

use super::{
    Conn, Error, EventNid, RoomNid, on,
    rows::inserts,
    statements,
    vocabulary::{Word, escape},
};

statements! {
    PENDING = "SELECT redaction_nid, by_power FROM pending_redaction WHERE room_nid = $1 AND target_id = $2 \
        ORDER BY by_power DESC, redaction_nid LIMIT 32";
}

inserts! {
    PENDING_REDACTION: PendingRedactionColumns = "pending_redaction" (
        room_nid: RoomNid, target_id: Word, redaction_nid: EventNid, by_power: bool
    ) key 3 Replace, followed by Graph;
}

/// The first 32 redactions that wait for this event, those that need no more than their sender's power level first, each with
/// whether it is one of these.
pub(crate) async fn pending(conn: &mut Conn<'_>, room: RoomNid, target: &str) -> Result<Vec<(EventNid, bool)>, Error> {
    let rows: Vec<(i64, bool)> =
        on!(conn, db => sqlx::query_as(PENDING.text()).bind(room.0).bind(&*escape(target)).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(nid, by_power)| (EventNid(nid), by_power)).collect())
}
