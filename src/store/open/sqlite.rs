//! Opening SQLite: the lock of its file, the writing connection and the pool of readers.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    time::Duration,
};

use sqlx::{
    ConnectOptions as _,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{DatabaseOptions, Durability, OpenError, Pool, error::migrated};
use crate::store::{committer::Engine, migrations};

/// The time limit for getting a connection for reading SQLite. A reader waits only when all are in use.
const SQLITE_ACQUIRE: Duration = Duration::from_secs(30);

pub(super) async fn open_sqlite(
    path: &Path,
    options: &DatabaseOptions,
) -> Result<(Pool, Engine, Option<File>), OpenError> {
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
