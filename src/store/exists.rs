//! Whether there is a database of a server, without making one.

use std::path::Path;

use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};

use super::{OpenError, open::Location};

/// PostgreSQL only; SQLite's database is a file. The table is the first of the schema.
const HAS_SCHEMA: &str = "SELECT to_regclass('server_info') IS NOT NULL";

/// Whether a server has ever been started on the database at this place.
///
/// # Errors
/// When PostgreSQL cannot be asked, or a file cannot be looked at.
pub async fn exists(location: &Location) -> Result<bool, OpenError> {
    match location {
        Location::Sqlite(path) => file_exists(path),
        Location::Postgres(options) => schema_exists(options).await,
    }
}

fn file_exists(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(|source| OpenError::File { path: path.to_owned(), source })
}

async fn schema_exists(options: &PgConnectOptions) -> Result<bool, OpenError> {
    let mut conn = options.clone().disable_statement_logging().connect().await?;
    let (found,): (bool,) = sqlx::query_as(HAS_SCHEMA).fetch_one(&mut conn).await?;
    sqlx::Connection::close(conn).await?;
    Ok(found)
}
