//! Delays between the committer's steps. They prolong the moments in which data is stored and not yet published, or
//! published and not yet told.
//!
//! A delay yields to other tasks several times; nothing sleeps. The seed decides how often.

use std::sync::Mutex;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::world::lock;

/// One of this many steps has a delay.
const EVERY: u32 = 3;

/// Enough for a whole sync of another client.
const MAX_YIELDS: u32 = 60;

pub struct Delays(Mutex<Option<StdRng>>);

impl Delays {
    pub fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Uses the delays of this seed from now on.
    pub fn reseed(&self, seed: u64) {
        *lock(&self.0) = Some(StdRng::seed_from_u64(!seed));
    }

    /// Draws the number of yields of the next step.
    fn draw(&self) -> u32 {
        let mut rng = lock(&self.0);
        let Some(rng) = &mut *rng else { return 0 };
        if rng.random_ratio(1, EVERY) { rng.random_range(0..MAX_YIELDS) } else { 0 }
    }

    pub async fn wait(&self) {
        yields(self.draw()).await;
    }
}

/// Yields to other tasks this many times.
pub async fn yields(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}
