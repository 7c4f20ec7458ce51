//! Shutdown: one handle that all serving code listens to.
//!
//! The order: [`Shutdown::begin`] cancels the token; accept loops stop accepting, parked requests (they wait on the same
//! token) answer at once, [`super::accept::serve`] returns when its connections are done; [`Shutdown::finish_tasks`]
//! waits for the tracked requests. All of it ends [`GRACE`] after `begin`, whatever clients do.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The time that requests in flight have to finish. Shorter than the 10 s that container runtimes wait before they
/// kill, so that the database is closed in order too.
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

    /// Starts the shutdown. Only the first call has an effect.
    pub fn begin(&self) {
        self.deadline();
        self.shared.tasks.close();
        self.shared.token.cancel();
    }

    /// The token that is cancelled when shutdown begins. A request that waits for something must also wait for this,
    /// and then answer.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.shared.token
    }

    /// The tracker of the requests that run to their end; for [`super::tracked::TrackedLayer`].
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }

    /// The deadline for requests in flight. Only meaningful after [`begin`](Self::begin).
    pub(super) fn deadline(&self) -> Instant {
        *self.shared.began_at.get_or_init(Instant::now) + GRACE
    }

    /// Waits for the shutdown to begin and then for the tracked requests, until the deadline.
    ///
    /// # Errors
    /// The number of tasks that were still running at the deadline.
    pub async fn finish_tasks(&self) -> Result<(), usize> {
        self.shared.token.cancelled().await;
        tokio::time::timeout_at(self.deadline(), self.shared.tasks.wait()).await.map_err(|_| self.shared.tasks.len())
    }
}
