//! Whether this process may take what it has in memory for current.
//!
//! Another process may take a database on PostgreSQL over while this one is stopped, or cut off from the database. A process
//! that goes on then cannot tell by itself. So it notes when the database last confirmed that nobody else writes. A follower
//! notes when it last read what others have written. After [`Patience::silence`](super::Patience::silence) this counts no
//! more: requests wait until the database has been asked again.
//!
//! Nobody can take a file over, so a process on SQLite is always current.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use super::{Committer, DatabaseOptions};
use crate::{
    clock::Clock,
    store::{Error, open::Location},
};

/// The time up to which a process on SQLite is current: one that does not come.
const NEVER: u64 = u64::MAX;

/// The time up to which this process is current.
pub(super) struct Current {
    /// In milliseconds of [`Clock::uptime`], which go on while a process is stopped.
    until_ms: AtomicU64,
    /// The time for which a confirmation counts.
    lasts: Duration,
    /// Told after each confirmation.
    confirmed: Notify,
    /// Told when somebody waits for one.
    wanted: Notify,
}

impl Current {
    pub(super) fn new(options: &DatabaseOptions) -> Self {
        let until_ms = match options.location {
            Location::Sqlite(_) => NEVER,
            // The first request asks.
            Location::Postgres(_) => 0,
        };
        let (confirmed, wanted) = (Notify::new(), Notify::new());
        Self { until_ms: until_ms.into(), lasts: options.patience.silence, confirmed, wanted }
    }

    /// Returns whether another process can take the database over.
    pub(super) fn can_end(&self) -> bool {
        self.until_ms.load(Ordering::Relaxed) != NEVER
    }

    fn is_over(&self, clock: &Clock) -> bool {
        let until_ms = self.until_ms.load(Ordering::Acquire);
        until_ms != NEVER && clock.uptime().as_millis() >= u128::from(until_ms)
    }

    /// Notes that the database has confirmed it, by an answer to a question that was asked at this time. Changes nothing on
    /// SQLite.
    pub(super) fn confirm(&self, asked_at: Duration) {
        let until_ms = u64::try_from((asked_at + self.lasts).as_millis()).unwrap_or(NEVER - 1);
        self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
        self.confirmed.notify_waiters();
    }

    /// Notes that another process writes, and that this one does not follow it.
    pub(super) fn end(&self) {
        self.until_ms.store(0, Ordering::Release);
    }

    /// Waits until somebody waits for a confirmation. Cancel safe.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

impl Committer {
    /// Returns whether this process may take what it has in memory for current. Costs one atomic load on SQLite, and a look
    /// at the clock on PostgreSQL.
    pub fn is_current(&self) -> bool {
        !self.0.current.is_over(&self.0.clock)
    }

    /// Waits until this process is current, for at most [`Patience::notice`](super::Patience::notice). Cancel safe.
    ///
    /// # Errors
    /// [`Error::Waiting`] if the database does not confirm it in time, [`Error::Stopping`] if the committer has ended.
    pub async fn current(&self) -> Result<(), Error> {
        let current = async {
            loop {
                // Hears of each confirmation from here on.
                let confirmed = self.0.current.confirmed.notified();
                if self.is_current() {
                    return;
                }
                self.0.current.wanted.notify_one();
                confirmed.await;
            }
        };
        tokio::select! {
            biased;
            () = current => Ok(()),
            _ = self.ended() => Err(Error::Stopping),
            () = tokio::time::sleep(self.0.notice) => Err(Error::Waiting),
        }
    }
}
