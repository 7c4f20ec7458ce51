//! The writing connection: how it is made, lost and regained.
//!
//! When PostgreSQL's connection is lost, nobody knows what happens to the batch: the old backend may have committed it,
//! may be about to, or may never receive it. So nothing else is written before that is known. The new connection raises
//! the slot's epoch. That waits for the old backend through the lock of the row, and shuts it out afterwards. The same
//! statement reads the slot's position: the batch is stored if the position has reached it. If the row no longer names
//! us as its holder, another process has taken over and this one must end.

use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection, postgres::PgConnectOptions};

use super::{Patience, Role, Shared, one_call::Texts};
use crate::{
    report::Report,
    store::{
        Conn, Counters, Error, Position,
        conn::{Link, at_writer, late, statements},
        log::lease,
    },
};

statements! {
    /// Each attempt sets a higher epoch than those before, so one that arrives late changes nothing.
    RAISE_EPOCH = "UPDATE writer_slot SET epoch = $1 WHERE slot = 0 AND holder = $2 AND epoch < $1 RETURNING pos";
}

/// The query that takes a lock which keeps a second process away with a clear error. Processes that share the database
/// share the lock. For PostgreSQL only; see `store::open`.
pub(in crate::store) fn lock_query(role: Role) -> &'static str {
    match role {
        Role::Lead => "SELECT pg_try_advisory_lock($1)",
        Role::Follow => "SELECT pg_try_advisory_lock_shared($1)",
    }
}

/// The key of the lock: any number that nobody else uses in our database.
pub(in crate::store) const LOCK_KEY: i64 = 0x5ab4a;

/// The pauses between attempts to reach the database: each twice as long as the one before.
pub(super) struct Pauses(Duration);

impl Pauses {
    /// Short enough that a restart of the database is hardly noticed.
    const FIRST: Duration = Duration::from_millis(50);
    /// Long enough for a database that is away for hours.
    const LONGEST: Duration = Duration::from_secs(2);

    pub(super) fn new() -> Self {
        Self(Self::FIRST)
    }

    /// Waits for the next attempt. An error if the committer is to stop.
    pub(super) async fn wait(&mut self, shared: &Shared) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(self.0) => {}
            () = shared.stop.cancelled() => return Err(Failure::Stopped),
        }
        self.0 = (self.0 * 2).min(Self::LONGEST);
        Ok(())
    }
}

/// The writing connection, with the right to write: epoch and the name of the holder.
pub(crate) struct WriterConn {
    pub(crate) engine: Engine,
    pub(crate) epoch: i64,
    /// The bytes of the commit log up to the visible position; `None` if the database must be asked.
    pub(crate) log_bytes: Option<u64>,
    pub(crate) holder: i64,
    /// The highest epoch that was asked for. The outcome of an attempt without an answer is not known.
    pub(super) asked_epoch: i64,
    /// Set when the lock that keeps others away was lost with a connection, and has to be taken again.
    pub(super) unlocked: bool,
    role: Role,
    pub(super) patience: Patience,
    /// The statements of small batches.
    pub(super) texts: Texts,
}

pub(crate) enum Engine {
    Sqlite(Box<SqliteConnection>),
    Postgres { conn: Option<Box<PgConnection>>, options: Box<PgConnectOptions> },
}

/// The outcome of a batch that was not answered with success.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing of it is stored.
    Refused(Error),
    /// Nothing of it is stored, because the connection was lost. There is a new one.
    Lost(Error),
    /// The slot belongs to another process.
    Fenced,
    /// The server stopped before the outcome was known.
    Stopped,
}

impl WriterConn {
    pub(crate) fn new(engine: Engine, holder: i64, role: Role, patience: Patience) -> Self {
        Self {
            engine,
            epoch: 0,
            log_bytes: None,
            holder,
            asked_epoch: 0,
            unlocked: false,
            role,
            patience,
            texts: Texts::default(),
        }
    }

    /// Closes the connection. SQLite's log is moved into the database file before, which works only while nobody reads.
    pub(crate) async fn close(self) {
        let closed = match self.engine {
            Engine::Sqlite(mut conn) => {
                put_log_away(&mut conn).await;
                conn.close().await
            }
            Engine::Postgres { conn: Some(conn), .. } => conn.close().await,
            Engine::Postgres { conn: None, .. } => Ok(()),
        };
        if let Err(error) = closed {
            tracing::warn!(error = %Report(&error), "closing the writing connection failed");
        }
    }

    pub(in crate::store) fn conn<'a>(&'a mut self, counters: &'a Counters) -> Conn<'a> {
        let link = match &mut self.engine {
            Engine::Sqlite(conn) => Link::Sqlite(conn),
            Engine::Postgres { conn, .. } => {
                Link::Postgres(conn.as_deref_mut().expect("a lost connection is regained before anything else is done"))
            }
        };
        // A commit has a time limit as a whole.
        Conn { link, counters, watch: None, touches: Vec::new() }
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(&self.engine, Engine::Postgres { conn: None, .. })
    }

    /// Drops a connection that has failed.
    pub(super) fn lose(&mut self) {
        if let Engine::Postgres { conn, .. } = &mut self.engine {
            *conn = None;
        }
    }

    /// Drops a connection that does not answer.
    pub(super) fn give_up(&mut self, limit: Duration) -> Error {
        self.lose();
        late(limit).into()
    }

