//! Rows of account data: small JSON documents that clients keep with the account or with a room.

use super::{
    Conn, Error, Position, RoomNid, UserNid, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    FIND_DATA = "SELECT json, pos FROM account_data WHERE user_nid = $1 AND room_nid = $2 AND type = $3";
    TOTALS = "SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM account_data WHERE user_nid = $1";
    DATA_SINCE = "SELECT room_nid, type, json FROM account_data WHERE user_nid = $1 AND pos > $2 AND pos <= $3 \
        ORDER BY pos, room_nid, type LIMIT $4";
    DATA_OF_ROOM = "SELECT room_nid, type, json FROM account_data WHERE user_nid = $1 AND room_nid = $2 AND pos <= $3 \
        ORDER BY type LIMIT $4";
}

inserts! {
    ACCOUNT_DATA: AccountDataColumns = "account_data" (
        user_nid: UserNid, room_nid: RoomNid, r#type: Text, json: Text, pos: Position, bytes: i64
    ) key 3 Replace, followed by AccountData;
}

/// The largest number of rows that `limits.account_data_per_user` can allow.
const MOST_ROWS: i64 = 1_000_000;

/// The JSON of one type, and the position of its last change; room 0 is the account itself.
pub(crate) async fn find_data(
    conn: &mut Conn<'_>,
    user: UserNid,
    room: RoomNid,
    event_type: &str,
) -> Result<Option<(String, Position)>, Error> {
    let row: Option<(String, i64)> = on!(conn, db => sqlx::query_as(FIND_DATA.text())
        .bind(user.0).bind(room.0).bind(event_type).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(json, pos)| (json, Position(pos))))
}

/// The number of types that are stored for the user, over all rooms, and their bytes of JSON.
pub(crate) async fn totals(conn: &mut Conn<'_>, user: UserNid) -> Result<(i64, usize), Error> {
    let (count, bytes): (i64, i64) =
        on!(conn, db => sqlx::query_as(TOTALS.text()).bind(user.0).fetch_one(&mut **db).await)?;
    Ok((count, usize::try_from(bytes).unwrap_or(usize::MAX)))
}

/// The data that changed in (`since`, `upto`]: room, type and JSON, oldest first.
pub(crate) async fn data_since(
    conn: &mut Conn<'_>,
    user: UserNid,
    since: Position,
    upto: Position,
) -> Result<Vec<(i64, String, String)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(DATA_SINCE.text())
        .bind(user.0).bind(since.0).bind(upto.0).bind(MOST_ROWS).fetch_all(&mut **db).await)?)
}

/// The data that the user keeps with one room, as of `upto`: room, type and JSON.
pub(crate) async fn data_of_room(
    conn: &mut Conn<'_>,
    user: UserNid,
    room: RoomNid,
    upto: Position,
) -> Result<Vec<(i64, String, String)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(DATA_OF_ROOM.text())
        .bind(user.0).bind(room.0).bind(upto.0).bind(MOST_ROWS).fetch_all(&mut **db).await)?)
}
