//! Opening the database: the check of its owner, its schema, and the right to write to it.
//!
//! Promise: a database of another server, of a newer release or in use by another process is refused with one line that
//! says what to do. Nothing is repaired by creating new data.

mod error;
mod options;
mod postgres;
pub(super) mod server_info;
pub(super) mod slot;
mod sqlite;

use std::{fs::File, sync::Arc, time::Duration};

use sqlx::{PgPool, SqlitePool};
use tokio::task::JoinHandle;

pub use self::{
    error::OpenError,
    options::{DatabaseOptions, Durability, Location},
};
use self::{
    postgres::{open_postgres, question},
    server_info::{check_server_name, state_hash_secret},
    slot::{LeaseAtStart, take_slot},
    sqlite::open_sqlite,
};
use super::{
    Committer, Counters, Error, Position, Reader, Vocabulary,
    committer::{Reserve, Role, WriterConn},
    conn::{Bounds, Held, on},
    log::{Cursors, Feed, feed::LogEnd},
    terms,
};

/// The query for the engine's version. Its text differs, so it is not in the list that is prepared on both engines.
const ENGINE_VERSION: [&str; 2] = ["SELECT sqlite_version()", "SHOW server_version"];

/// The time for readers to finish when the database is closed. Requests have ended by then.
const READERS_CLOSE: Duration = Duration::from_secs(3);

enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// The open database: readers, the committer, and the vocabulary of short ids.
pub struct Database {
    pool: Pool,
    /// The time limits of readers for PostgreSQL.
    bounds: Bounds,
    committer: Committer,
    /// The committer's task, which returns the writing connection at its end.
    committer_task: std::sync::Mutex<Option<JoinHandle<WriterConn>>>,
    counters: Arc<Counters>,
    vocabulary: Arc<Vocabulary>,
    state_hash_secret: [u8; 32],
    start: i64,
    created: bool,
    /// Held for as long as the database is open; the lock goes with the file handle.
    _lock: Option<File>,
}

impl Database {
    /// Opens the database, brings its schema up to date and takes the right to write.
    ///
    /// # Errors
    /// Every [`OpenError`]; nothing has been changed then, except by migrations that had already succeeded.
    pub async fn open(options: DatabaseOptions) -> Result<Self, OpenError> {
        let counters = Arc::new(Counters::default());
        let (pool, engine, lock) = match &options.location {
            Location::Sqlite(_) if options.role == Role::Follow => return Err(OpenError::NotShared),
            Location::Sqlite(path) => open_sqlite(path, &options).await?,
            Location::Postgres(connect) => open_postgres(connect, &options).await?,
        };
        let mut writer = WriterConn::new(engine, options.incarnation, options.role, options.patience);
        let mut conn = writer.conn(&counters);
        let created = check_server_name(&mut conn, &options.server_name).await?;
        let state_hash_secret = state_hash_secret(&mut conn).await?;
        let slot = take_slot(&mut conn, &options).await?;
        let terms = terms::list(&mut conn).await?;
        let reserve = match &options.location {
            Location::Sqlite(path) => Some(Reserve::beside(path).await),
            Location::Postgres(_) => None,
        };
        let log_end = LogEnd::find_upto(&mut conn, slot.pos).await?;
        let committer = Committer::new(slot.pos, Feed::new(log_end), Arc::clone(&counters), &options, reserve);
        committer.terms().set(terms);
        let vocabulary = Arc::new(Vocabulary::default());
        committer.remember(Arc::<Vocabulary>::clone(&vocabulary));
        match slot.lease {
            LeaseAtStart::OurOwn(taken) => {
                writer.begin_term(&taken);
                committer.ids().open(taken.blocks);
                writer.log_bytes = Some(log_end.bytes);
            }
            LeaseAtStart::Taken(taken) => {
                writer.begin_term(&taken);
                committer.follow_others();
                committer.begin_term(taken);
            }
            LeaseAtStart::OfAnother => {
                writer.log_bytes = Some(log_end.bytes);
                committer.follow_others();
            }
        }
        let task = tokio::spawn(committer.clone().run(writer));
        Ok(Self {
            pool,
            bounds: Bounds { query: options.patience.read, question: question(&options.patience) },
            committer,
            committer_task: std::sync::Mutex::new(Some(task)),
            counters,
            vocabulary,
            state_hash_secret,
            start: options.incarnation,
            created,
            _lock: lock,
        })
    }

