//! The sweeper: rooms leave memory while they are used, as the clock may have it at any time.

use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sabha::app::App;

use crate::world::World;

/// Sweeps now and then, until nobody writes any more.
pub async fn run(app: App, world: Arc<World>, seed: u64) {
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
        // The first call only marks what nobody uses; the second takes out what nobody has used in between.
        app.rooms.forget_idle();
        app.rooms.forget_idle();
    }
}
