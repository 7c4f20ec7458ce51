//! A small batch of nothing but rows, committed in one call: `BEGIN`, the rows, the slot and `COMMIT` as one text.
//!
//! A text depends only on the pieces of its batch ([`Piece`]), so the usual texts are made once and remembered, here and by
//! the database as prepared statements. A test prepares them on both engines.

use std::{collections::HashMap, future::poll_fn, sync::Arc};

use sqlx::{AssertSqlSafe, Executor as _, SqliteConnection, postgres::PgArguments, sqlite::SqliteArguments};

use super::{
    QueuedWrite, Work,
    batch::MOVE_SLOT,
    gathered::{Gathered, arguments, pieces, values},
    logged::{Frame, log_bytes, touches_of},
};
use crate::store::{Conn, Error, Value, conn::Link, pieces::Piece};

/// The most plain rows of a batch that goes out as one call: twelve messages. Step by step, a batch takes a dozen calls, each
/// with two thread hops or a round trip. The prepared statements of all shapes take memory, which grows with the square of
/// this number.
const ONE_CALL_ROWS: usize = 64;

/// `BEGIN`, the slot and `COMMIT`.
const STATEMENTS_AROUND: usize = 3;

/// The number of texts of small batches that are remembered.
const MAX_TEXTS: usize = 256;

/// The texts that were sent before, by the shape of their batch.
#[derive(Default)]
pub(super) struct Texts(HashMap<Vec<Piece>, Arc<str>>);

impl Texts {
    /// Commits a small batch of nothing but rows. Returns the bytes that it added to the log, or `None` if this
    /// batch needs the long way; nothing was done then.
    pub(super) async fn commit(
        &mut self,
        conn: &mut Conn<'_>,
        batch: &[QueuedWrite],
        frame: Frame<'_>,
    ) -> Result<Option<u64>, Error> {
        let mut gathered = Gathered::default();
        for queued in batch {
            let Work::Write(write) = &queued.work else {
                return Ok(None);
            };
            gathered.add(&write.rows);
        }
        if gathered.len() > ONE_CALL_ROWS {
            return Ok(None);
        }
        // The last table of every text, so that texts of the same tables begin alike.
        let log_row = frame.log_row(batch.iter().flat_map(touches_of).collect());
        gathered.add_log_row(log_row.as_ref());
        let rows = gathered.rows();
        let shape = pieces(&rows);
        let text = self.text(&shape, matches!(conn.link, Link::Postgres(_)));
        let slot_values = [Value::Int(frame.epoch), Value::Int(frame.last.0)];
        let values = values(&shape, &rows).chain(&slot_values);
        conn.count_statement();
        match &mut conn.link {
            Link::Sqlite(db) => run_all(db, text, arguments(values)?, shape.len() + STATEMENTS_AROUND).await?,
            Link::Postgres(db) => {
                let arguments: PgArguments = arguments(values)?;
                sqlx::query_with(AssertSqlSafe(text), arguments).execute(&mut **db).await.map(|_| ())?;
            }
        }
        gathered.count(conn.counters);
        Ok(Some(log_bytes(log_row.as_ref())))
    }

    fn text(&mut self, shape: &[Piece], postgres: bool) -> Arc<str> {
        if let Some(text) = self.0.get(shape) {
            return Arc::clone(text);
        }
        let text: Arc<str> = if postgres { postgres_text(shape) } else { sqlite_text(shape) }.into();
        if self.0.len() >= MAX_TEXTS {
            self.0.clear();
        }
        self.0.insert(shape.to_vec(), Arc::clone(&text));
        text
    }
}

/// Runs a text of so many statements, and waits for the answer to the last one. To wait for the end of the answers as well, as
/// sqlx does, would let SQLite's thread wake us once more.
///
/// # Errors
/// The error of the first statement that fails; those behind it are not run. [`sqlx::Error::WorkerCrashed`] if an answer is
/// missing.
async fn run_all(
    conn: &mut SqliteConnection,
    text: Arc<str>,
    arguments: SqliteArguments,
    statements: usize,
) -> Result<(), sqlx::Error> {
    let mut answers = conn.fetch_many(sqlx::query_with(AssertSqlSafe(text), arguments));
    for _ in 0..statements {
        poll_fn(|cx| answers.as_mut().poll_next(cx)).await.ok_or(sqlx::Error::WorkerCrashed)??;
    }
    Ok(())
}

