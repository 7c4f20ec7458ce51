//! One query text, two engines.
//!
//! [`Conn`] is a borrowed connection to either engine and [`on!`] compiles one body for both. Query texts are declared
//! with [`statements!`], which also lists them, so that a test can prepare every one of them on both engines.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use sqlx::{PgConnection, Postgres, Sqlite, SqliteConnection, pool::PoolConnection};

use super::RoomNid;

use super::log::Touch;

/// The work that the database was asked to do since the start. Tests and benchmarks check these counts.
#[derive(Debug, Default)]
pub struct Counters {
    statements: AtomicU64,
    rows_written: AtomicU64,
    log_rows: AtomicU64,
}

impl Counters {
    /// Statements sent to the database, reads and writes; a batch that goes out in one call counts once. A process that is
    /// alone asks about its lease without being counted.
    pub fn statements(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }

    /// Rows that the committer inserted or replaced, without those of the commit log.
    pub fn rows_written(&self) -> u64 {
        self.rows_written.load(Ordering::Relaxed)
    }

    /// Rows of the commit log: at most one for each batch.
    pub fn log_rows(&self) -> u64 {
        self.log_rows.load(Ordering::Relaxed)
    }

    pub(super) fn add_statement(&self) {
        self.statements.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("sabha_db_statements_total").increment(1);
    }

    pub(super) fn add_rows_written(&self, rows: u64) {
        self.rows_written.fetch_add(rows, Ordering::Relaxed);
        metrics::counter!("sabha_db_rows_written_total").increment(rows);
    }

    pub(super) fn add_log_row(&self) {
        self.log_rows.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("sabha_db_log_rows_total").increment(1);
    }
}

/// A connection to one of the two engines, borrowed for one piece of work.
pub struct Conn<'a> {
    pub(crate) link: Link<'a>,
    pub(super) counters: &'a Counters,
    pub(super) watch: Option<Watch<'a>>,
    /// The touches of the transaction that runs on the writing connection.
    pub(super) touches: Vec<Touch>,
}

/// The time limit for one query, and the flag that is set when one took longer.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    limit: Duration,
    silent: &'a AtomicBool,
}

pub(crate) enum Link<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

impl Conn<'_> {
    pub(crate) fn count_statement(&self) {
        self.counters.add_statement();
    }

    /// Names something that a [`Transaction`](super::Transaction) writes, for the entry of its batch in the commit log.
    /// Must come before the rows of a followed table.
    pub(crate) fn touch(&mut self, touch: Touch) {
        self.touches.push(touch);
    }

    /// The time limit for one query in PostgreSQL.
    pub(crate) fn limit(&self) -> Duration {
        self.watch.map_or(Duration::MAX, |watch| watch.limit)
    }

    /// Notes that there was no answer in time, so that the connection is not used again.
    pub(crate) fn gave_up(&self) -> sqlx::Error {
        if let Some(watch) = self.watch {
            watch.silent.store(true, Ordering::Relaxed);
        }
        late(self.limit())
    }
}

/// The error of an answer that did not come in time.
pub(super) fn late(limit: Duration) -> sqlx::Error {
    let text = format!("no answer within {} ms", limit.as_millis());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

/// Runs one body on the engine that the connection belongs to: `on!(conn, db => sqlx::query(…).execute(&mut
/// **db).await)`. A reader's connection to PostgreSQL is given up when it does not answer in time.
macro_rules! on {
    ($conn:expr, $db:ident => $body:expr) => {{
        let conn: &mut $crate::store::Conn<'_> = $conn;
        conn.count_statement();
        let limit = conn.limit();
        match &mut conn.link {
            $crate::store::conn::Link::Sqlite($db) => $body,
            $crate::store::conn::Link::Postgres($db) => {
                let answer = tokio::time::timeout(limit, async { $body }).await;
                answer.unwrap_or_else(|_| Err(conn.gave_up()))
            }
        }
    }};
}
pub(crate) use on;

/// Runs one body as [`on!`] does, on the writing connection and without a time limit: a commit has one as a whole.
macro_rules! at_writer {
    ($conn:expr, $db:ident => $body:expr) => {{
        let conn: &mut $crate::store::Conn<'_> = $conn;
        conn.count_statement();
        match &mut conn.link {
            $crate::store::conn::Link::Sqlite($db) => $body,
            $crate::store::conn::Link::Postgres($db) => $body,
        }
    }};
}
pub(crate) use at_writer;

/// A registered query text, valid on both engines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sql(&'static str);

impl Sql {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self(text)
    }

    pub(crate) const fn text(self) -> &'static str {
        self.0
    }
}

/// The parameters of 32 short ids, the first of a query text. Fewer ids are filled up with 0, which no row has.
macro_rules! ids_32 {
    () => {
        "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, \
        $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32"
    };
}
pub(crate) use ids_32;

