//! One transaction of the committer, with as few statements as possible: small batches of rows in one call
//! ([`super::one_call`]), everything else a statement for each table and piece.

use sqlx::{ConnectOptions, Connection, PgConnection, SqliteConnection};

use super::{
    Queued, Shared, Work,
    gathered::{Gathered, bind, chunks},
    one_call::Texts,
};
use crate::store::{
    Conn, Counters, Error, Position, Row, Value,
    conn::{Link, on, statements},
    ids::{BLOCK, Kind},
};

statements! {
    pub(in crate::store) RESERVE_IDS = "UPDATE counter SET next = next + $1 WHERE name = $2 RETURNING next";
    /// A stale epoch makes `pos` NULL, which the column refuses: another process owns the slot now.
    pub(super) MOVE_SLOT = "UPDATE writer_slot SET pos = CASE WHEN epoch = $1 THEN CAST($2 AS BIGINT) ELSE NULL END WHERE slot = $3";
    SLOT_POSITION = "SELECT pos FROM writer_slot WHERE slot = $1 AND epoch = $2";
}

/// The writing connection, with the right to write: slot and epoch.
pub(crate) struct WriterConn {
    pub(crate) engine: Engine,
    pub(crate) slot: i64,
    pub(crate) epoch: i64,
    /// The statements of small batches.
    texts: Texts,
}

pub(crate) enum Engine {
    Sqlite(Box<SqliteConnection>),
    Postgres { conn: Option<Box<PgConnection>>, options: Box<sqlx::postgres::PgConnectOptions> },
}

impl WriterConn {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, slot: 0, epoch: 0, texts: Texts::default() }
    }

    pub(super) async fn close(self) {
        let closed = match self.engine {
            Engine::Sqlite(conn) => conn.close().await,
            Engine::Postgres { conn: Some(conn), .. } => conn.close().await,
            Engine::Postgres { conn: None, .. } => Ok(()),
        };
        if let Err(error) = closed {
            tracing::warn!(%error, "closing the writing connection failed");
        }
    }

    /// Commits the batch, or stores nothing of it.
    pub(super) async fn commit(&mut self, shared: &Shared, batch: &[Queued]) -> Result<(), Error> {
        let Some(last) = batch.last().map(|queued| queued.position) else {
            return Ok(());
        };
        let low: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| shared.ids.is_low(*kind)).collect();
        self.reconnect().await?;
        let (slot, epoch) = (self.slot, self.epoch);
        // Out of the way while the connection is borrowed.
        let mut texts = std::mem::take(&mut self.texts);
        let mut conn = self.conn(&shared.counters);
        let in_one_call =
            if low.is_empty() { texts.commit(&mut conn, batch, (slot, epoch, last)).await } else { Ok(false) };
        let result = match in_one_call {
            Ok(true) => Ok(Vec::new()),
            Ok(false) => commit_step_by_step(&mut conn, batch, &low, (slot, epoch, last)).await,
            Err(error) => Err(error),
        };
        self.texts = texts;
        match result {
            Ok(blocks) => {
                for (kind, start) in blocks {
                    shared.ids.add_block(kind, start);
                }
                Ok(())
            }
            Err(error) => self.settle(shared, last, error).await,
        }
    }

    /// After a failure: rolls back, and finds out whether the commit happened although its answer was lost.
    async fn settle(&mut self, shared: &Shared, last: Position, error: Error) -> Result<(), Error> {
        let mut conn = self.conn(&shared.counters);
        if on!(&mut conn, db => sqlx::query("ROLLBACK").execute(&mut **db).await.map(|_| ())).is_ok() {
            return Err(error);
        }
        if let Engine::Postgres { conn, .. } = &mut self.engine {
            *conn = None;
        }
        self.reconnect().await.map_err(|_| error.clone())?;
        let (slot, epoch) = (self.slot, self.epoch);
        let mut conn = self.conn(&shared.counters);
        let stored: Option<(i64,)> = on!(&mut conn, db => sqlx::query_as(SLOT_POSITION.text()).bind(slot).bind(epoch).fetch_optional(&mut **db).await)?;
        if stored.is_some_and(|(pos,)| pos >= last.0) { Ok(()) } else { Err(error) }
    }

    async fn reconnect(&mut self) -> Result<(), Error> {
        if let Engine::Postgres { conn: conn @ None, options } = &mut self.engine {
            *conn = Some(Box::new(options.connect().await?));
        }
        Ok(())
    }

    pub(in crate::store) fn conn<'a>(&'a mut self, counters: &'a Counters) -> Conn<'a> {
        let link = match &mut self.engine {
            Engine::Sqlite(conn) => Link::Sqlite(conn),
            Engine::Postgres { conn, .. } => {
                Link::Postgres(conn.as_deref_mut().expect("reconnect() has made sure of a connection"))
            }
        };
        Conn { link, counters }
    }
}

async fn commit_step_by_step(
    conn: &mut Conn<'_>,
    batch: &[Queued],
    low: &[Kind],
    (slot, epoch, last): (i64, i64, Position),
) -> Result<Vec<(Kind, i64)>, Error> {
    let begin = if matches!(conn.link, Link::Sqlite(_)) { "BEGIN IMMEDIATE" } else { "BEGIN" };
    on!(conn, db => sqlx::query(begin).execute(&mut **db).await.map(|_| ()))?;
    let mut blocks = Vec::with_capacity(low.len());
    for kind in low {
        let (end,): (i64,) = on!(conn, db => sqlx::query_as(RESERVE_IDS.text())
            .bind(BLOCK).bind(kind.counter_name()).fetch_one(&mut **db).await)?;
        blocks.push((*kind, end - BLOCK));
    }
    let mut gathered = Gathered::default();
    for queued in batch {
        match &queued.work {
            Work::Write(write) => gathered.add(&write.rows),
            Work::Transaction(transaction) => {
                insert(conn, std::mem::take(&mut gathered)).await?;
                transaction.run(conn, queued.position).await?;
            }
        }
    }
    insert(conn, gathered).await?;
    on!(conn, db => sqlx::query(MOVE_SLOT.text()).bind(epoch).bind(last.0).bind(slot).execute(&mut **db).await.map(|_| ()))?;
    on!(conn, db => sqlx::query("COMMIT").execute(&mut **db).await.map(|_| ()))?;
    Ok(blocks)
}

async fn insert(conn: &mut Conn<'_>, gathered: Gathered<'_>) -> Result<(), Error> {
    let numbered = matches!(conn.link, Link::Postgres(_));
    for (insert, rows) in gathered.tables() {
        for chunk in chunks(&rows) {
            let text = insert.text(chunk.len().trailing_zeros() as usize, numbered);
            on!(conn, db => {
                let mut query = sqlx::query(text);
                for value in chunk.iter().flat_map(|row| row.values.iter()) {
                    query = bind!(query, value);
                }
                query.execute(&mut **db).await.map(|_| ())
            })?;
        }
    }
    conn.counters.add_rows_written(gathered.rows as u64);
    Ok(())
}

/// Inserts rows right away, inside a [`super::Transaction`].
pub(crate) async fn insert_rows(conn: &mut Conn<'_>, rows: &[Row]) -> Result<(), Error> {
    let mut gathered = Gathered::default();
    gathered.add(rows);
    insert(conn, gathered).await
}
