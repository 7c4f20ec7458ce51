//! A hook between the steps of a commit, so that tests can make other tasks run there.
//!
//! Nothing in the server sets one. An unset hook costs one atomic load for each step.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, OnceLock},
};

/// The step of a batch that was just done. The steps come in this order; a batch that fails has only the first. Only
/// [`Self::Woken`] comes from another task, once for all batches that were published since, if any of them concerns a live
/// user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitStep {
    /// The batch was taken out of the queue.
    Taken,
    /// The database has committed it.
    Stored,
    /// Memory was updated, by [`super::Memory`].
    Remembered,
    /// Its last position is visible.
    Published,
    /// Its writers were answered.
    Answered,
    /// Those who wait for news were woken.
    Woken,
}

/// The function that is waited for between two steps.
pub type StepHook = Arc<dyn Fn(CommitStep) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

#[derive(Default)]
pub(super) struct Steps(OnceLock<StepHook>);

impl Steps {
    /// Sets the hook. The first one stays.
    pub(super) fn set(&self, hook: StepHook) {
        let _: Result<(), StepHook> = self.0.set(hook);
    }

    pub(super) async fn reached(&self, step: CommitStep) {
        if let Some(hook) = self.0.get() {
            hook(step).await;
        }
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Steps").field(&self.0.get().is_some()).finish()
    }
}
