//! Why the database did not do what was asked.

use std::sync::Arc;

/// A failure of the database, never "there is no such row". Cheap to clone: one failed batch fails many writers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// The write queue is full; the same request may succeed in a moment.
    #[error("too many writes are waiting for the database")]
    Overloaded,
    /// An earlier write that this one builds on has failed. Nothing was stored; asking again starts from the truth.
    #[error("an earlier write to the same room failed")]
    Superseded,
    /// The server is stopping and takes no more writes.
    #[error("the server is stopping")]
    Stopping,
    /// PostgreSQL stores no text with one, and a batch that tried would fail. Nothing was stored.
    #[error("a text holds a NUL")]
    HoldsNul,
    /// A stored value that we wrote ourselves cannot be read back.
    #[error("the database holds a damaged {what}: {detail}")]
    Damaged { what: &'static str, detail: String },
}

impl Error {
    pub(crate) fn damaged(what: &'static str, detail: impl ToString) -> Self {
        Self::Damaged { what, detail: detail.to_string() }
    }

    /// Whether what is stored cannot be read, so that asking again is no help, but other rows are not concerned. A database
    /// that does not answer is no damage.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Database(error) => match &**error {
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
                sqlx::Error::Database(error) => error.code().is_some_and(|code| is_corruption(&code)),
                _ => false,
            },
            Self::Overloaded | Self::Superseded | Self::Stopping | Self::HoldsNul => false,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// SQLite's `SQLITE_CORRUPT` with its details, and PostgreSQL's codes for damaged tables and indexes.
fn is_corruption(code: &str) -> bool {
    let sqlite = code.parse::<u32>().is_ok_and(|code| code & 0xff == 11);
    // PostgreSQL's codes have five characters, some of them digits alone.
    (sqlite && code.len() != 5) || matches!(code, "XX001" | "XX002")
}

#[cfg(test)]
mod tests {
    use super::*;

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
