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
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}
