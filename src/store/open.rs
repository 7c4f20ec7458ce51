//! Opening the database: the check of its owner, its schema, and the right to write to it.
//!
//! Promise: a database of another server, of a newer release or in use by another process is refused with one line that
//! says what to do. Nothing is repaired by creating new data.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sqlx::{
    ConnectOptions, Connection as _, PgConnection, PgPool, SqlitePool,
    error::DatabaseError as _,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteError, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::task::JoinHandle;

use super::{
    Committer, Conn, Counters, Error, Position, Reader, Vocabulary, Write,
    committer::{Engine, LOCK_KEY, Patience, Reserve, Role, WriterConn, lock_query, new_term_number, set_limits},
    conn::{Bounds, Held, on, statements},
    log::{
        Cursors, Feed,
        feed::LogEnd,
        lease::{self, Taken},
    },
    migrations,
    rows::{Text, inserts},
    terms::{self, Term},
};
use crate::clock::Clock;

statements! {
    FIND_INFO = "SELECT value FROM server_info WHERE name = $1";
    SET_INFO = "INSERT INTO server_info (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    NEW_SLOT = "INSERT INTO writer_slot (slot, epoch, pos, holder, beat) VALUES (0, 0, 0, 0, 0) ON CONFLICT DO NOTHING";
    TAKE_SLOT = "UPDATE writer_slot SET epoch = epoch + 1, holder = $1 WHERE slot = 0 RETURNING epoch, pos";
}

inserts! {
    SERVER_INFO: ServerInfoColumns = "server_info" (name: Text, value: Text) key 1 Fail, not followed;
}

/// The name of the secret in `server_info`, where it is in base64.
const STATE_HASH_KEY: &str = "state_hash_key";

/// The query for the engine's version. Its text differs, so it is not in the list that is prepared on both engines.
const ENGINE_VERSION: [&str; 2] = ["SELECT sqlite_version()", "SHOW server_version"];

/// The time for readers to finish when the database is closed. Requests have ended by then.
const READERS_CLOSE: Duration = Duration::from_secs(3);

/// The time limit for getting a connection for reading SQLite. A reader waits only when all are in use.
const SQLITE_ACQUIRE: Duration = Duration::from_secs(30);

/// The number of dead connections that a reader can try while it waits for one that answers.
const SILENT_AT_ONCE: u32 = 4;

/// The time after which PostgreSQL ends a query that its reader has given up.
const STATEMENT_MARGIN: Duration = Duration::from_secs(1);

/// The attempts to take the lock, two seconds together.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The failure that a committed write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Loss of power: every commit is synced to disk before it is answered.
    #[default]
    Power,
    /// The end of the process, but not of the machine.
    Process,
}

#[derive(Debug, Clone)]
pub enum Location {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    pub location: Location,
    pub durability: Durability,
    /// The number of connections for reading.
    pub readers: u32,
    pub server_name: String,
    /// The part that this process plays. Only on PostgreSQL may there be others.
    pub role: Role,
    /// A random number that names this start of the server.
    pub incarnation: i64,
    pub clock: Clock,
    pub patience: Patience,
}

impl DatabaseOptions {
    /// # Errors
    /// [`OpenError::Url`] when `url` is neither `sqlite:PATH` nor `postgres://…`.
    pub fn location(url: &str) -> Result<Location, OpenError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return Ok(Location::Sqlite(path.trim_start_matches("//").into()));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = url.parse().map_err(|error: sqlx::Error| OpenError::Url(error.to_string()))?;
            return Ok(Location::Postgres(Box::new(options)));
        }
        Err(OpenError::Url("it must start with sqlite: or postgres://".to_owned()))
    }
}

