//! The check whether a server's database exists, without creating one.

use std::{io, path::Path};

use sqlx::{ConnectOptions as _, postgres::PgConnectOptions, sqlite::SqliteConnectOptions};

use super::{OpenError, open::Location};

/// The query for PostgreSQL. The table is the first of the schema.
const HAS_SCHEMA: &str = "SELECT to_regclass('server_info') IS NOT NULL";

/// The query for SQLite.
const FILE_HAS_SCHEMA: &str = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'server_info'";

/// Returns whether a server has ever been started on the database at this place.
///
/// # Errors
/// Fails if PostgreSQL cannot be asked, or if the file cannot be looked at.
pub async fn exists(location: &Location) -> Result<bool, OpenError> {
    match location {
        Location::Sqlite(path) => file_has_schema(path).await,
        Location::Postgres(options) => schema_exists(options).await,
    }
}

async fn file_has_schema(path: &Path) -> Result<bool, OpenError> {
    let size = match std::fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(OpenError::File { path: path.to_owned(), source }),
    };
    if size == 0 {
        return Ok(false);
    }
    // A file that SQLite cannot read may be a server's database; opening it then says what is wrong.
    Ok(look_into(path).await.unwrap_or(true))
}

async fn look_into(path: &Path) -> Result<bool, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false).disable_statement_logging();
    let mut conn = options.connect().await?;
    let (tables,): (i64,) = sqlx::query_as(FILE_HAS_SCHEMA).fetch_one(&mut conn).await?;
    sqlx::Connection::close(conn).await?;
    Ok(tables > 0)
}

async fn schema_exists(options: &PgConnectOptions) -> Result<bool, OpenError> {
    let connected = options.clone().disable_statement_logging().connect().await;
    let mut conn = connected.map_err(|error| OpenError::of_connecting(error, options))?;
    let (found,): (bool,) = sqlx::query_as(HAS_SCHEMA).fetch_one(&mut conn).await?;
    sqlx::Connection::close(conn).await?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_a_servers_database_only_with_its_tables() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let check = async |name: &str, expected: bool| {
            let location = Location::Sqlite(dir.path().join(name));
            assert_eq!(exists(&location).await.expect("it can be looked at"), expected, "{name}");
        };
        check("missing", false).await;
        assert!(!dir.path().join("missing").exists());
        std::fs::write(dir.path().join("empty"), "").expect("writable");
        check("empty", false).await;
        std::fs::write(dir.path().join("no database"), "text".repeat(1000)).expect("writable");
        check("no database", true).await;
        for (table, expected) in [("other", false), ("server_info", true)] {
            let options = SqliteConnectOptions::new().filename(dir.path().join(table)).create_if_missing(true);
            let mut conn = options.connect().await.expect("it is made");
            let made = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE TABLE {table} (x)"))).execute(&mut conn).await;
            made.expect("it is made");
            sqlx::Connection::close(conn).await.expect("it closes");
            check(table, expected).await;
        }
    }
}
