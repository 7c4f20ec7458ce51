//! Rows of device keys, and of the order in which users' device lists changed.

use super::{
    Conn, DeviceNid, Error, Position, UserNid, from_row, on,
    rows::{Text, inserts},
    statements,
};

/// The number of users that one statement asks for.
pub(crate) const USERS_PER_STATEMENT: usize = 32;

/// Places for [`USERS_PER_STATEMENT`] values, the first 32 of a statement.
macro_rules! in_32 {
    () => {
        "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
        $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32)"
    };
}
pub(super) use in_32;

statements! {
    FIND_DEVICE_KEY = "SELECT json FROM device_key WHERE device_nid = $1";
    DEVICE_KEYS_OF_USERS_32 = concat!("SELECT d.user_nid, d.device_id, d.display_name, k.json FROM device d \
        JOIN device_key k ON k.device_nid = d.device_nid WHERE d.user_nid IN ", in_32!(),
        " ORDER BY d.user_nid, d.device_nid");
    NAMED_DEVICE_KEYS_32 = concat!("SELECT d.device_id, k.json FROM device d JOIN device_key k ON k.device_nid = d.device_nid \
        WHERE d.device_id IN ", in_32!(), " AND d.user_nid = $33 ORDER BY d.device_id");
    DEVICES_OF_USERS_32 = concat!("SELECT user_nid, device_nid, device_id FROM device WHERE user_nid IN ", in_32!(),
        " ORDER BY user_nid, device_nid");
    CHANGES_AFTER = "SELECT pos, user_nid FROM device_change WHERE pos > $1 ORDER BY pos, user_nid LIMIT $2";
}

inserts! {
    DEVICE_KEY: DeviceKeyColumns = "device_key" (
        device_nid: DeviceNid, user_nid: UserNid, json: Text
    ) key 1 Replace, followed by DeviceList;
}

/// A device that has published its keys.
#[derive(Debug)]
pub(crate) struct DeviceKeyRow {
    pub user_nid: i64,
    pub device_id: String,
    pub display_name: Option<String>,
    pub json: String,
}

from_row!(DeviceKeyRow { user_nid, device_id, display_name, json });

/// The keys that the device has published.
pub(crate) async fn find_device_key(conn: &mut Conn<'_>, device: DeviceNid) -> Result<Option<String>, Error> {
    let row: Option<(String,)> =
        on!(conn, db => sqlx::query_as(FIND_DEVICE_KEY.text()).bind(device.0).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(json,)| json))
}

/// All devices of these users that have published keys.
pub(crate) async fn device_keys(conn: &mut Conn<'_>, users: &[UserNid]) -> Result<Vec<DeviceKeyRow>, Error> {
    let mut rows = Vec::new();
    for chunk in users.chunks(USERS_PER_STATEMENT) {
        let found: Vec<DeviceKeyRow> = on!(conn, db => {
            let mut query = sqlx::query_as(DEVICE_KEYS_OF_USERS_32.text());
            for index in 0..USERS_PER_STATEMENT {
                // Ids start at 1, so 0 finds nothing.
                query = query.bind(chunk.get(index).map_or(0, |user| user.0));
            }
            query.fetch_all(&mut **db).await
        })?;
        rows.extend(found);
    }
    Ok(rows)
}

/// The keys of these devices of one user, by device ID.
pub(crate) async fn named_device_keys(
    conn: &mut Conn<'_>,
    user: UserNid,
    device_ids: &[String],
) -> Result<Vec<(String, String)>, Error> {
    let mut rows = Vec::new();
    for chunk in device_ids.chunks(32) {
        let found: Vec<(String, String)> = on!(conn, db => {
            let mut query = sqlx::query_as(NAMED_DEVICE_KEYS_32.text());
            for index in 0..32 {
                // No device ID is empty, so an empty one finds nothing.
                query = query.bind(chunk.get(index).cloned().unwrap_or_default());
            }
            query.bind(user.0).fetch_all(&mut **db).await
        })?;
        rows.extend(found);
    }
    Ok(rows)
}

/// All devices of these users: user, device and device ID.
pub(crate) async fn devices(
    conn: &mut Conn<'_>,
    users: &[UserNid],
) -> Result<Vec<(UserNid, DeviceNid, String)>, Error> {
    let mut rows = Vec::new();
    for chunk in users.chunks(USERS_PER_STATEMENT) {
        let found: Vec<(i64, i64, String)> = on!(conn, db => {
            let mut query = sqlx::query_as(DEVICES_OF_USERS_32.text());
            for index in 0..USERS_PER_STATEMENT {
                query = query.bind(chunk.get(index).map_or(0, |user| user.0));
            }
            query.fetch_all(&mut **db).await
        })?;
        rows.extend(found.into_iter().map(|(user, device, id)| (UserNid(user), DeviceNid(device), id)));
    }
    Ok(rows)
}

/// The users whose device list changed last after `since`, oldest first, at most `limit`.
pub(crate) async fn changes_after(
    conn: &mut Conn<'_>,
    since: Position,
    limit: usize,
) -> Result<Vec<(Position, UserNid)>, Error> {
    let rows: Vec<(i64, i64)> = on!(conn, db => sqlx::query_as(CHANGES_AFTER.text())
        .bind(since.0).bind(limit as i64).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(pos, user)| (Position(pos), UserNid(user))).collect())
}
