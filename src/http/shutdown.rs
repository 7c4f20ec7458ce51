//! Stopping: one handle that everything which serves listens to.
//!
//! The order: [`Shutdown::begin`] cancels the token; accept loops stop accepting, parked requests (they wait on the same
//! token) answer at once, [`super::accept::serve`] returns when its connections are done; [`Shutdown::finish_tasks`]
//! waits for the tracked requests. All of it ends [`GRACE`] after `begin`, whatever clients do.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long requests in flight may take to finish. Shorter than the 10 s that container runtimes wait before they kill,
/// so that the database is closed in order too.
pub const GRACE: Duration = Duration::from_secs(5);

/// Tells everything that serves to finish. Clones are the same handle.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    token: CancellationToken,
    tasks: TaskTracker,
    began_at: OnceLock<Instant>,
}

impl Shutdown {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts stopping. The first call counts.
    pub fn begin(&self) {
        self.deadline();
        self.shared.tasks.close();
        self.shared.token.cancel();
    }

    /// Cancelled when stopping begins. A request that waits for something must wait for this as well, and answer.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.shared.token
    }

    /// The requests that run to their end; for [`super::tracked::TrackedLayer`].
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }

    /// When waiting ends. Only meaningful after [`begin`](Self::begin).
    pub(super) fn deadline(&self) -> Instant {
        *self.shared.began_at.get_or_init(Instant::now) + GRACE
    }

    /// Waits for stopping to begin and then for the tracked requests, until the deadline.
    ///
    /// # Errors
    /// The number of tasks that were still running at the deadline.
    pub async fn finish_tasks(&self) -> Result<(), usize> {
        self.shared.token.cancelled().await;
        tokio::time::timeout_at(self.deadline(), self.shared.tasks.wait()).await.map_err(|_| self.shared.tasks.len())
    }
}
