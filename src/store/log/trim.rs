//! Trimming: deleting the entries of the log that nobody needs any more.
//!
//! An entry goes when every stored cursor is past it, ten minutes after its commit at the earliest. It goes in any case
//! after seven days, or when the log after it has more than 1 GiB: a cursor that is still before it reads the tables then.
//! The last entry of those that may go always stays. It shows a cursor that nothing after it is missing, and the newest
//! entry of all knows the size of the log.

use std::time::Duration;

use super::{
    age,
    decode::{HEAD_BYTES, Head, head},
    feed::{EntryRow, MAX_AGE, MAX_BYTES},
};
use crate::store::{
    Conn, Database, Error, Position, Transaction,
    conn::{at_writer, on, statements},
};

statements! {
    HEADS = "SELECT pos, substr(touched, 1, CAST($1 AS INTEGER)) FROM commit_log WHERE pos > 0 ORDER BY pos LIMIT $2";
    DELETE_BEFORE = "DELETE FROM commit_log WHERE pos < $1";
    DELETE_AFTER = "DELETE FROM commit_log WHERE pos > $1";
}

/// The age at which an entry may go. Until then another process finds it that had lost a hint and looks for what it missed.
const MIN_AGE: Duration = Duration::from_secs(600);

/// The number of entries that are looked at, and deleted in one commit: a few milliseconds, for which others wait.
const AT_ONCE: usize = 2000;

/// Deletes the entries that may go, a piece in each commit.
pub(super) async fn trim(db: &Database, now_ms: i64) -> Result<(), Error> {
    let Some(slowest) = db.cursors().slowest() else { return Ok(()) };
    loop {
        let expiry = Expiry { slowest, now_ms, bytes: db.committer().feed().bytes() };
        let mut reader = db.read().await?;
        let oldest: Vec<EntryRow> = on!(&mut reader.conn(), db => sqlx::query_as(HEADS.text())
            .bind(HEAD_BYTES).bind(AT_ONCE as i64).fetch_all(&mut **db).await)?;
        drop(reader);
        let free = oldest.iter().take_while(|row| expiry.may_go(row)).count();
        // The last one of them stays.
        let Some((before, _)) = free.checked_sub(1).filter(|gone| *gone > 0).and_then(|last| oldest.get(last)) else {
            return Ok(());
        };
        db.committer().transact(DeleteBefore(Position(*before))).await?;
        if free < AT_ONCE {
            return Ok(());
        }
    }
}

/// Deletes entries after the last committed position, which no commit has made: a commit that comes to such a position would
/// fail. Call it only with the right to write, or they may be the commits of another process.
pub(in crate::store) async fn delete_after(conn: &mut Conn<'_>, last: Position) -> Result<(), Error> {
    let rows = at_writer!(conn, db => sqlx::query(DELETE_AFTER.text())
        .bind(last.0).execute(&mut **db).await.map(|done| done.rows_affected()))?;
    if rows > 0 {
        tracing::error!(
            rows,
            position = last.0,
            "the commit log has entries after the last committed position, so the database is damaged or was changed by \
             others: deleting them"
        );
    }
    Ok(())
}

/// The facts that decide whether an entry may go.
struct Expiry {
    slowest: Position,
    now_ms: i64,
    bytes: u64,
}

impl Expiry {
    fn may_go(&self, (pos, first_bytes): &EntryRow) -> bool {
        let is_passed = Position(*pos) <= self.slowest;
        match head(first_bytes) {
            Ok(head) => (is_passed && age(head.at_ms, self.now_ms) >= MIN_AGE) || self.is_too_old(head),
            // It says nothing any more.
            Err(_) => is_passed,
        }
    }

    fn is_too_old(&self, head: Head) -> bool {
        age(head.at_ms, self.now_ms) > MAX_AGE || self.bytes.saturating_sub(head.bytes_before) > MAX_BYTES
    }
}

struct DeleteBefore(Position);

impl Transaction for DeleteBefore {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        Ok(on!(conn, db => sqlx::query(DELETE_BEFORE.text()).bind(self.0.0).execute(&mut **db).await.map(drop))?)
    }
}
