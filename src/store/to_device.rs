//! Rows of messages that wait for a device.
//!
//! A message to one device holds its own body. The body of a message to several devices is stored once, in
//! `to_device_shared`, under the position of the commit and a number. It is deleted with the last message that names
//! it.

use super::{
    Conn, DeviceNid, Error, Position, UserNid, from_row,
    log::Touch,
    on,
    rows::{Text, inserts},
    statements,
};

/// Places for 16 pairs of whole numbers, from the second or third value of a statement on. PostgreSQL takes the types of
/// all from the first.
macro_rules! pairs_16 {
    () => {
        "(VALUES (CAST($2 AS BIGINT), CAST($3 AS BIGINT)), ($4, $5), ($6, $7), ($8, $9), ($10, $11), ($12, $13), \
        ($14, $15), ($16, $17), ($18, $19), ($20, $21), ($22, $23), ($24, $25), ($26, $27), ($28, $29), ($30, $31), \
        ($32, $33))"
    };
}

statements! {
    /// The last value is the newest entry of the commit log. Every commit that changes these rows has an entry, and one
    /// statement sees one state of both tables.
    WAITING = "SELECT MIN(pos), MAX(pos), COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT), \
        COALESCE((SELECT pos FROM commit_log WHERE pos > 0 ORDER BY pos DESC LIMIT 1), 0) \
        FROM to_device WHERE device_nid = $1";
    SENDERS = "SELECT sender_nid, COUNT(*), CAST(SUM(bytes) AS BIGINT) FROM to_device WHERE device_nid = $1 \
        GROUP BY sender_nid ORDER BY sender_nid";
    OLDEST_OF_SENDER = "SELECT pos, seq, bytes FROM to_device WHERE device_nid = $1 AND sender_nid = $2 \
        ORDER BY pos, seq LIMIT $3";
    SIZES = "SELECT pos, bytes FROM to_device WHERE device_nid = $1 AND pos > $2 AND pos <= $3 ORDER BY pos, seq LIMIT $4";
    MESSAGES = "SELECT u.user_id, t.type, COALESCE(t.json, s.json) AS json FROM to_device t \
        JOIN matrix_user u ON u.user_nid = t.sender_nid \
        LEFT JOIN to_device_shared s ON s.pos = t.pos AND s.share = t.share \
        WHERE t.device_nid = $1 AND t.pos > $2 AND t.pos <= $3 ORDER BY t.pos, t.seq LIMIT $4";
    NTH_WAITING = "SELECT pos FROM to_device WHERE device_nid = $1 AND pos <= $2 ORDER BY pos, seq LIMIT 1 OFFSET $3";
    DELETE_UPTO = "DELETE FROM to_device WHERE device_nid = $1 AND pos <= $2 RETURNING pos, share, bytes";
    DELETE_16 = concat!("DELETE FROM to_device WHERE device_nid = $1 AND (pos, seq) IN ", pairs_16!(),
        " RETURNING pos, share, bytes");
    /// The first value only makes the places those of the statement above.
    DELETE_SHARED_16 = concat!("DELETE FROM to_device_shared WHERE pos > $1 AND (pos, share) IN ", pairs_16!(),
        " AND NOT EXISTS (SELECT 1 FROM to_device t WHERE t.pos = to_device_shared.pos \
        AND t.share = to_device_shared.share)");
}

inserts! {
    /// Either `json` or `share` is given.
    TO_DEVICE: ToDeviceColumns = "to_device" (
        device_nid: DeviceNid, pos: Position, seq: i64, sender_nid: UserNid, r#type: Text, bytes: i64,
        share: Option<i64>, json: Option<Text>
    ) key 3 Fail, followed by ToDevice;
    TO_DEVICE_SHARED: ToDeviceSharedColumns = "to_device_shared" (
        pos: Position, share: i64, json: Text
    ) key 2 Fail, followed by ToDevice;
}

/// A waiting message.
#[derive(Debug)]
pub(crate) struct MessageRow {
    pub user_id: String,
    pub event_type: String,
    pub json: String,
}

from_row!(MessageRow { user_id, event_type = "type", json });

/// The numbers of a device's waiting messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub oldest: Option<Position>,
    pub newest: Option<Position>,
    pub messages: u64,
    pub bytes: u64,
    /// The numbers have the changes of all commits up to here, and of none after it.
    pub seen: Position,
}

/// The numbers of a device's waiting messages from one sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FromSender {
    pub sender: UserNid,
    pub messages: u64,
    pub bytes: u64,
}

/// The numbers of deleted messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub messages: u64,
    pub bytes: u64,
}

impl Removed {
    /// The touch of a commit that deletes these messages. None is left up to `upto`.
    pub(crate) fn touch(self, device: DeviceNid, upto: Position) -> Touch {
        Touch::ToDeviceGone { device, upto, messages: small(self.messages), bytes: small(self.bytes) }
    }
}

/// The number in the size that a touch has for it. A commit has far fewer messages and bytes.
pub(crate) fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A place among the messages of a device: position and number.
pub(crate) type MessagePlace = (i64, i64);

