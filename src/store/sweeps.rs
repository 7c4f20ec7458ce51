//! Deleting rows that have come to their end of life by age. They are looked up outside the committer, and deleted by
//! key inside it.

use super::{Conn, Database, Error, Position, Transaction, on, statements};

statements! {
    OLD_TXN_IDS = "SELECT device_nid, scope, txn FROM txn_id WHERE created_at < $1 \
        ORDER BY created_at, device_nid, scope, txn LIMIT $2";
    DELETE_TXN_ID = "DELETE FROM txn_id WHERE device_nid = $1 AND scope = $2 AND txn = $3";
}

/// The number of rows that are deleted in one transaction: every other write waits for it.
const BATCH: i64 = 200;

/// Deletes the transaction IDs used before this moment, and returns their number.
///
/// # Errors
/// Database errors; rows that were deleted until then stay deleted.
pub async fn forget_txn_ids(db: &Database, before_ms: i64) -> Result<u64, Error> {
    let mut forgotten = 0;
    loop {
        let mut reader = db.read().await?;
        let old: Vec<TxnKey> = on!(&mut reader.conn(), db => sqlx::query_as(OLD_TXN_IDS.text())
            .bind(before_ms).bind(BATCH).fetch_all(&mut **db).await)?;
        drop(reader);
        let count = old.len() as u64;
        if count == 0 {
            return Ok(forgotten);
        }
        db.committer().transact(DeleteTxnIds(old)).await?;
        forgotten += count;
    }
}

type TxnKey = (i64, String, String);

struct DeleteTxnIds(Vec<TxnKey>);

impl Transaction for DeleteTxnIds {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        for (device, scope, txn) in &self.0 {
            on!(conn, db => sqlx::query(DELETE_TXN_ID.text())
                .bind(device).bind(scope.as_str()).bind(txn.as_str()).execute(&mut **db).await.map(|_| ()))?;
        }
        Ok(())
    }
}