    /// Rolls back after a failure, and finds out whether the batch that ends at `last` is stored all the same.
    pub(super) async fn settle(&mut self, shared: &Shared, last: Position, error: Error) -> Result<(), Failure> {
        if !self.is_lost() {
            match self.roll_back(shared).await {
                Ok(Some(position)) if position >= last => return Ok(()),
                Ok(Some(_)) => return Err(Failure::Refused(error)),
                Ok(None) => return Err(Failure::Fenced),
                // A file does not go away; the disk below it has failed.
                Err(_) if matches!(self.engine, Engine::Sqlite(_)) => return Err(Failure::Refused(error)),
                Err(rollback) => {
                    tracing::debug!(error = %Report(&rollback), "rollback not answered");
                    self.lose();
                }
            }
        }
        let position = self.regain(shared).await?;
        if position >= last { Ok(()) } else { Err(Failure::Lost(error)) }
    }

    /// Rolls back and reads the slot's position; `None` if the slot is not ours any more.
    async fn roll_back(&mut self, shared: &Shared) -> Result<Option<Position>, Error> {
        let (epoch, limit) = (self.epoch, self.patience.connect);
        let is_sqlite = matches!(self.engine, Engine::Sqlite(_));
        let mut conn = self.conn(&shared.counters);
        let ask = async {
            let rolled_back = at_writer!(&mut conn, db => sqlx::query("ROLLBACK").execute(&mut **db).await.map(|_| ()));
            // SQLite has already rolled back after some errors, and then says that there is nothing to roll back.
            if !is_sqlite {
                rolled_back?;
            }
            lease::find_position(&mut conn, epoch).await
        };
        if is_sqlite { ask.await } else { within(limit, ask).await }
    }

    /// Connects again, as often as it takes, and shuts the old connection out. Returns the slot's position.
    pub(super) async fn regain(&mut self, shared: &Shared) -> Result<Position, Failure> {
        tracing::warn!("lost the connection to the database");
        let mut pauses = Pauses::new();
        loop {
            match self.raise_epoch().await {
                Ok(Some(position)) => {
                    tracing::info!(position = position.0, "regained the connection to the database");
                    return Ok(position);
                }
                Ok(None) => return Err(Failure::Fenced),
                Err(error) => tracing::debug!(error = %Report(&error), "the database is still away"),
            }
            pauses.wait(shared).await?;
        }
    }

    /// Makes one attempt to connect and to raise the epoch. `None`: the slot is not ours any more.
    async fn raise_epoch(&mut self) -> Result<Option<Position>, Error> {
        let Engine::Postgres { conn: current, options } = &mut self.engine else {
            return Err(Error::Waiting); // SQLite has no connection to lose.
        };
        let mut conn = connect(options, &self.patience).await?;
        let epoch = self.asked_epoch.max(self.epoch) + 1;
        self.asked_epoch = epoch;
        // Longer than it can wait for the lock of the row.
        let raised: Result<Option<(i64,)>, Error> = within(self.patience.lock + self.patience.connect, async {
            let raise = sqlx::query_as(RAISE_EPOCH.text()).bind(epoch).bind(self.holder);
            Ok(raise.fetch_optional(&mut conn).await?)
        })
        .await;
        match raised? {
            Some((pos,)) => {
                *current = Some(Box::new(conn));
                self.epoch = epoch;
                self.unlocked = true;
                Ok(Some(Position(pos)))
            }
            None => Ok(None),
        }
    }

    /// Takes the lock again that was lost with a connection. The old backend has the lock until it has ended; the epoch
    /// keeps two writers apart meanwhile. Drops a connection that does not answer.
    pub(super) async fn lock_again(&mut self) -> Result<(), Error> {
        let limit = self.patience.connect;
        let Engine::Postgres { conn: current, .. } = &mut self.engine else { return Ok(()) };
        let Some(conn) = current.as_deref_mut().filter(|_| self.unlocked) else { return Ok(()) };
        let locked: Result<(bool,), Error> =
            within(limit, async { Ok(sqlx::query_as(lock_query(self.role)).bind(LOCK_KEY).fetch_one(conn).await?) })
                .await;
        match locked {
            Ok((true,)) => self.unlocked = false,
            Ok((false,)) => {}
            Err(error @ Error::Unavailable(_)) => {
                *current = None;
                return Err(error);
            }
            // The lock only gives a clear error: a PostgreSQL that answers but refuses it must not stop a commit.
            Err(error) => tracing::debug!(error = %Report(&error), "lock not taken"),
        }
        Ok(())
    }
}

/// Makes a new writing connection.
pub(super) async fn connect(options: &PgConnectOptions, patience: &Patience) -> Result<PgConnection, Error> {
    within(patience.connect, async {
        let mut conn = options.connect().await?;
        set_limits(&mut conn, patience).await?;
        Ok(conn)
    })
    .await
}

/// Limits the waits of a writing connection: for locks that somebody else holds, for one statement, and between the
/// statements of a transaction. The last limit ends the backend of a process that is gone.
pub(in crate::store) async fn set_limits(conn: &mut PgConnection, patience: &Patience) -> Result<(), Error> {
    let text = format!(
        "SET lock_timeout = {}; SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}",
        patience.lock.as_millis(),
        patience.statement.as_millis(),
        patience.lock.as_millis(),
    );
    sqlx::raw_sql(AssertSqlSafe(text)).execute(conn).await?;
    Ok(())
}

/// The answer of the database, or an error after `limit`.
pub(super) async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late(limit).into()))
}

/// Moves SQLite's log into the database file, so that the file alone is a whole copy of everything.
async fn put_log_away(conn: &mut SqliteConnection) {
    // The text is not in the list that is prepared on both engines: only SQLite has such a log.
    match sqlx::query_as::<_, (i64, i64, i64)>("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(conn).await {
        Ok((0, ..)) => {}
        Ok((_, frames, stored)) => {
            tracing::warn!(frames, stored, "somebody still reads: the log of the database stays beside it");
        }
        Err(error) => tracing::warn!(error = %Report(&error), "the log of the database could not be put away"),
    }
}
