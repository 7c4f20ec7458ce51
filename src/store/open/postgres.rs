//! Opening PostgreSQL: the lock of the writer, the writing connection and the pool of readers.

use std::{fs::File, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{DatabaseOptions, Durability, OpenError, Pool, error::migrated};
use crate::store::{
    committer::{Engine, LOCK_KEY, Patience, Role, lock_query, set_limits},
    migrations,
};

/// The number of dead connections that a reader can try while it waits for one that answers.
const SILENT_AT_ONCE: u32 = 4;

/// The time after which PostgreSQL ends a query that its reader has given up.
const STATEMENT_MARGIN: Duration = Duration::from_secs(1);

/// The attempts to take the lock, two seconds together.
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn open_postgres(
    connect: &PgConnectOptions,
    options: &DatabaseOptions,
) -> Result<(Pool, Engine, Option<File>), OpenError> {
    let synchronous = match options.durability {
        Durability::Power => "on",
        Durability::Process => "off",
    };
    let connect = connect.clone().application_name("sabha").statement_cache_capacity(512).disable_statement_logging();
    let writer_options = connect.clone().options([("synchronous_commit", synchronous)]);
    let mut writer =
        writer_options.connect().await.map_err(|error| OpenError::of_connecting(error, &writer_options))?;
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
pub(super) fn question(patience: &Patience) -> Duration {
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
