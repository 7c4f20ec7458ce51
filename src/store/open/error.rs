//! The errors of opening a database, each of which says what to do.

use std::path::PathBuf;

use sqlx::{error::DatabaseError as _, migrate::MigrateError, sqlite::SqliteError};

use crate::store::{Error, migrations};

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

pub(super) fn migrated(result: Result<(), MigrateError>) -> Result<(), OpenError> {
    result.map_err(|error| match error {
        MigrateError::VersionMissing(found) => OpenError::NewerSchema { found, known: migrations::LATEST },
        MigrateError::VersionMismatch(number) => OpenError::OtherSchema { number },
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) if says_damaged(&error) => error.into(),
        error => OpenError::Migration(Box::new(error)),
    })
}
