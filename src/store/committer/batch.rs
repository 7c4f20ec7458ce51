//! One transaction of the committer: gathers rows by table and sends as few statements as possible.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};

use super::{Queued, Shared, Work};
use crate::store::{
    Conn, Counters, Error, Position, Row, Value,
    conn::{Link, on, statements},
    ids::{BLOCK, Kind},
    rows::{Insert, MAX_CHUNK, OnConflict},
};

statements! {
    RESERVE_IDS = "UPDATE counter SET next = next + $1 WHERE name = $2 RETURNING next";
    /// A stale epoch makes `pos` NULL, which the column refuses: another process owns the slot now.
    MOVE_SLOT = "UPDATE writer_slot SET pos = CASE WHEN epoch = $1 THEN CAST($2 AS BIGINT) ELSE NULL END WHERE slot = $3";
    SLOT_POSITION = "SELECT pos FROM writer_slot WHERE slot = $1 AND epoch = $2";
}

macro_rules! bind {
    ($query:ident, $value:expr) => {
        match $value {
            Value::Int(value) => $query.bind(*value),
            Value::OptInt(value) => $query.bind(*value),
            Value::Text(value) => $query.bind(value.clone()),
            Value::OptText(value) => $query.bind(value.clone()),
            Value::Blob(value) => $query.bind(value.clone()),
            Value::OptBlob(value) => $query.bind(value.clone()),
            Value::Bool(value) => $query.bind(*value),
        }
    };
}

/// Up to this many rows, a batch of plain rows goes out as one call: each call costs two thread hops or a round trip.
const ONE_CALL_ROWS: usize = 24;

/// How many statements of small batches are remembered.
const MAX_TEXTS: usize = 256;

/// The writing connection, with the right to write: slot and epoch.
pub(crate) struct WriterConn {
    pub(crate) engine: Engine,
    pub(crate) slot: i64,
    pub(crate) epoch: i64,
    /// The statements of small batches, by their shape.
    texts: HashMap<Shape, Arc<str>>,
}

pub(crate) enum Engine {
    Sqlite(Box<SqliteConnection>),
    Postgres { conn: Option<Box<PgConnection>>, options: Box<sqlx::postgres::PgConnectOptions> },
}

impl WriterConn {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, slot: 0, epoch: 0, texts: HashMap::new() }
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
        let in_one_call = if low.is_empty() {
            commit_in_one_call(&mut conn, &mut texts, batch, (slot, epoch, last)).await
        } else {
            Ok(false)
        };
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

/// What a batch of plain rows looks like: how many rows for which table.
type Shape = Vec<(usize, usize)>;

/// Commits a small batch of nothing but rows in one call. `false`: this batch needs the long way.
async fn commit_in_one_call(
    conn: &mut Conn<'_>,
    texts: &mut HashMap<Shape, Arc<str>>,
    batch: &[Queued],
    (slot, epoch, last): (i64, i64, Position),
) -> Result<bool, Error> {
    let mut gathered = Gathered::default();
    for queued in batch {
        let Work::Write(write) = &queued.work else {
            return Ok(false);
        };
        gathered.add(&write.rows);
    }
    if gathered.rows > ONE_CALL_ROWS {
        return Ok(false);
    }
    let tables: Vec<_> = gathered.tables().collect();
    let shape: Shape =
        tables.iter().map(|(insert, rows)| (std::ptr::from_ref::<Insert>(insert).addr(), rows.len())).collect();
    let text = match texts.get(&shape) {
        Some(text) => Arc::clone(text),
        None => {
            let inserts: Vec<_> = tables.iter().map(|(insert, rows)| (*insert, rows.len())).collect();
            let text: Arc<str> = match conn.link {
                Link::Sqlite(_) => sqlite_text(&inserts).into(),
                Link::Postgres(_) => postgres_text(&inserts).into(),
            };
            if texts.len() >= MAX_TEXTS {
                texts.clear();
            }
            texts.insert(shape, Arc::clone(&text));
            text
        }
    };
    let slot_values = [Value::Int(epoch), Value::Int(last.0), Value::Int(slot)];
    let values = tables.iter().flat_map(|(_, rows)| rows.iter().flat_map(|row| row.values.iter())).chain(&slot_values);
    on!(conn, db => {
        let mut query = sqlx::query(AssertSqlSafe(text));
        for value in values {
            query = bind!(query, value);
        }
        query.execute(&mut **db).await.map(|_| ())
    })?;
    conn.counters.add_rows_written(gathered.rows as u64);
    Ok(true)
}

