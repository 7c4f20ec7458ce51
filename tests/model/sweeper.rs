//! The sweeper: evicts rooms from memory while they are used, as the server's clock may do at any time.

use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{api::Doors, world::World};

/// Sweeps now and then, until no writer is left.
pub async fn run(doors: Arc<Doors>, world: Arc<World>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut progress = world.progress();
    loop {
        let now = *progress.borrow();
        if now == u64::MAX {
            return;
        }
        let until = now.saturating_add(rng.random_range(1..12));
        // The sender outlives us, so waiting for it cannot fail.
        let _ = progress.wait_for(|count| *count >= until).await;
        // The first call only marks unused rooms; the second evicts those that were not used in between.
        let app = doors.app().await;
        app.rooms.forget_idle();
        app.rooms.forget_idle();
    }
}