    /// Lets memory follow the commits of other processes from now on. Call it when all services on this database are there:
    /// a part of memory that comes later misses commits.
    pub fn follow(&self) {
        self.committer.memory_is_complete();
    }

    /// A connection for reading. On PostgreSQL, a query that is not answered in time ([`super::Patience::read`]) gives
    /// [`Error::Unavailable`], and the connection is closed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is none within a few seconds.
    pub async fn read(&self) -> Result<Reader<'_>, Error> {
        // Boxed, because the futures of all that read would keep 4 kB for it: those of 5,000 clients that come back after
        // a restart took 350 MB.
        let held = match &self.pool {
            Pool::Sqlite(pool) => Held::Sqlite(Box::pin(pool.acquire()).await?),
            Pool::Postgres(pool) => Held::Postgres(Box::pin(pool.acquire()).await.map_err(Error::no_connection)?),
        };
        Ok(Reader::new(held, &self.counters, self.bounds))
    }

    pub fn committer(&self) -> &Committer {
        &self.committer
    }

    /// The places of those who follow the commit log in this process.
    pub fn cursors(&self) -> &Cursors {
        self.committer.feed().cursors()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The secret with which the states of rooms are hashed. It is as old as the database, and nobody else learns it.
    pub fn state_hash_secret(&self) -> &[u8; 32] {
        &self.state_hash_secret
    }

    /// The number that names this start of the server.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The number that names the present term. Read it after the position that it is to stand beside.
    pub fn term(&self) -> i64 {
        self.committer.terms().current()
    }

    /// Returns whether this start created the database.
    pub fn is_new(&self) -> bool {
        self.created
    }

    /// The engine and its version, for people: `SQLite 3.51.0`.
    pub async fn engine(&self) -> Result<String, Error> {
        let mut reader = self.read().await?;
        let (name, text) =
            if reader.is_sqlite() { ("SQLite", ENGINE_VERSION[0]) } else { ("PostgreSQL", ENGINE_VERSION[1]) };
        let (version,): (String,) = on!(&mut reader.conn(), db => sqlx::query_as(text).fetch_one(&mut **db).await)?;
        Ok(format!("{name} {version}"))
    }

    /// Returns whether a term has reached `position`, as far as this database knows. Reads the terms again for one that is
    /// not in memory: another process may have begun it a moment ago.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn knows(&self, term: i64, position: Position) -> Result<bool, Error> {
        let terms = self.committer.terms();
        if let Some(reached) = terms.reached(term, position, self.committer.published()) {
            return Ok(reached);
        }
        // Boxed: every sync asks, and hardly one reads.
        let read = Box::pin(async {
            let mut reader = self.read().await?;
            terms::list(&mut reader.conn()).await
        });
        terms.set(read.await?);
        let reached = terms.reached(term, position, self.committer.published());
        if reached.is_none() {
            terms.note_unknown(term);
        }
        Ok(reached.unwrap_or(false))
    }

    /// Commits queued writes and closes all connections. The writing connection goes last: SQLite's log is then moved
    /// into the database file, which is only possible while nobody reads.
    pub async fn close(&self) {
        self.committer.stop();
        let task = super::ids::lock(&self.committer_task).take();
        let writer = match task {
            // A panic of the committer has been reported already.
            Some(task) => task.await.ok(),
            None => None,
        };
        let readers = async {
            match &self.pool {
                Pool::Sqlite(pool) => pool.close().await,
                Pool::Postgres(pool) => pool.close().await,
            }
        };
        if tokio::time::timeout(READERS_CLOSE, readers).await.is_err() {
            tracing::warn!("somebody still reads the database while it is closed");
        }
        if let Some(writer) = writer {
            writer.close().await;
        }
    }
}