/// SQLite takes several statements at once, and counts the places of `?` through all of them.
fn sqlite_text(inserts: &[(&'static Insert, usize)]) -> String {
    let mut text = String::from("BEGIN IMMEDIATE; ");
    for (insert, rows) in inserts {
        text.push_str(&insert.render(*rows, None, &mut 0));
        text.push_str("; ");
    }
    text.push_str("UPDATE writer_slot SET pos = CASE WHEN epoch = ? THEN ? ELSE NULL END WHERE slot = ?; COMMIT");
    text
}

/// PostgreSQL takes one statement, which is a transaction by itself and may hold others.
fn postgres_text(inserts: &[(&'static Insert, usize)]) -> String {
    let mut text = String::from("WITH ");
    let mut number = 0;
    for (index, (insert, rows)) in inserts.iter().enumerate() {
        text.push_str(&format!("w{index} AS ({}), ", insert.render(*rows, Some('$'), &mut number)));
    }
    let [epoch, pos, slot] = [number + 1, number + 2, number + 3];
    text.push_str(&format!(
        "slot AS (UPDATE writer_slot SET pos = CASE WHEN epoch = CAST(${epoch} AS BIGINT) \
         THEN CAST(${pos} AS BIGINT) ELSE NULL END WHERE slot = ${slot}) SELECT 1"
    ));
    text
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

/// Rows by table, tables in the order of their first row.
#[derive(Default)]
struct Gathered<'a> {
    order: Vec<&'static Insert>,
    by_table: HashMap<usize, Vec<&'a Row>>,
    rows: usize,
}

impl<'a> Gathered<'a> {
    fn add(&mut self, rows: &'a [Row]) {
        for row in rows {
            let rows = self.by_table.entry(std::ptr::from_ref(row.insert).addr()).or_insert_with(|| {
                self.order.push(row.insert);
                Vec::new()
            });
            rows.push(row);
            self.rows += 1;
        }
    }

    fn tables(&self) -> impl Iterator<Item = (&'static Insert, Vec<&'a Row>)> {
        self.order.iter().map(|insert| {
            let rows = &self.by_table[&std::ptr::from_ref::<Insert>(insert).addr()];
            (*insert, if insert.on_conflict == OnConflict::Replace { latest(rows) } else { rows.clone() })
        })
    }
}

/// Of rows with the same key, the last one: PostgreSQL replaces a row only once in a statement.
fn latest<'a>(rows: &[&'a Row]) -> Vec<&'a Row> {
    let mut seen = HashSet::with_capacity(rows.len());
    let mut kept: Vec<&Row> = rows.iter().rev().filter(|row| seen.insert(key_bytes(row))).copied().collect();
    kept.reverse();
    kept
}

fn key_bytes(row: &Row) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    for value in row.key() {
        match value {
            Value::Int(n) => bytes.extend(n.to_le_bytes()),
            Value::Text(text) => {
                bytes.extend(text.as_bytes());
                bytes.push(0xff);
            }
            Value::Blob(blob) => bytes.extend(blob),
            Value::OptInt(_) | Value::OptText(_) | Value::OptBlob(_) | Value::Bool(_) => {
                debug_assert!(false, "a key column is a number, a text or a blob");
            }
        }
    }
    bytes
}

/// Cuts rows into pieces of powers of two, the largest first.
fn chunks<'r, 'a>(mut rows: &'r [&'a Row]) -> impl Iterator<Item = &'r [&'a Row]> {
    std::iter::from_fn(move || {
        if rows.is_empty() {
            return None;
        }
        let size = (1 << rows.len().ilog2()).min(MAX_CHUNK);
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}
