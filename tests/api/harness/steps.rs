//! The steps of a commit, at which the committer waits until the test lets it continue.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sabha::{app::App, store::committer::CommitStep};
use tokio::sync::{mpsc, oneshot};

/// The committer's steps, each with a sender that lets the committer continue.
pub struct Steps {
    armed: Arc<AtomicBool>,
    pub reached: mpsc::UnboundedReceiver<(CommitStep, oneshot::Sender<()>)>,
}

impl Steps {
    pub fn of(app: &App) -> Self {
        let armed = Arc::new(AtomicBool::new(false));
        let (sender, reached) = mpsc::unbounded_channel();
        let waits = Arc::clone(&armed);
        app.db.committer().on_step(Arc::new(move |step| {
            let (sender, waits) = (sender.clone(), waits.load(Ordering::Acquire));
            Box::pin(async move {
                let (go_on, gone_on) = oneshot::channel();
                if waits && sender.send((step, go_on)).is_ok() {
                    // An error means that the test is over.
                    let _ = gone_on.await;
                }
            })
        }));
        Self { armed, reached }
    }

    /// Lets the committer wait at its steps from now on, or no more.
    pub fn arm(&self, waits: bool) {
        self.armed.store(waits, Ordering::Release);
    }
}
