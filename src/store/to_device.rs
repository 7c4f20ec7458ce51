//! Rows of messages that wait for a device.

use super::{Conn, DeviceNid, Error, Position, from_row, on, rows::inserts, statements};

statements! {
    WAITING = "SELECT MIN(pos), MAX(pos), COUNT(*) FROM to_device WHERE device_nid = $1";
    MESSAGES = "SELECT t.pos, u.user_id, t.type, t.json FROM to_device t JOIN matrix_user u ON u.user_nid = t.sender_nid \
        WHERE t.device_nid = $1 AND t.pos > $2 AND t.pos <= $3 ORDER BY t.pos, t.seq LIMIT $4";
    MESSAGES_AT = "SELECT t.pos, u.user_id, t.type, t.json FROM to_device t JOIN matrix_user u ON u.user_nid = t.sender_nid \
        WHERE t.device_nid = $1 AND t.pos = $2 ORDER BY t.seq LIMIT 100000";
    OLDEST = "SELECT COUNT(*), MAX(pos) FROM (SELECT pos FROM to_device WHERE device_nid = $1 AND pos <= $2 \
        ORDER BY pos, seq LIMIT $3) oldest";
    DELETE_UPTO = "DELETE FROM to_device WHERE device_nid = $1 AND pos <= $2";
    LAST_KEPT = "SELECT pos, seq FROM to_device WHERE device_nid = $1 ORDER BY pos DESC, seq DESC LIMIT 1 OFFSET $2";
    DELETE_BEFORE = "DELETE FROM to_device WHERE device_nid = $1 AND (pos < $2 OR (pos = $2 AND seq < $3))";
}

inserts! {
    TO_DEVICE = "to_device" ("device_nid", "pos", "seq", "sender_nid", "type", "json") key 3 Fail;
}

/// A waiting message.
#[derive(Debug)]
pub(crate) struct MessageRow {
    pub pos: i64,
    pub user_id: String,
    pub event_type: String,
    pub json: String,
}

from_row!(MessageRow { pos, user_id, event_type = "type", json });

/// Where the oldest and the newest waiting message are, and how many there are.
pub(crate) async fn waiting(
    conn: &mut Conn<'_>,
    device: DeviceNid,
) -> Result<(Option<Position>, Option<Position>, i64), Error> {
    let (oldest, newest, count): (Option<i64>, Option<i64>, i64) =
        on!(conn, db => sqlx::query_as(WAITING.text()).bind(device.0).fetch_one(&mut **db).await)?;
    Ok((oldest.map(Position), newest.map(Position), count))
}

/// The messages in (`since`, `upto`], oldest first, at most `limit`.
pub(crate) async fn messages(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    since: Position,
    upto: Position,
    limit: usize,
) -> Result<Vec<MessageRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(MESSAGES.text())
        .bind(device.0).bind(since.0).bind(upto.0).bind(limit as i64).fetch_all(&mut **db).await)?)
}

/// All messages of one position: they were sent by one request, which bounds them.
pub(crate) async fn messages_at(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    position: Position,
) -> Result<Vec<MessageRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(MESSAGES_AT.text())
        .bind(device.0).bind(position.0).fetch_all(&mut **db).await)?)
}

/// How many messages up to `position` there are, counted to `limit`, and where the last counted one is.
pub(crate) async fn oldest(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    position: Position,
    limit: usize,
) -> Result<(usize, Option<Position>), Error> {
    let (count, last): (i64, Option<i64>) = on!(conn, db => sqlx::query_as(OLDEST.text())
        .bind(device.0).bind(position.0).bind(limit as i64).fetch_one(&mut **db).await)?;
    Ok((usize::try_from(count).unwrap_or(0), last.map(Position)))
}

/// Deletes the messages up to `position`, and says how many there were.
pub(crate) async fn delete_upto(conn: &mut Conn<'_>, device: DeviceNid, position: Position) -> Result<u64, Error> {
    Ok(on!(conn, db => sqlx::query(DELETE_UPTO.text())
        .bind(device.0).bind(position.0).execute(&mut **db).await.map(|done| done.rows_affected()))?)
}

/// Deletes the oldest messages, so that the newest `keep` stay. Says how many went.
pub(crate) async fn delete_oldest(conn: &mut Conn<'_>, device: DeviceNid, keep: usize) -> Result<u64, Error> {
    let offset = keep.saturating_sub(1) as i64;
    let last_kept: Option<(i64, i64)> = on!(conn, db => sqlx::query_as(LAST_KEPT.text())
        .bind(device.0).bind(offset).fetch_optional(&mut **db).await)?;
    let Some((pos, seq)) = last_kept else {
        return Ok(0);
    };
    Ok(on!(conn, db => sqlx::query(DELETE_BEFORE.text())
        .bind(device.0).bind(pos).bind(seq).execute(&mut **db).await.map(|done| done.rows_affected()))?)
}
