//! Rows of transaction IDs.

use super::{
    Conn, DeviceNid, Error, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    RECENT_TXN_IDS = "SELECT scope, txn, event_id FROM txn_id WHERE device_nid = $1 ORDER BY created_at DESC, txn LIMIT $2";
    FIND_TXN_ID = "SELECT event_id FROM txn_id WHERE device_nid = $1 AND scope = $2 AND txn = $3";
    SET_TXN_RESULT = "UPDATE txn_id SET event_id = $4 WHERE device_nid = $1 AND scope = $2 AND txn = $3";
}

inserts! {
    TXN_ID: TxnIdColumns = "txn_id" (
        device_nid: DeviceNid, scope: Text, txn: Text, event_id: Text, created_at: i64
    ) key 3 Fail, followed by Txn;
}

/// The latest transaction IDs of a device: scope, transaction ID and event ID, newest first.
pub(crate) async fn recent_txn_ids(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    limit: usize,
) -> Result<Vec<(String, String, String)>, Error> {
    Ok(
        on!(conn, db => sqlx::query_as(RECENT_TXN_IDS.text()).bind(device.0).bind(limit as i64).fetch_all(&mut **db).await)?,
    )
}

pub(crate) async fn find_txn_id(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    scope: &str,
    txn: &str,
) -> Result<Option<String>, Error> {
    let row: Option<(String,)> = on!(conn, db => sqlx::query_as(FIND_TXN_ID.text())
        .bind(device.0).bind(scope).bind(txn).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(event_id,)| event_id))
}

/// Changes the result of a transaction ID.
pub(crate) async fn set_txn_result(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    scope: &str,
    txn: &str,
    result: &str,
) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(SET_TXN_RESULT.text())
        .bind(device.0).bind(scope).bind(txn).bind(result).execute(&mut **db).await.map(|_| ()))?)
}