/// SQLite takes several statements at once, and counts the places of `?` through all of them.
pub(in crate::store) fn sqlite_text(pieces: &[Piece]) -> String {
    let mut text = String::from("BEGIN IMMEDIATE; ");
    for piece in pieces {
        text.push_str(&piece.render(None, &mut 0));
        text.push_str("; ");
    }
    text.push_str(&move_slot(|_| "?".to_owned()));
    text.push_str("; COMMIT");
    text
}

/// PostgreSQL takes one statement, which is a transaction by itself and may hold others.
///
/// The slot must be locked before any other row (see `commit_step_by_step`). PostgreSQL runs the main statement first, and
/// then those in `WITH` that nothing refers to. Its manual does not promise that order, so a test looks for it:
/// `tests::locks`.
pub(in crate::store) fn postgres_text(pieces: &[Piece]) -> String {
    let mut number = 0;
    let parts = pieces.iter().enumerate();
    let parts: Vec<_> =
        parts.map(|(index, piece)| format!("w{index} AS ({})", piece.render(Some('$'), &mut number))).collect();
    let with = if parts.is_empty() { String::new() } else { format!("WITH {} ", parts.join(", ")) };
    with + &move_slot(|place| format!("${}", number + place))
}

/// [`MOVE_SLOT`] with its places, which come once each and in order, written another way.
fn move_slot(mut written: impl FnMut(usize) -> String) -> String {
    let mut parts = MOVE_SLOT.text().split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (index, part) in parts.enumerate() {
        // After the sign comes one digit.
        text.push_str(&written(index + 1));
        text.push_str(&part[1..]);
    }
    text
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    async fn connection() -> SqliteConnection {
        SqliteConnection::connect("sqlite::memory:").await.expect("it needs no file")
    }

    async fn run(conn: &mut SqliteConnection, text: &str, statements: usize) -> Result<(), sqlx::Error> {
        run_all(conn, text.into(), SqliteArguments::default(), statements).await
    }

    #[tokio::test]
    async fn the_answer_of_the_commit_is_waited_for_and_the_connection_is_free_then() {
        let mut conn = connection().await;
        let schema = "CREATE TABLE a (b INTEGER NOT NULL PRIMARY KEY); \
            CREATE TABLE c (b INTEGER NOT NULL REFERENCES a (b) DEFERRABLE INITIALLY DEFERRED)";
        run(&mut conn, schema, 2).await.expect("two tables");
        // Only the commit finds that there is no such row.
        let refused = run(&mut conn, "BEGIN; INSERT INTO c (b) VALUES (1); COMMIT", 3).await;
        assert!(matches!(refused, Err(sqlx::Error::Database(_))), "{refused:?}");
        run(&mut conn, "ROLLBACK", 1).await.expect("the transaction is still open");
        let stored = "BEGIN; INSERT INTO c (b) VALUES (1); INSERT INTO a (b) VALUES (1); COMMIT";
        for text in [stored, "BEGIN; DELETE FROM c; DELETE FROM a; COMMIT", stored] {
            run(&mut conn, text, 4).await.expect("nothing is wrong with it");
        }
        let (rows,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM c").fetch_one(&mut conn).await.expect("it is free");
        assert_eq!(rows, 1);
    }

    #[tokio::test]
    async fn a_missing_answer_is_an_error() {
        // The answers end as they do when SQLite's thread ends between two statements.
        let ended = run(&mut connection().await, "CREATE TABLE a (b INTEGER)", 2).await;
        assert!(matches!(ended, Err(sqlx::Error::WorkerCrashed)), "{ended:?}");
    }
}
