//! Rows of devices, and of everything that ends with a device.

use std::collections::HashSet;

use super::{
    Conn, DeviceNid, Error, Position, UserNid,
    committer::insert_rows,
    device_keys::in_32,
    from_row,
    leftovers::{Leftover, leave_devices},
    log::Touch,
    on,
    rows::{Text, inserts},
    statements, tokens,
};

statements! {
    FIND_DEVICE = "SELECT device_nid, device_id, display_name, last_seen_at, last_seen_ip FROM device \
        WHERE user_nid = $1 AND device_id = $2";
    LIST_DEVICES = "SELECT device_nid, device_id, display_name, last_seen_at, last_seen_ip FROM device \
        WHERE user_nid = $1 ORDER BY device_nid LIMIT $2";
    COUNT_DEVICES = "SELECT COUNT(*) FROM device WHERE user_nid = $1";
    RENAME_DEVICE = "UPDATE device SET display_name = $1 WHERE user_nid = $2 AND device_id = $3 RETURNING device_nid";
    LAST_SEEN_USERS = "SELECT user_nid, MAX(last_seen_at) AS seen_at FROM device WHERE last_seen_at IS NOT NULL \
        GROUP BY user_nid ORDER BY seen_at DESC, user_nid LIMIT $1";
    STARTED_AT = "SELECT started_at FROM incarnation WHERE incarnation = $1";
    SET_LAST_SEEN = "UPDATE device SET last_seen_at = $1, last_seen_ip = $2 WHERE device_nid = $3";
    EXISTING_DEVICES_32 = concat!("SELECT device_nid FROM device WHERE device_nid IN ", in_32!(), " ORDER BY device_nid");
    DELETE_DEVICE = "DELETE FROM device WHERE device_nid = $1";
    DELETE_DEVICE_KEY = "DELETE FROM device_key WHERE device_nid = $1";
    DELETE_FALLBACK_KEYS = "DELETE FROM fallback_key WHERE device_nid = $1";
    DELETE_KEY_SIGNATURES = "DELETE FROM key_signature WHERE user_nid = $1 AND key_id = $2";
    DELETE_KEYS_OF_DEVICES = "DELETE FROM device_key WHERE device_nid IN \
        (SELECT device_nid FROM device WHERE user_nid = $1 AND device_nid <> $2)";
    DELETE_FALLBACK_OF_DEVICES = "DELETE FROM fallback_key WHERE device_nid IN \
        (SELECT device_nid FROM device WHERE user_nid = $1 AND device_nid <> $2)";
    DELETE_SIGNATURES_OF_DEVICES = "DELETE FROM key_signature WHERE user_nid = $1 AND key_id IN \
        (SELECT device_id FROM device WHERE user_nid = $1 AND device_nid <> $2)";
    DELETE_DEVICES = "DELETE FROM device WHERE user_nid = $1 AND device_nid <> $2 RETURNING device_nid";
}

inserts! {
    DEVICE: DeviceColumns = "device" (
        device_nid: DeviceNid, user_nid: UserNid, device_id: Text, display_name: Option<Text>, created_at: i64,
        last_seen_at: Option<i64>, last_seen_ip: Option<Text>
    ) key 1 Fail, followed by Device;
    DEVICE_CHANGE: DeviceChangeColumns = "device_change" (
        user_nid: UserNid, pos: Position
    ) key 1 Replace, followed by DeviceList;
}

/// A device of a local user.
#[derive(Debug, Clone)]
pub struct DeviceRow {
    pub device_nid: i64,
    pub device_id: String,
    pub display_name: Option<String>,
    pub last_seen_at: Option<i64>,
    pub last_seen_ip: Option<String>,
}

from_row!(DeviceRow { device_nid, device_id, display_name, last_seen_at, last_seen_ip });

/// The most devices of one user that are read: more than the configuration lets anyone have.
pub(crate) const MAX_LISTED: i64 = 100_000;

pub(crate) async fn find_device(conn: &mut Conn<'_>, user: UserNid, id: &str) -> Result<Option<DeviceRow>, Error> {
    Ok(on!(conn, db =>
        sqlx::query_as(FIND_DEVICE.text()).bind(user.0).bind(id).fetch_optional(&mut **db).await)?)
}

/// All devices of a user, oldest first.
pub(crate) async fn list_devices(conn: &mut Conn<'_>, user: UserNid) -> Result<Vec<DeviceRow>, Error> {
    Ok(on!(conn, db =>
        sqlx::query_as(LIST_DEVICES.text()).bind(user.0).bind(MAX_LISTED).fetch_all(&mut **db).await)?)
}

pub(crate) async fn count_devices(conn: &mut Conn<'_>, user: UserNid) -> Result<i64, Error> {
    let (count,): (i64,) =
        on!(conn, db => sqlx::query_as(COUNT_DEVICES.text()).bind(user.0).fetch_one(&mut **db).await)?;
    Ok(count)
}

