//! The errors of opening a database, each of which says what to do.

use std::path::PathBuf;

use sqlx::{error::DatabaseError as _, migrate::MigrateError, postgres::PgConnectOptions, sqlite::SqliteError};

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
    #[error(
        "PostgreSQL does not let the user \"{user}\" in ({reason}): write the right user and password into database.url, or \
         change them in PostgreSQL"
    )]
    LoginRefused { user: String, reason: String },
    #[error("PostgreSQL does not have this database ({reason}): create it, or write its name into database.url")]
    NoDatabase { reason: String },
    #[error("PostgreSQL does not accept a connection ({reason}): its log says more")]
    NotAccepted { reason: String },
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

impl OpenError {
    /// Wraps an error of the first connection to PostgreSQL.
    pub(in crate::store) fn of_connecting(error: sqlx::Error, options: &PgConnectOptions) -> Self {
        match error.as_database_error() {
            // Not as a whole: it names a line in the source of PostgreSQL.
            Some(refusal) => Self::of_refusal(refusal.code().as_deref(), refusal.message(), options.get_username()),
            None => error.into(),
        }
    }

    /// The error for an answer of PostgreSQL with this [code].
    ///
    /// [code]: https://www.postgresql.org/docs/current/errcodes-appendix.html
    fn of_refusal(code: Option<&str>, reason: &str, user: &str) -> Self {
        let (user, reason) = (user.to_owned(), reason.to_owned());
        match code {
            // invalid_authorization_specification, invalid_password, insufficient_privilege.
            Some("28000" | "28P01" | "42501") => Self::LoginRefused { user, reason },
            // invalid_catalog_name.
            Some("3D000") => Self::NoDatabase { reason },
            _ => Self::NotAccepted { reason },
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_postgresql_says_what_to_change() {
        let cases = [
            (
                "28P01",
                "password authentication failed for user \"sabha\"",
                "the right user and password into database.url",
            ),
            ("28000", "role \"sabha\" does not exist", "the right user and password into database.url"),
            ("42501", "permission denied for database \"sabha\"", "the right user and password into database.url"),
            ("3D000", "database \"sabha\" does not exist", "create it, or write its name into database.url"),
            ("57P03", "the database system is starting up", "does not accept a connection"),
        ];
        for (code, reason, advice) in cases {
            let line = OpenError::of_refusal(Some(code), reason, "sabha").to_string();
            assert!(line.contains(advice) && line.contains(reason), "{line}");
        }
    }
}
