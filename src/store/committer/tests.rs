//! Tests of the committer, on both engines where both can do it: an open database, its rows, and a statement in the queue.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use super::{CommitStep, Committed, Ended, Health, Lineage, MAX_QUEUE, Patience, Role, Transaction, Write};
use crate::{
    clock::Clock,
    store::{
        Conn, Database, DatabaseOptions, Error, FilterNid, Position, Row, UserNid,
        conn::on,
        filters::FilterColumns,
        ids::lock,
        tests::{options, postgres::PostgresDatabase},
    },
};

mod current;
mod end;
mod locks;
mod log;
mod memory;
mod pieces;
mod queue;
mod refused;
mod roles;

/// An open database, with the directory or the PostgreSQL database that holds it.
struct Opened {
    db: Database,
    url: String,
    _dir: tempfile::TempDir,
    _postgres: Option<PostgresDatabase>,
}

impl Opened {
    async fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite:{}", dir.path().join("sabha.db").display());
        Self { db: open(&url).await, url, _dir: dir, _postgres: None }
    }

    async fn both() -> Vec<Self> {
        let mut both = vec![Self::sqlite().await];
        if let Some(database) = PostgresDatabase::create().await {
            let (url, dir) = (database.url.clone(), tempfile::tempdir().expect("a temporary directory"));
            both.push(Self { db: open(&url).await, url, _dir: dir, _postgres: Some(database) });
        }
        both
    }

    /// Drops the database, and opens it as the next process would.
    async fn reopen(self) -> Self {
        let Self { db, url, _dir, _postgres } = self;
        drop(db);
        Self { db: open(&url).await, url, _dir, _postgres }
    }

    /// Queues a write of these rows.
    fn submit(&self, rows: Vec<Row>) -> Committed {
        self.db.committer().submit::<Error>(1, |_| Ok(Write::new(rows))).expect("there is room in the queue")
    }

    /// The IDs of the rows that [`row`] made.
    async fn stored(&self) -> Vec<i64> {
        let mut reader = self.db.read().await.expect("it is open");
        let text = "SELECT filter_id FROM filter WHERE user_nid = $1 ORDER BY filter_id";
        let rows: Vec<(i64,)> =
            on!(&mut reader.conn(), db => sqlx::query_as(text).bind(USER).fetch_all(&mut **db).await)
                .expect("it can be read");
        rows.into_iter().map(|(id,)| id).collect()
    }

    /// Changes the database behind the server's back.
    async fn execute(&self, text: &'static str) {
        if self.url.starts_with("sqlite:") {
            let mut conn = SqliteConnection::connect(&self.url).await.expect("it is there");
            sqlx::query(text).execute(&mut conn).await.expect("it runs");
        } else {
            let mut conn = PgConnection::connect(&self.url).await.expect("it is there");
            sqlx::query(text).execute(&mut conn).await.expect("it runs");
        }
    }
}

async fn open(url: &str) -> Database {
    let options = DatabaseOptions { incarnation: rand::random_range(1..i64::MAX), ..options(url) };
    Database::open(options).await.expect("it can be opened")
}

/// The time limit for what a test waits for, far more than it takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Returns whether somebody waits for a lock in the database of this connection.
async fn is_waiting_for_a_lock(conn: &mut PgConnection) -> bool {
    let text = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock')";
    sqlx::query_scalar(text).fetch_one(conn).await.expect("it runs")
}

const USER: i64 = 7;

/// A row that the database takes once.
fn row(id: i64) -> Row {
    FilterColumns { user_nid: UserNid(USER), filter_id: FilterNid(id), json: "{}".into() }.row()
}

/// A statement that runs in its place in the queue.
struct Execute(String);

impl Transaction for Execute {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        on!(conn, db => sqlx::raw_sql(AssertSqlSafe(self.0.clone())).execute(&mut **db).await.map(|_| ()))?;
        Ok(())
    }
}