/// Errors of opening the database. `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the database URL cannot be used: {0}")]
    Url(String),
    #[error(
        "this database belongs to the server name \"{found}\", but the configuration says \"{configured}\": set \
         server_name = \"{found}\", or use another database"
    )]
    OtherServer { found: String, configured: String },
    #[error(
        "this database was written by a newer release of Sabha (schema {found}; this one knows up to {known}): start the \
         newer release, or restore a backup from before the upgrade"
    )]
    NewerSchema { found: i64, known: i64 },
    #[error("another process is using this database ({0}): stop it first")]
    InUse(String),
    #[error("several processes can share a database only on PostgreSQL")]
    NotShared,
    #[error("{path} cannot be used")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "this database was made by another build of Sabha, with another schema under the same number ({number}), and before \
         the first release there is no way from one to the other: start the build that made it, or use another database"
    )]
    OtherSchema { number: i64 },
    #[error(
        "the database file is damaged: keep a copy of it, and put the latest backup in its place (see \"Backup\" in \
         docs/operating/README.md)"
    )]
    DamagedFile(#[source] Error),
    #[error("the database schema could not be brought up to date")]
    Migration(#[source] Box<MigrateError>),
    #[error("the database could not be opened (database.url in the configuration says where it is)")]
    Database(#[from] Error),
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        if says_damaged(&error) { Self::DamagedFile(error.into()) } else { Self::Database(error.into()) }
    }
}

/// Returns whether SQLite says that the file is not a database, or no longer a whole one (`SQLITE_CORRUPT`,
/// `SQLITE_NOTADB`).
fn says_damaged(error: &sqlx::Error) -> bool {
    const DAMAGED: [&str; 2] = ["11", "26"];
    let database_error = error.as_database_error().and_then(|error| error.try_downcast_ref::<SqliteError>());
    database_error.and_then(|error| error.code()).is_some_and(|code| DAMAGED.contains(&&*code))
}

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
            Lease::OurOwn(taken) => {
                writer.begin_term(&taken);
                committer.ids().open(taken.blocks);
                writer.log_bytes = Some(log_end.bytes);
            }
            Lease::Taken(taken) => {
                writer.begin_term(&taken);
                committer.follow_others();
                committer.begin_term(taken);
            }
            Lease::OfAnother => {
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

    /// A connection for reading. On PostgreSQL, a query that is not answered in time ([`Patience::read`]) gives
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

    /// A fact about this database, such as its signing key.
    pub async fn find_info(&self, name: &str) -> Result<Option<String>, Error> {
        let mut reader = self.read().await?;
        let found: Option<(String,)> = on!(&mut reader.conn(), db =>
            sqlx::query_as(FIND_INFO.text()).bind(name).fetch_optional(&mut **db).await)?;
        Ok(found.map(|(value,)| value))
    }

    /// Stores a fact for ever. Fails if there is one of this name.
    pub async fn set_info(&self, name: &'static str, value: String) -> Result<(), Error> {
        self.committer
            .write(Write::new(vec![ServerInfoColumns { name: name.into(), value: value.into() }.row()]))
            .await
            .map(|_| ())
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

async fn open_sqlite(path: &Path, options: &DatabaseOptions) -> Result<(Pool, Engine, Option<File>), OpenError> {
    let file = |source| OpenError::File { path: path.to_owned(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(file)?;
    }
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.display().to_string())),
        Err(TryLockError::Error(source)) => return Err(file(source)),
    }
    let synchronous = match options.durability {
        Durability::Power => SqliteSynchronous::Full,
        Durability::Process => SqliteSynchronous::Normal,
    };
    let base =
        SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10)).disable_statement_logging();
    let mut writer = base
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        // 16 MiB of log between checkpoints: fewer checkpoints under load, and still a short recovery.
        .pragma("wal_autocheckpoint", "4000")
        .pragma("journal_size_limit", "67108864")
        .pragma("temp_store", "MEMORY")
        .statement_cache_capacity(512)
        .connect()
        .await?;
    migrated(migrations::sqlite().run(&mut writer).await)?;
    let readers = base.read_only(true).pragma("query_only", "1").statement_cache_capacity(256);
    let pool = SqlitePoolOptions::new()
        .max_connections(options.readers)
        .test_before_acquire(false)
        .acquire_timeout(SQLITE_ACQUIRE)
        .connect_lazy_with(readers);
    Ok((Pool::Sqlite(pool), Engine::Sqlite(Box::new(writer)), Some(lock)))
}

async fn open_postgres(
    connect: &PgConnectOptions,
    options: &DatabaseOptions,
) -> Result<(Pool, Engine, Option<File>), OpenError> {
    let synchronous = match options.durability {
        Durability::Power => "on",
        Durability::Process => "off",
    };
    let connect = connect.clone().application_name("sabha").statement_cache_capacity(512).disable_statement_logging();
    let writer_options = connect.clone().options([("synchronous_commit", synchronous)]);
    let mut writer = writer_options.connect().await?;
    lock_postgres(&mut writer, options.role).await?;
    migrated(migrations::postgres().run(&mut writer).await)?;
    // Only now, because a migration may take as long as it needs.
    set_limits(&mut writer, &options.patience).await?;
    let unasked = options.patience.idle;
    let question = question(&options.patience);
    // A query that its reader gave up ends on both sides. PostgreSQL ends it second, so that it always ends in the same
    // way.
    let read_timeout = (options.patience.read + STATEMENT_MARGIN).as_millis().to_string();
    let readers = connect.options([("statement_timeout", read_timeout)]);
    let pool = PgPoolOptions::new()
        .max_connections(options.readers)
        .test_before_acquire(false)
        .before_acquire(move |conn, meta| {
            Box::pin(async move {
                if meta.idle_for < unasked {
                    return Ok(true);
                }
                // A connection that has died, or does not answer, is replaced, and nobody notices.
                Ok(matches!(tokio::time::timeout(question, conn.ping()).await, Ok(Ok(()))))
            })
        })
        .acquire_timeout(options.patience.acquire)
        .connect_lazy_with(readers);
    let engine = Engine::Postgres { conn: Some(Box::new(writer)), options: Box::new(writer_options) };
    Ok((Pool::Postgres(pool), engine, None))
}

