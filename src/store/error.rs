//! Errors of the database.

use std::sync::Arc;

/// A failure of the database, never "there is no such row". Cheap to clone: one failed batch fails many writers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// The database cannot be reached, or does not answer in time. The same request may succeed later.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Arc<sqlx::Error>),
    /// The committer has lost its connection, or has waited long for an answer. Nothing was queued.
    #[error("the database does not answer")]
    Waiting,
    /// Nothing was stored. Reading still works.
    #[error("the disk of the database is full")]
    DiskFull(#[source] Arc<sqlx::Error>),
    /// The write queue is full; the same request may succeed in a moment.
    #[error("too many writes are waiting for the database")]
    Overloaded,
    /// An earlier write that this one builds on has failed. Nothing was stored; a retry starts from the stored state.
    #[error("an earlier write to the same room failed")]
    Superseded,
    /// Another process has the right to write now. Nothing was stored; a retry with the same transaction ID may succeed.
    #[error("another process writes to the database now")]
    NotLeader,
    /// The server is stopping and takes no more writes.
    #[error("the server is stopping")]
    Stopping,
    /// A bug in this server: a [`Transaction`](super::Transaction) panicked. Nothing was stored.
    #[error("a transaction panicked")]
    Panicked,
    /// PostgreSQL cannot store text with a NUL, and a batch with one would fail. Nothing was stored.
    #[error("a text holds a NUL")]
    HoldsNul,
    /// A stored value that we wrote ourselves cannot be read back.
    #[error("the database holds a damaged {what}: {detail}")]
    Damaged { what: &'static str, detail: String },
}

impl Error {
    /// Wraps an error of connecting, of any kind: nothing was asked, and the same request may succeed later.
    pub(super) fn no_connection(error: sqlx::Error) -> Self {
        Self::Unavailable(Arc::new(error))
    }

    pub(crate) fn damaged(what: &'static str, detail: impl ToString) -> Self {
        Self::Damaged { what, detail: detail.to_string() }
    }

    /// Returns whether stored data cannot be read. A retry does not help then, but other rows are not affected. A
    /// database that does not answer is not damage.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Database(error) => match &**error {
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
                sqlx::Error::Database(error) => error.code().is_some_and(|code| is_corruption(&code)),
                _ => false,
            },
            Self::Unavailable(_)
            | Self::Waiting
            | Self::DiskFull(_)
            | Self::Overloaded
            | Self::Superseded
            | Self::NotLeader
            | Self::Stopping
            | Self::Panicked
            | Self::HoldsNul => false,
        }
    }
}

impl Error {
    /// The error for a disk that was found to be full without asking the database.
    pub(super) fn disk_full() -> Self {
        Self::DiskFull(Arc::new(std::io::Error::from(std::io::ErrorKind::StorageFull).into()))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match Kind::of(&error) {
            Kind::Unavailable => Self::Unavailable(Arc::new(error)),
            Kind::DiskFull => Self::DiskFull(Arc::new(error)),
            Kind::Other => Self::Database(Arc::new(error)),
        }
    }
}

/// Errors by what the caller can do about them.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Unavailable,
    DiskFull,
    Other,
}

impl Kind {
    fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
                Self::Unavailable
            }
            // The answer is not from PostgreSQL, but for example from a proxy in front of one that is away, or it was
            // cut off; or the thread behind a connection to SQLite has ended. Another connection may work.
            sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => Self::Unavailable,
            sqlx::Error::Database(error) => error.code().map_or(Self::Other, |code| Self::of_code(&code)),
            _ => Self::Other,
        }
    }

    /// Classifies a code of either engine: PostgreSQL's have five characters, SQLite's are numbers with fewer.
    fn of_code(code: &str) -> Self {
        match code {
            // SQLITE_FULL; SQLITE_IOERR_SHMSIZE, for the index of its log; disk_full.
            "13" | "4874" | "53100" => Self::DiskFull,
            // too_many_connections, admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped,
            // idle_session_timeout, idle_in_transaction_session_timeout.
            "53300" | "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" => Self::Unavailable,
            // Class 08: connection exceptions.
            code if code.len() == 5 && code.starts_with("08") => Self::Unavailable,
            _ => Self::Other,
        }
    }
}

/// Returns whether a code means damage: SQLite's `SQLITE_CORRUPT` with its details, or PostgreSQL's codes for damaged
/// tables and indexes.
fn is_corruption(code: &str) -> bool {
    let sqlite = code.parse::<u32>().is_ok_and(|code| code & 0xff == 11);
    // PostgreSQL's codes have five characters, some of them digits alone.
    (sqlite && code.len() != 5) || matches!(code, "XX001" | "XX002")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_what_can_be_done_about_them() {
        let cases = [
            ("13", Kind::DiskFull),
            ("4874", Kind::DiskFull),
            ("53100", Kind::DiskFull),
            ("53300", Kind::Unavailable),
            ("57P01", Kind::Unavailable),
            ("57P03", Kind::Unavailable),
            ("08006", Kind::Unavailable),
            ("8", Kind::Other),
            ("1299", Kind::Other),
            ("2067", Kind::Other),
            ("23502", Kind::Other),
            ("57014", Kind::Other),
        ];
        for (code, kind) in cases {
            assert_eq!(Kind::of_code(code), kind, "{code}");
        }
        let io = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(Error::from(sqlx::Error::Io(io())), Error::Unavailable(_)));
        assert!(matches!(Error::from(sqlx::Error::PoolTimedOut), Error::Unavailable(_)));
        let protocol = sqlx::Error::Protocol("unexpected response from SSLRequest: 0x00".to_owned());
        assert!(matches!(Error::from(protocol), Error::Unavailable(_)));
        assert!(matches!(Error::from(sqlx::Error::WorkerCrashed), Error::Unavailable(_)));
        assert!(matches!(Error::from(sqlx::Error::RowNotFound), Error::Database(_)));
    }

    #[test]
    fn damage_is_told_from_a_database_that_does_not_answer() {
        assert!(Error::damaged("event", "missing").is_damage());
        assert!(Error::from(sqlx::Error::Decode("not a number".into())).is_damage());
        assert!(!Error::from(sqlx::Error::PoolTimedOut).is_damage());
        assert!(!Error::from(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())).is_damage());
        assert!(!Error::Overloaded.is_damage());
        for (code, expected) in
            [("11", true), ("267", true), ("XX001", true), ("5", false), ("57014", false), ("53100", false)]
        {
            assert_eq!(is_corruption(code), expected, "{code}");
        }
    }
}
