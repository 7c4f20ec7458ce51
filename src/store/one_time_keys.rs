//! Rows of one-time and fallback keys, and the digests of those that were handed out.

use super::{
    Conn, DeviceNid, Error, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    NAMED_16 = "SELECT algorithm, key_id, json FROM one_time_key WHERE device_nid = $1 AND (algorithm, key_id) IN \
        (VALUES ($2, $3), ($4, $5), ($6, $7), ($8, $9), ($10, $11), ($12, $13), ($14, $15), ($16, $17), ($18, $19), \
        ($20, $21), ($22, $23), ($24, $25), ($26, $27), ($28, $29), ($30, $31), ($32, $33))";
    STORED_32 = "SELECT digest FROM one_time_key WHERE device_nid = $1 AND digest IN ($2, $3, $4, $5, $6, $7, $8, $9, $10, \
        $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)";
    COUNTS = "SELECT algorithm, COUNT(*) FROM one_time_key WHERE device_nid = $1 GROUP BY algorithm ORDER BY algorithm";
    UNUSED_FALLBACK = "SELECT algorithm FROM fallback_key WHERE device_nid = $1 AND used = $2 ORDER BY algorithm LIMIT 100";
    FALLBACK_OF_DEVICE = "SELECT algorithm, key_id, json FROM fallback_key WHERE device_nid = $1 ORDER BY algorithm LIMIT 100";
    /// Finding and deleting are one statement: a returned key is gone.
    TAKE_NEXT = "DELETE FROM one_time_key WHERE device_nid = $1 AND algorithm = $2 AND key_id = (SELECT key_id \
        FROM one_time_key WHERE device_nid = $1 AND algorithm = $2 ORDER BY seq, key_id LIMIT 1) \
        RETURNING key_id, digest, json";
    USE_FALLBACK = "UPDATE fallback_key SET used = $3 WHERE device_nid = $1 AND algorithm = $2 RETURNING key_id, json";
    CLAIMED_32 = "SELECT digest FROM claimed_key WHERE device_nid = $1 AND digest IN ($2, $3, $4, $5, $6, $7, $8, $9, $10, \
        $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)";
}

inserts! {
    ONE_TIME_KEY: OneTimeKeyColumns = "one_time_key" (
        device_nid: DeviceNid, algorithm: Text, key_id: Text, seq: i64, digest: Vec<u8>, json: Text
    ) key 3 Fail, followed by KeyCounts;
    CLAIMED_KEY: ClaimedKeyColumns = "claimed_key" (
        device_nid: DeviceNid, digest: Vec<u8>
    ) key 2 Keep, followed by KeyCounts;
    FALLBACK_KEY: FallbackKeyColumns = "fallback_key" (
        device_nid: DeviceNid, algorithm: Text, key_id: Text, json: Text, used: bool
    ) key 2 Replace, followed by KeyCounts;
}

/// A key as it was uploaded: algorithm, ID without its algorithm, JSON.
pub(crate) type KeyRow = (String, String, String);

/// The one-time keys with these names that are left. A name is an algorithm and an ID.
pub(crate) async fn named(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    names: &[(&str, &str)],
) -> Result<Vec<KeyRow>, Error> {
    let mut rows = Vec::new();
    for chunk in names.chunks(16) {
        let found: Vec<KeyRow> = on!(conn, db => {
            let mut query = sqlx::query_as(NAMED_16.text()).bind(device.0);
            for index in 0..16 {
                // No algorithm is empty, so an empty one finds nothing.
                let (algorithm, key_id) = chunk.get(index).copied().unwrap_or_default();
                query = query.bind(algorithm.to_owned()).bind(key_id.to_owned());
            }
            query.fetch_all(&mut **db).await
        })?;
        rows.extend(found);
    }
    Ok(rows)
}

/// The fallback keys, one for each algorithm.
pub(crate) async fn fallback_keys(conn: &mut Conn<'_>, device: DeviceNid) -> Result<Vec<KeyRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(FALLBACK_OF_DEVICE.text()).bind(device.0).fetch_all(&mut **db).await)?)
}

/// The number of one-time keys that are left, by algorithm; algorithms without any are missing.
pub(crate) async fn counts(conn: &mut Conn<'_>, device: DeviceNid) -> Result<Vec<(String, i64)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(COUNTS.text()).bind(device.0).fetch_all(&mut **db).await)?)
}

/// The algorithms whose fallback key has not been handed out.
pub(crate) async fn unused_fallback(conn: &mut Conn<'_>, device: DeviceNid) -> Result<Vec<String>, Error> {
    let rows: Vec<(String,)> = on!(conn, db =>
        sqlx::query_as(UNUSED_FALLBACK.text()).bind(device.0).bind(false).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(algorithm,)| algorithm).collect())
}

/// A key that was taken: its ID, its digest and its JSON.
pub(crate) type TakenRow = (String, Vec<u8>, String);

/// Takes the oldest one-time key. It is gone with the commit.
pub(crate) async fn take_next(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    algorithm: &str,
) -> Result<Option<TakenRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(TAKE_NEXT.text())
        .bind(device.0).bind(algorithm).fetch_optional(&mut **db).await)?)
}

/// Marks the fallback key as used and returns it.
pub(crate) async fn use_fallback(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    algorithm: &str,
) -> Result<Option<(String, String)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(USE_FALLBACK.text())
        .bind(device.0).bind(algorithm).bind(true).fetch_optional(&mut **db).await)?)
}

/// The digests among these that belong to keys that are left, or were handed out.
pub(crate) async fn known(conn: &mut Conn<'_>, device: DeviceNid, digests: &[[u8; 32]]) -> Result<Vec<Vec<u8>>, Error> {
    let mut found = Vec::new();
    for (statement, chunk) in digests.chunks(32).flat_map(|chunk| [(STORED_32, chunk), (CLAIMED_32, chunk)]) {
        let rows: Vec<(Vec<u8>,)> = on!(conn, db => {
            let mut query = sqlx::query_as(statement.text()).bind(device.0);
            for index in 0..32 {
                // No digest is empty, so an empty one finds nothing.
                query = query.bind(chunk.get(index).map(|digest| digest.to_vec()).unwrap_or_default());
            }
            query.fetch_all(&mut **db).await
        })?;
        found.extend(rows.into_iter().map(|(digest,)| digest));
    }
    Ok(found)
}