/// The devices among these that have not been deleted. A commit stores data only for these.
pub(crate) async fn existing(conn: &mut Conn<'_>, devices: &[DeviceNid]) -> Result<HashSet<DeviceNid>, Error> {
    let mut existing = HashSet::with_capacity(devices.len());
    for chunk in devices.chunks(32) {
        let found: Vec<(i64,)> = on!(conn, db => {
            let mut query = sqlx::query_as(EXISTING_DEVICES_32.text());
            for index in 0..32 {
                // Ids start at 1, so 0 finds nothing.
                query = query.bind(chunk.get(index).map_or(0, |device| device.0));
            }
            query.fetch_all(&mut **db).await
        })?;
        existing.extend(found.into_iter().map(|(device,)| DeviceNid(device)));
    }
    Ok(existing)
}

/// Renames a device. Returns whether there was one.
pub(crate) async fn rename_device(
    conn: &mut Conn<'_>,
    user: UserNid,
    id: &str,
    name: Option<&str>,
) -> Result<bool, Error> {
    let renamed: Option<(i64,)> = on!(conn, db => sqlx::query_as(RENAME_DEVICE.text()).bind(name).bind(user.0).bind(id)
        .fetch_optional(&mut **db).await)?;
    if let Some((device,)) = renamed {
        conn.touch(Touch::Device { user, device: DeviceNid(device), gone: false });
    }
    Ok(renamed.is_some())
}

/// Marks the user's list of devices as changed at `position`.
pub(crate) async fn change_list(conn: &mut Conn<'_>, user: UserNid, position: Position) -> Result<(), Error> {
    conn.touch(Touch::DeviceList { user });
    insert_rows(conn, &[DeviceChangeColumns { user_nid: user, pos: position }.row()]).await
}

/// The users whose devices were seen last, with the time in milliseconds since 1970, latest first.
pub(crate) async fn last_seen_users(conn: &mut Conn<'_>, limit: usize) -> Result<Vec<(UserNid, i64)>, Error> {
    let rows: Vec<(i64, i64)> =
        on!(conn, db => sqlx::query_as(LAST_SEEN_USERS.text()).bind(limit as i64).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(user, seen_at)| (UserNid(user), seen_at)).collect())
}

/// The time of a start of the server, in milliseconds since 1970, if it is remembered.
pub(crate) async fn started_at(conn: &mut Conn<'_>, incarnation: i64) -> Result<Option<i64>, Error> {
    let found: Option<(i64,)> =
        on!(conn, db => sqlx::query_as(STARTED_AT.text()).bind(incarnation).fetch_optional(&mut **db).await)?;
    Ok(found.map(|(started_at,)| started_at))
}

pub(crate) async fn set_last_seen(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    at: i64,
    ip: Option<&str>,
) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(SET_LAST_SEEN.text()).bind(at).bind(ip).bind(device.0)
        .execute(&mut **db).await.map(drop))?)
}

/// Deletes a device with its tokens and public keys. A sweep deletes its
/// messages, one-time keys and transaction IDs later.
pub(crate) async fn delete_device(
    conn: &mut Conn<'_>,
    user: UserNid,
    device: DeviceNid,
    device_id: &str,
) -> Result<(), Error> {
    conn.touch(Touch::Device { user, device, gone: true });
    Leftover::Device(device).leave(conn).await?;
    for statement in [DELETE_DEVICE_KEY, DELETE_FALLBACK_KEYS, DELETE_DEVICE] {
        on!(conn, db => sqlx::query(statement.text()).bind(device.0).execute(&mut **db).await.map(drop))?;
    }
    on!(conn, db => sqlx::query(DELETE_KEY_SIGNATURES.text()).bind(user.0).bind(device_id)
        .execute(&mut **db).await.map(drop))?;
    tokens::delete_of_device(conn, device).await
}

/// Deletes all devices of a user except the kept one (0: none), as [`delete_device`] does, however many there are.
/// Returns their number.
pub(crate) async fn delete_devices(conn: &mut Conn<'_>, user: UserNid, kept: DeviceNid) -> Result<u64, Error> {
    leave_devices(conn, user, kept).await?;
    tokens::delete_of_devices(conn, user, kept).await?;
    for statement in [DELETE_KEYS_OF_DEVICES, DELETE_FALLBACK_OF_DEVICES, DELETE_SIGNATURES_OF_DEVICES] {
        on!(conn, db => sqlx::query(statement.text()).bind(user.0).bind(kept.0).execute(&mut **db).await.map(drop))?;
    }
    // The devices are deleted last, because the other statements look them up.
    let devices: Vec<(i64,)> = on!(conn, db => sqlx::query_as(DELETE_DEVICES.text())
        .bind(user.0).bind(kept.0).fetch_all(&mut **db).await)?;
    for (device,) in &devices {
        conn.touch(Touch::Device { user, device: DeviceNid(*device), gone: true });
    }
    Ok(devices.len() as u64)
}
