//! The uses of connections to other servers, and the size of the pool of each.

use std::time::Duration;

/// The purpose of a connection to another server. Each use has its own pool, so that none can take the sockets of another.
/// That one server does not take all connections of a use is for its callers to see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Requests that a user waits for.
    Queries,
    /// Servers' keys, which requests to us wait for.
    Keys,
    /// Missing events and states, and media.
    Fetches,
    /// Our events and messages.
    Transactions,
    /// The steps of joins, invites, knocks and leaves.
    Joins,
}

impl Use {
    pub(super) const ALL: [Self; 5] = [Self::Queries, Self::Keys, Self::Fetches, Self::Transactions, Self::Joins];

    /// Maximum number of connections. Twice the requests that callers make at a time, so that some are kept besides; for
    /// transactions about the servers of large rooms. Together 1,664, which is far below the usual limit of files.
    pub(super) const fn most_connections(self) -> usize {
        match self {
            Self::Queries => 256,
            Self::Keys | Self::Fetches => 128,
            Self::Transactions => 1024,
            Self::Joins => 128,
        }
    }

    /// The time for which a connection without requests is kept. The next transaction of a conversation comes within a
    /// minute or so. Other requests come in groups, or alone.
    pub(super) const fn idle_time(self) -> Duration {
        match self {
            Self::Transactions => Duration::from_secs(90),
            Self::Queries | Self::Keys | Self::Fetches | Self::Joins => Duration::from_secs(15),
        }
    }
}