/// Position, share and bytes of a deleted message.
type DeletedRow = (i64, Option<i64>, i64);

/// The positions of the oldest and the newest waiting message, and the number and size of all of them.
pub(crate) async fn waiting(conn: &mut Conn<'_>, device: DeviceNid) -> Result<Waiting, Error> {
    let (oldest, newest, messages, bytes, seen): (Option<i64>, Option<i64>, i64, i64, i64) =
        on!(conn, db => sqlx::query_as(WAITING.text()).bind(device.0).fetch_one(&mut **db).await)?;
    Ok(Waiting {
        oldest: oldest.map(Position),
        newest: newest.map(Position),
        messages: messages.unsigned_abs(),
        bytes: bytes.unsigned_abs(),
        seen: Position(seen),
    })
}

/// The senders of a device's waiting messages.
pub(crate) async fn senders(conn: &mut Conn<'_>, device: DeviceNid) -> Result<Vec<FromSender>, Error> {
    let rows: Vec<(i64, i64, i64)> =
        on!(conn, db => sqlx::query_as(SENDERS.text()).bind(device.0).fetch_all(&mut **db).await)?;
    let row = |(sender, messages, bytes): (i64, i64, i64)| FromSender {
        sender: UserNid(sender),
        messages: messages.unsigned_abs(),
        bytes: bytes.unsigned_abs(),
    };
    Ok(rows.into_iter().map(row).collect())
}

/// The oldest messages of one sender, at most `limit`, with their bytes.
pub(crate) async fn oldest_of_sender(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    sender: UserNid,
    limit: usize,
) -> Result<Vec<(MessagePlace, u64)>, Error> {
    let rows: Vec<(i64, i64, i64)> = on!(conn, db => sqlx::query_as(OLDEST_OF_SENDER.text())
        .bind(device.0).bind(sender.0).bind(limit as i64).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(pos, seq, bytes)| ((pos, seq), bytes.unsigned_abs())).collect())
}

/// Position and bytes of the messages in (`since`, `upto`], oldest first, at most `limit`.
pub(crate) async fn sizes(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    since: Position,
    upto: Position,
    limit: usize,
) -> Result<Vec<(Position, u64)>, Error> {
    let rows: Vec<(i64, i64)> = on!(conn, db => sqlx::query_as(SIZES.text())
        .bind(device.0).bind(since.0).bind(upto.0).bind(limit as i64).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(pos, bytes)| (Position(pos), bytes.unsigned_abs())).collect())
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

/// Deletes about the oldest `limit` messages up to `upto`. Returns the numbers of the deleted ones, and the position up
/// to which all are gone.
pub(crate) async fn delete_upto(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    upto: Position,
    limit: usize,
) -> Result<(Removed, Position), Error> {
    let nth: Option<(i64,)> = on!(conn, db => sqlx::query_as(NTH_WAITING.text())
        .bind(device.0).bind(upto.0).bind(limit as i64).fetch_optional(&mut **db).await)?;
    let upto = nth.map_or(upto, |(pos,)| Position(pos));
    let rows: Vec<DeletedRow> = on!(conn, db => sqlx::query_as(DELETE_UPTO.text())
        .bind(device.0).bind(upto.0).fetch_all(&mut **db).await)?;
    Ok((removed(conn, &rows).await?, upto))
}

/// Deletes these messages of a device, as far as they are still there.
pub(crate) async fn delete(conn: &mut Conn<'_>, device: DeviceNid, places: &[MessagePlace]) -> Result<Removed, Error> {
    let mut rows: Vec<DeletedRow> = Vec::new();
    for chunk in places.chunks(16) {
        let found: Vec<DeletedRow> = on!(conn, db => {
            let mut query = sqlx::query_as(DELETE_16.text()).bind(device.0);
            for index in 0..16 {
                // No position is 0, so it finds nothing.
                let (pos, seq) = chunk.get(index).copied().unwrap_or_default();
                query = query.bind(pos).bind(seq);
            }
            query.fetch_all(&mut **db).await
        })?;
        rows.extend(found);
    }
    removed(conn, &rows).await
}

/// Sums up the deleted rows, and deletes the bodies that no device waits for any more.
async fn removed(conn: &mut Conn<'_>, rows: &[DeletedRow]) -> Result<Removed, Error> {
    let mut shares: Vec<(i64, i64)> = rows.iter().filter_map(|(pos, share, _)| Some((*pos, (*share)?))).collect();
    shares.sort_unstable();
    shares.dedup();
    for chunk in shares.chunks(16) {
        on!(conn, db => {
            let mut query = sqlx::query(DELETE_SHARED_16.text()).bind(0_i64);
            for index in 0..16 {
                let (pos, share) = chunk.get(index).copied().unwrap_or_default();
                query = query.bind(pos).bind(share);
            }
            query.execute(&mut **db).await.map(|_| ())
        })?;
    }
    let bytes = rows.iter().map(|(_, _, bytes)| bytes.unsigned_abs()).sum();
    Ok(Removed { messages: rows.len() as u64, bytes })
}
