//! The health of the committer, for those who wait for it, for `/ready`, and for the process.

use tokio::sync::watch;

use super::Committer;

/// The health of the committer: whether writes can be stored at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known to be wrong.
    Working,
    /// The database has not answered for [`super::Patience::notice`]. The committer goes on trying; new writes are
    /// refused at once, and queued writes are settled as soon as the database is back.
    Waiting,
    /// The last commit failed because the disk is full. The next write tries again.
    DiskFull,
    /// Another process writes, and this one follows its commits.
    Following,
    /// The committer has ended, and this process writes nothing more.
    Ended(Ended),
}

/// The reason why the committer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The server stops.
    #[error("the server is stopping")]
    Stopped,
    /// The server stops, and the database did not say whether the last writes were stored. Their writers were not
    /// answered with success.
    #[error("the server is stopping, and the last writes may be stored or not")]
    Unsettled,
    /// The slot belongs to another process.
    #[error("another process has taken over this database: run only one")]
    Fenced,
    /// The database was set back while this process followed another one, so memory is ahead of it for good.
    #[error("the database has lost commits that this server has already seen: start it again")]
    SetBack,
    /// Memory could not follow a commit, so readers would miss it. A restart reads everything again.
    #[error(
        "a mistake in this server: memory could not follow a commit (see the log). What was stored is safe: start it again"
    )]
    MemoryBehind,
    /// A bug in this server.
    #[error(
        "a mistake in this server: the task that writes to the database panicked (see the log). What was stored is safe: start it again"
    )]
    Panicked,
}

impl Ended {
    /// Returns whether this is the usual end of a server's life.
    pub fn is_orderly(self) -> bool {
        match self {
            Self::Stopped | Self::Unsettled => true,
            Self::Fenced | Self::SetBack | Self::MemoryBehind | Self::Panicked => false,
        }
    }
}

/// The present health, which can be read and waited for.
#[derive(Debug)]
pub(super) struct Pulse(watch::Sender<Health>);

impl Default for Pulse {
    fn default() -> Self {
        Self(watch::Sender::new(Health::Working))
    }
}

impl Pulse {
    pub(super) fn get(&self) -> Health {
        *self.0.borrow()
    }

    /// Sets the present health. An end is final.
    pub(super) fn set(&self, health: Health) {
        self.0.send_if_modified(|now| {
            let changes = *now != health && !matches!(now, Health::Ended(_));
            if changes {
                tracing::debug!(before = ?now, now = ?health, "health of the committer changed");
                *now = health;
            }
            changes
        });
    }

    /// Waits until `wanted` holds, and returns the health then.
    pub(super) async fn wait_for(&self, wanted: impl FnMut(&Health) -> bool) -> Health {
        // The sender lives as long as `self`, so this only ends with what was waited for.
        match self.0.subscribe().wait_for(wanted).await {
            Ok(health) => *health,
            Err(_) => Health::Ended(Ended::Stopped),
        }
    }
}

impl Committer {
    /// The health of the committer: whether writes can be stored at present.
    pub fn health(&self) -> Health {
        self.0.pulse.get()
    }

    /// Waits until the database has not answered for a while, or the committer has ended. Requests that wait for a
    /// write should then be told to retry; the write itself goes on.
    pub async fn unanswered(&self) {
        let silent = |health: &Health| matches!(health, Health::Waiting | Health::Ended(_));
        loop {
            self.0.pulse.wait_for(silent).await;
            // A request that has just begun may only want to read.
            tokio::time::sleep(self.0.notice / 4).await;
            if silent(&self.health()) {
                return;
            }
        }
    }

    /// Waits for the end of the committer.
    pub async fn ended(&self) -> Ended {
        match self.0.pulse.wait_for(|health| matches!(health, Health::Ended(_))).await {
            Health::Ended(ended) => ended,
            Health::Working | Health::Waiting | Health::DiskFull | Health::Following => Ended::Stopped,
        }
    }
}
