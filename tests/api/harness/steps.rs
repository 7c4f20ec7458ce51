//! The steps of a commit, at which the committer waits until the test lets it continue.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sabha::{app::App, store::committer::CommitStep};
use tokio::sync::{mpsc, oneshot};

/// Decides at which steps the committer waits. The server commits on its own too, such as the places in its log. So a batch
/// may be under way when the test begins; its other steps are none of the test's.
#[derive(Debug, Default)]
pub struct Gate {
    waits: bool,
    /// True from the first batch on that was taken since the committer waits.
    has_taken: bool,
}

impl Gate {
    pub fn set(&mut self, waits: bool) {
        *self = Self { waits, has_taken: false };
    }

    pub fn waits_at(&mut self, step: CommitStep) -> bool {
        self.has_taken |= step == CommitStep::Taken;
        self.waits && self.has_taken
    }
}

/// The committer's steps, each with a sender that lets the committer continue.
pub struct Steps {
    gate: Arc<Mutex<Gate>>,
    pub reached: mpsc::UnboundedReceiver<(CommitStep, oneshot::Sender<()>)>,
}

impl Steps {
    pub fn of(app: &App) -> Self {
        let gate = Arc::<Mutex<Gate>>::default();
        let (sender, reached) = mpsc::unbounded_channel();
        let of_hook = Arc::clone(&gate);
        app.db.committer().on_step(Arc::new(move |step| {
            // Held until the step is sent, so that none is sent after the committer is to wait no more.
            let mut gate = lock(&of_hook);
            let gone_on = gate.waits_at(step).then(|| {
                let (go_on, gone_on) = oneshot::channel();
                // An error means that the test is over. It drops what would let the committer continue, which ends the wait.
                let _ = sender.send((step, go_on));
                gone_on
            });
            Box::pin(async move {
                if let Some(gone_on) = gone_on {
                    let _ = gone_on.await;
                }
            })
        }));
        Self { gate, reached }
    }

    /// Lets the committer wait at the steps of the batches that it takes from now on, or no more.
    pub fn arm(&self, waits: bool) {
        lock(&self.gate).set(waits);
    }
}

fn lock(gate: &Mutex<Gate>) -> MutexGuard<'_, Gate> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}
