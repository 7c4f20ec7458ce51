//! One transaction of the committer, with as few statements as possible: a small batch of rows goes in one call
//! ([`super::one_call`]), everything else in statements of up to [`MAX_CHUNK`](crate::store::rows::MAX_CHUNK) rows of a table.

use std::sync::{Arc, OnceLock};

use sqlx::{postgres::PgArguments, sqlite::SqliteArguments};

use super::{
    QueuedWrite, Role, Shared, Work,
    connection::{Engine, Failure, WriterConn},
    gathered::{Gathered, arguments, chunks},
    logged::{Frame, log_bytes, touches_of},
};
use crate::store::{
    Conn, Error, Position, Row,
    conn::{Link, at_writer, statements},
    ids::{BLOCK, Kind},
    log::{LogEntry, feed::LogEnd},
};

statements! {
    pub(in crate::store) RESERVE_IDS = "UPDATE counter SET next = next + $1 WHERE name = $2 RETURNING next";
    /// A stale epoch makes `pos` NULL, which the column refuses: another process owns the slot now.
    pub(super) MOVE_SLOT = "UPDATE writer_slot SET pos = CASE WHEN epoch = $1 THEN CAST($2 AS BIGINT) ELSE NULL END WHERE slot = 0";
}

impl WriterConn {
    /// Commits the batch, or stores nothing of it. Returns only when it is known which. Returns the entry of the commit
    /// log, if the batch has one.
    pub(super) async fn commit(
        &mut self,
        shared: &Shared,
        batch: &[QueuedWrite],
    ) -> Result<Option<Arc<LogEntry>>, Failure> {
        let Some(last) = batch.last().map(|queued| queued.position) else {
            return Ok(None);
        };
        let limit = self.patience.commit;
        // Outside of what a time limit may drop: the batch may be stored then.
        let sent = OnceLock::new();
        let stored = match &self.engine {
            Engine::Sqlite(_) => self.store(shared, batch, last, &sent).await,
            Engine::Postgres { .. } => {
                let stored = tokio::time::timeout(limit, self.lock_and_store(shared, batch, last, &sent)).await;
                stored.unwrap_or_else(|_| Err(self.give_up(limit)))
            }
        };
        if let Err(error) = stored {
            match self.settle(shared, last, error).await {
                Ok(()) => {}
                // The next commit finds that the lease is another's.
                Err(Failure::Fenced) if shared.role == Role::Follow && self.was_stored(shared, last).await? => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(sent.into_inner())
    }

    /// Sends the batch as [`Self::store`] does, after asking for the lock again if it was lost.
    async fn lock_and_store(
        &mut self,
        shared: &Shared,
        batch: &[QueuedWrite],
        last: Position,
        sent: &OnceLock<Arc<LogEntry>>,
    ) -> Result<(), Error> {
        self.lock_again().await?;
        self.store(shared, batch, last, sent).await
    }

    /// Sends the batch. After an error it may be stored or not.
    async fn store(
        &mut self,
        shared: &Shared,
        batch: &[QueuedWrite],
        last: Position,
        sent: &OnceLock<Arc<LogEntry>>,
    ) -> Result<(), Error> {
        let low: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| shared.ids.is_low(*kind)).collect();
        let (epoch, known) = (self.epoch, self.log_bytes.take());
        // Taken out while the connection is borrowed.
        let mut texts = std::mem::take(&mut self.texts);
        let mut conn = self.conn(&shared.counters);
        let bytes_before = match known {
            Some(bytes) => bytes,
            // After a start, and after a commit whose outcome was not certain.
            None => LogEnd::find_upto(&mut conn, shared.published()).await?.bytes,
        };
        let frame = Frame { after: shared.published(), last, at_ms: shared.clock.now_ms(), epoch, bytes_before, sent };
        let in_one_call = if low.is_empty() { texts.commit(&mut conn, batch, frame).await } else { Ok(None) };
        let blocks = match in_one_call {
            Ok(Some(bytes)) => Ok((Vec::new(), bytes)),
            Ok(None) => commit_step_by_step(&mut conn, batch, &low, frame).await,
            Err(error) => Err(error),
        };
        self.texts = texts;
        let (blocks, bytes) = blocks?;
        self.log_bytes = Some(bytes_before + bytes);
        for (kind, start) in blocks {
            shared.ids.add_block(kind, start);
        }
        Ok(())
    }
}

async fn commit_step_by_step(
    conn: &mut Conn<'_>,
    batch: &[QueuedWrite],
    low: &[Kind],
    frame: Frame<'_>,
) -> Result<(Vec<(Kind, i64)>, u64), Error> {
    let begin = if matches!(conn.link, Link::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" };
    at_writer!(conn, db => sqlx::query(begin).execute(&mut **db).await.map(|_| ()))?;
    // The slot comes first, as in a batch of one call and when the lease is taken. Otherwise a holder that has lost the
    // lease and the new one could wait for each other. The old holder would hold a row of the log and wait for the slot; the
    // new one holds the slot and waits for that row.
    at_writer!(conn, db => sqlx::query(MOVE_SLOT.text()).bind(frame.epoch).bind(frame.last.0).execute(&mut **db).await.map(|_| ()))?;
    let mut blocks = Vec::with_capacity(low.len());
    for kind in low {
        let (end,): (i64,) = at_writer!(conn, db => sqlx::query_as(RESERVE_IDS.text())
            .bind(BLOCK).bind(kind.counter_name()).fetch_one(&mut **db).await)?;
        blocks.push((*kind, end - BLOCK));
    }
    let mut gathered = Gathered::default();
    let mut touches = Vec::new();
    for queued in batch {
        touches.extend(touches_of(queued));
        match &queued.work {
            Work::Write(write) => gathered.add(&write.rows),
            Work::Transaction(transaction) => {
                insert(conn, std::mem::take(&mut gathered)).await?;
                transaction.run(conn, queued.position).await?;
                touches.extend(conn.touches.drain(..).map(|touch| (queued.position, touch)));
            }
        }
    }
    // In the transaction of the batch, so the log holds exactly what is stored.
    let log_row = frame.log_row(touches);
    gathered.add_log_row(log_row.as_ref());
    insert(conn, gathered).await?;
    at_writer!(conn, db => sqlx::query("COMMIT").execute(&mut **db).await.map(|_| ()))?;
    Ok((blocks, log_bytes(log_row.as_ref())))
}

async fn insert(conn: &mut Conn<'_>, gathered: Gathered<'_>) -> Result<(), Error> {
    let numbered = matches!(conn.link, Link::Postgres(_));
    for rows in gathered.rows().chunk_by(|a, b| a.insert == b.insert) {
        for chunk in chunks(rows) {
            let text = rows[0].insert.text(chunk.len().trailing_zeros() as usize, numbered);
            let values = chunk.iter().flat_map(|row| row.values.iter());
            conn.count_statement();
            match &mut conn.link {
                Link::Sqlite(db) => {
                    let arguments: SqliteArguments = arguments(values)?;
                    sqlx::query_with(text, arguments).execute(&mut **db).await.map(|_| ())?;
                }
                Link::Postgres(db) => {
                    let arguments: PgArguments = arguments(values)?;
                    sqlx::query_with(text, arguments).execute(&mut **db).await.map(|_| ())?;
                }
            }
        }
    }
    gathered.count(conn.counters);
    Ok(())
}

/// Inserts rows right away, inside a [`super::Transaction`] that has touched their tables ([`Conn::touch`]).
pub(crate) async fn insert_rows(conn: &mut Conn<'_>, rows: &[Row]) -> Result<(), Error> {
    for row in rows {
        row.check_touched(conn.touches.iter());
    }
    let mut gathered = Gathered::default();
    gathered.add(rows);
    insert(conn, gathered).await
}
