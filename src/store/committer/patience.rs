//! The time limits for waiting on the database.

use std::time::Duration;

/// The time limits for waiting on the database. Tests have shorter ones.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The limit for a commit before those who wait for it are told to retry: a person does not wait longer.
    pub notice: Duration,
    /// The limit for getting a PostgreSQL connection for reading. PostgreSQL may be away, and a client is told so
    /// within the time that a person waits.
    pub acquire: Duration,
    /// The limit for one query of a reader in PostgreSQL, after which its connection is given up: the network may have
    /// lost it silently. Far longer than any query of ours takes.
    pub read: Duration,
    /// The idle time after which a PostgreSQL connection is pinged before it is used again. Less than any restart of
    /// PostgreSQL takes, and more than passes between two uses on a busy server, where each ping would cost one more
    /// round trip.
    pub idle: Duration,
    /// The limit for PostgreSQL to answer a new connection, and small queries on it.
    pub connect: Duration,
    /// The limit for locks in PostgreSQL that somebody else holds, such as the old backend of a lost connection.
    pub lock: Duration,
    /// The limit for one statement of a commit in PostgreSQL. A single statement takes milliseconds.
    pub statement: Duration,
    /// The limit for a whole commit in PostgreSQL, after which its connection is given up. Longer than for a statement,
    /// so that a slow statement can be told from a lost connection.
    pub commit: Duration,
    /// The interval at which a process that follows looks for commits. Hints come sooner; this is for a lost one.
    pub look: Duration,
    /// The time without a commit after which a process on PostgreSQL asks whether it still leads, and shows this to others
    /// that share the database.
    pub beat: Duration,
    /// The time without a sign of the leader after which a process that follows takes over. It is also the time for which
    /// the last answer of the database lets a process take what it has in memory for current. Some beats may be late, because
    /// of a slow commit or a busy machine, and a person waits as long.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            notice: Duration::from_secs(3),
            acquire: Duration::from_secs(4),
            read: Duration::from_secs(20),
            idle: Duration::from_millis(50),
            connect: Duration::from_secs(5),
            lock: Duration::from_secs(10),
            statement: Duration::from_secs(30),
            commit: Duration::from_secs(45),
            look: Duration::from_millis(200),
            beat: Duration::from_secs(1),
            silence: Duration::from_secs(5),
        }
    }
}
