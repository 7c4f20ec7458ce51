//! Processes that take the leader for gone, by clocks that only tests move.

use std::{pin::pin, time::Duration};

use sabha::{clock::Clock, store::Committer};

/// Lets time pass for a process until it takes the leader for gone: a tick, and then turns of the other tasks in which
/// time stands still.
pub async fn run_out_of_patience(committer: &Committer, clock: &Clock, (tick, turns): (Duration, u32)) {
    let mut leads = pin!(committer.leading());
    loop {
        clock.advance(tick);
        for _ in 0..turns {
            committer.hint();
            tokio::select! {
                biased;
                () = &mut leads => return,
                () = tokio::task::yield_now() => {}
            }
        }
    }
}