/// Runs a query whose text begins with the parameters of [`ids_32`], for at most 32 short ids and the values after them.
macro_rules! fetch_32 {
    ($conn:expr, $sql:expr, $ids:expr $(, $more:expr)*) => {
        $crate::store::conn::on!($conn, db => {
            let mut query = sqlx::query_as($sql.text());
            for index in 0..32 {
                // Ids start at 1, so 0 finds nothing.
                query = query.bind($ids.get(index).map_or(0, |id| id.0));
            }
            $(query = query.bind($more);)*
            query.fetch_all(&mut **db).await
        })
    };
}
pub(crate) use fetch_32;

/// As [`fetch_32!`], for at most 32 texts of which none is empty.
macro_rules! fetch_texts_32 {
    ($conn:expr, $sql:expr, $texts:expr $(, $more:expr)*) => {
        $crate::store::conn::on!($conn, db => {
            let mut query = sqlx::query_as($sql.text());
            for index in 0..32 {
                query = query.bind($texts.get(index).copied().unwrap_or_default());
            }
            $(query = query.bind($more);)*
            query.fetch_all(&mut **db).await
        })
    };
}
pub(crate) use fetch_texts_32;

/// Declares the query texts of a file and lists them in `STATEMENTS` for the test that prepares them all.
macro_rules! statements {
    ($($(#[$meta:meta])* $vis:vis $name:ident = $text:expr;)+) => {
        $($(#[$meta])* $vis const $name: $crate::store::Sql = $crate::store::Sql::new($text);)+
        #[cfg(test)]
        pub(in crate::store) const STATEMENTS: &[(&str, $crate::store::Sql)] = &[$((stringify!($name), $name)),+];
    };
}
pub(crate) use statements;

/// Reads a struct from a row of either engine. Each field comes from the column of its name, or from the column that is
/// given: `from_row!(MessageRow { pos, kind = "type" })`.
///
/// It replaces sqlx's derive, whose macro crate builds all of sqlx, both engines and TLS, once more for the compiler's
/// own use.
macro_rules! from_row {
    ($struct:ident { $($field:ident $(= $column:literal)?),+ $(,)? }) => {
        $crate::store::conn::from_row!(@for sqlx::sqlite::SqliteRow, $struct { $($field $(= $column)?),+ });
        $crate::store::conn::from_row!(@for sqlx::postgres::PgRow, $struct { $($field $(= $column)?),+ });
    };
    (@for $row:ty, $struct:ident { $($field:ident $(= $column:literal)?),+ }) => {
        impl sqlx::FromRow<'_, $row> for $struct {
            fn from_row(row: &$row) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: sqlx::Row::try_get(row, $crate::store::conn::from_row!(@column $field $($column)?))?),+ })
            }
        }
    };
    (@column $field:ident) => { stringify!($field) };
    (@column $field:ident $column:literal) => { $column };
}
pub(crate) use from_row;

/// A row of one of several rooms; the column `room_nid` says of which.
#[derive(Debug)]
pub(crate) struct OfRoom<T> {
    pub(crate) room: RoomNid,
    pub(crate) row: T,
}

impl<'r, R: sqlx::Row, T: sqlx::FromRow<'r, R>> sqlx::FromRow<'r, R> for OfRoom<T>
where
    &'static str: sqlx::ColumnIndex<R>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self { room: RoomNid(row.try_get("room_nid")?), row: T::from_row(row)? })
    }
}

/// A connection for reading, returned to its pool when dropped.
pub struct Reader<'a> {
    held: Held,
    counters: &'a Counters,
    bounds: Bounds,
    /// Set when a query was not answered in time.
    silent: AtomicBool,
}

/// The time limits of a reader for PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The limit for one query.
    pub(super) query: Duration,
    /// The limit for pinging a connection that goes back to its pool.
    pub(super) question: Duration,
}

pub(super) enum Held {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

impl<'a> Reader<'a> {
    pub(super) fn new(held: Held, counters: &'a Counters, bounds: Bounds) -> Self {
        Self { held, counters, bounds, silent: AtomicBool::new(false) }
    }

    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self.held, Held::Sqlite(_))
    }

    pub fn conn(&mut self) -> Conn<'_> {
        let link = match &mut self.held {
            Held::Sqlite(conn) => Link::Sqlite(conn),
            Held::Postgres(conn) => Link::Postgres(conn),
        };
        let watch = Watch { limit: self.bounds.query, silent: &self.silent };
        Conn { link, counters: self.counters, watch: Some(watch), touches: Vec::new() }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let Held::Postgres(conn) = &mut self.held else { return };
        if *self.silent.get_mut() {
            conn.close_on_drop();
            return;
        }
        // The pool pings each connection that comes back, and would wait for the answer for ever; the place in the pool
        // would be lost. A connection that is dropped on the way gives its place back.
        tokio::spawn(tokio::time::timeout(self.bounds.question, conn.return_to_pool()));
    }
}