/// The time limit for pinging a connection of the pool.
fn question(patience: &Patience) -> Duration {
    patience.acquire / SILENT_AT_ONCE
}

/// Takes a lock that lasts as long as the writing connection. A second process gets a clear error here, unless both are to
/// share the database. If this lock is lost with its connection, the epoch still keeps two writers apart.
async fn lock_postgres(writer: &mut PgConnection, role: Role) -> Result<(), OpenError> {
    for attempt in 0..LOCK_ATTEMPTS {
        let (locked,): (bool,) = sqlx::query_as(lock_query(role)).bind(LOCK_KEY).fetch_one(&mut *writer).await?;
        if locked {
            return Ok(());
        }
        // PostgreSQL notices the end of a killed process only when it next reads from its socket.
        if attempt + 1 < LOCK_ATTEMPTS {
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }
    Err(OpenError::InUse("on PostgreSQL".to_owned()))
}

fn migrated(result: Result<(), MigrateError>) -> Result<(), OpenError> {
    result.map_err(|error| match error {
        MigrateError::VersionMissing(found) => OpenError::NewerSchema { found, known: migrations::LATEST },
        MigrateError::VersionMismatch(number) => OpenError::OtherSchema { number },
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) if says_damaged(&error) => error.into(),
        error => OpenError::Migration(Box::new(error)),
    })
}

/// Checks the server name in the database and returns whether the database is new. A new one gets this server's name,
/// for ever.
async fn check_server_name(conn: &mut Conn<'_>, configured: &str) -> Result<bool, OpenError> {
    let found: Option<(String,)> =
        on!(conn, db => sqlx::query_as(FIND_INFO.text()).bind("server_name").fetch_optional(&mut **db).await)?;
    match found {
        Some((found,)) if found == configured => Ok(false),
        Some((found,)) => Err(OpenError::OtherServer { found, configured: configured.to_owned() }),
        None => {
            on!(conn, db => sqlx::query(SET_INFO.text()).bind("server_name").bind(configured).execute(&mut **db).await.map(|_| ()))?;
            Ok(true)
        }
    }
}

/// The secret that the first start has drawn.
async fn state_hash_secret(conn: &mut Conn<'_>) -> Result<[u8; 32], Error> {
    let found: Option<(String,)> =
        on!(conn, db => sqlx::query_as(FIND_INFO.text()).bind(STATE_HASH_KEY).fetch_optional(&mut **db).await)?;
    if let Some((text,)) = found {
        let bytes = BASE64_STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        return bytes.ok_or_else(|| Error::damaged("server_info", STATE_HASH_KEY));
    }
    let secret: [u8; 32] = rand::random();
    let text = BASE64_STANDARD.encode(secret);
    on!(conn, db => sqlx::query(SET_INFO.text()).bind(STATE_HASH_KEY).bind(text).execute(&mut **db).await.map(|_| ()))?;
    // Another process may have been first.
    Box::pin(state_hash_secret(conn)).await
}

/// The slot at the start of this process.
struct SlotAtStart {
    /// The last committed position.
    pos: Position,
    lease: Lease,
}

enum Lease {
    /// For this process alone.
    OurOwn(Taken),
    /// It was free, and others may follow.
    Taken(Taken),
    OfAnother,
}

/// Takes the right to write, in a shared database only if nobody has it.
async fn take_slot(conn: &mut Conn<'_>, options: &DatabaseOptions) -> Result<SlotAtStart, OpenError> {
    on!(conn, db => sqlx::query(NEW_SLOT.text()).execute(&mut **db).await.map(|_| ()))?;
    let now_ms = options.clock.now_ms();
    if options.role == Role::Follow {
        let slot = lease::read(conn).await?;
        let taken = match slot.holder {
            lease::NOBODY => lease::take(conn, slot, new_term_number(), now_ms).await?,
            _ => None,
        };
        return Ok(SlotAtStart { pos: slot.pos, lease: taken.map_or(Lease::OfAnother, Lease::Taken) });
    }
    let number = options.incarnation;
    let (epoch, pos): (i64, i64) =
        on!(conn, db => sqlx::query_as(TAKE_SLOT.text()).bind(number).fetch_one(&mut **db).await)?;
    let term = Term { number, epoch, after: Position(pos) };
    Ok(SlotAtStart { pos: term.after, lease: Lease::OurOwn(lease::begin(conn, term, now_ms).await?) })
}
