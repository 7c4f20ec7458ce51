//! Delays between the committer's steps: they make the moments long in which something is stored and not yet published, or
//! published and not yet told.
//!
//! A delay lets other tasks go first, some times over; nothing sleeps. The seed decides how often.

use std::sync::Mutex;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::world::lock;

/// One delay of so many steps is drawn; the others are none.
const EVERY: u32 = 3;

/// Enough for a whole sync of somebody else.
const MAX_YIELDS: u32 = 60;

pub struct Delays(Mutex<Option<StdRng>>);

impl Delays {
    pub fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// From now on as this seed decides.
    pub fn reseed(&self, seed: u64) {
        *lock(&self.0) = Some(StdRng::seed_from_u64(!seed));
    }

    /// The number of yields of the next step.
    fn draw(&self) -> u32 {
        let mut rng = lock(&self.0);
        let Some(rng) = &mut *rng else { return 0 };
        if rng.random_ratio(1, EVERY) { rng.random_range(0..MAX_YIELDS) } else { 0 }
    }

    pub async fn wait(&self) {
        yields(self.draw()).await;
    }
}

/// Lets others go first, so many times.
pub async fn yields(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}
