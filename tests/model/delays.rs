//! Delays between the committer's steps. They prolong the moments in which data is stored and not yet published, or
//! published and not yet told.
//!
//! A delay yields to other tasks several times; nothing sleeps. The seed decides how often. A committer can also be made
//! to stall after a step, until the test lets it go on.

use std::sync::Mutex;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sabha::store::committer::CommitStep;
use tokio::sync::oneshot;

use crate::world::lock;

/// One of this many steps has a delay.
const EVERY: u32 = 3;

/// Enough for a whole sync of another client.
const MAX_YIELDS: u32 = 60;

/// The delays of one committer.
#[derive(Default)]
pub struct Delays {
    rng: Mutex<Option<StdRng>>,
    /// The step after which it stalls, and who is told then.
    stall: Mutex<Option<(CommitStep, oneshot::Sender<Stalled>)>>,
}

/// A committer that stalls. It goes on when this is dropped.
pub struct Stalled(#[expect(dead_code, reason = "its end is waited for")] oneshot::Sender<()>);

impl Delays {
    /// Uses the delays of this seed from now on.
    pub fn reseed(&self, seed: u64) {
        *lock(&self.rng) = Some(StdRng::seed_from_u64(!seed));
    }

    /// Draws the number of yields of the next step.
    fn draw(&self) -> u32 {
        let mut rng = lock(&self.rng);
        let Some(rng) = &mut *rng else { return 0 };
        if rng.random_ratio(1, EVERY) { rng.random_range(0..MAX_YIELDS) } else { 0 }
    }

    pub async fn wait(&self, step: CommitStep) {
        let stall = lock(&self.stall).take_if(|(at, _)| *at == step);
        if let Some((_, told)) = stall {
            let (holder, released) = oneshot::channel();
            // Nobody is told any more if the run is over; then it does not stall.
            let _ = told.send(Stalled(holder));
            // An error means that it was dropped, which is the only way.
            let _ = released.await;
        }
        yields(self.draw()).await;
    }

    /// Waits until the committer stalls after this step of its next commit. Cancel safe.
    pub async fn stall(&self, at: CommitStep) -> Stalled {
        let (told, stalled) = oneshot::channel();
        *lock(&self.stall) = Some((at, told));
        stalled.await.expect("the sender is here until it is used")
    }
}

/// Yields to other tasks this many times.
pub async fn yields(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}
