//! What happens by the clock: forgetting what nobody needs any more.
//!
//! Promise: a sweep is bounded in what it does at once, a failed one is only logged, and all of them end when the server
//! stops. Nothing that a user waits for depends on a sweep.

use std::time::Duration;

use tokio::{task::JoinSet, time::MissedTickBehavior};
use tracing::warn;

use crate::{account::millis, app::App, federation, report::Report, store};

/// Counters and wake-ups of those who have not acted for a while. Often, because a flood of new addresses makes many.
const FORGET_IDLE_EVERY: Duration = Duration::from_secs(60);

/// A user who has not synced for as long is looked up again at the next sync. Far above the longest long poll.
const FORGET_SYNCING_AFTER: Duration = Duration::from_secs(30 * 60);

/// Whoever was offline for as long is remembered no longer; more than a holiday.
const FORGET_OFFLINE_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Rooms that nobody uses leave memory; loading one again costs a few reads.
const ROOMS_EVERY: Duration = Duration::from_secs(30 * 60);

/// When a device was last seen is not worth a write for each request.
const LAST_SEEN_EVERY: Duration = Duration::from_secs(180);

/// Messages that have arrived are not delivered again anyway; this is about their rows. A few seconds gather what many devices
/// acknowledge in one commit.
const ACKNOWLEDGED_EVERY: Duration = Duration::from_secs(10);

/// Tokens that have expired are refused anyway; this is only about their rows.
const TOKENS_EVERY: Duration = Duration::from_secs(3600);

/// Transaction IDs go after [`KEEP_TXN_IDS`]; nobody notices an hour.
const TXN_IDS_EVERY: Duration = Duration::from_secs(3600);

/// What is left over of devices and accounts is seen by nobody; this is only about its rows.
const LEFTOVERS_EVERY: Duration = Duration::from_secs(60);

/// Keys of other servers end by themselves; this is only about their rows.
const SERVER_KEYS_EVERY: Duration = Duration::from_secs(6 * 3600);

/// A client repeats a request within minutes; a week covers a phone that was switched off in between.
const KEEP_TXN_IDS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Starts every sweep as a task of its own.
pub(super) fn spawn(app: &App, tasks: &mut JoinSet<()>) {
    every(app, tasks, "idle users and addresses", FORGET_IDLE_EVERY, |app: App| async move {
        app.rate_limits.forget_idle();
        app.bus.forget_idle(app.clock.now_ms() - millis(FORGET_SYNCING_AFTER));
        Ok(())
    });
    every(app, tasks, "idle rooms, offline users and rare words", ROOMS_EVERY, |app: App| async move {
        app.rooms.forget_idle();
        app.ephemeral.forget_offline(app.clock.now_ms() - millis(FORGET_OFFLINE_AFTER));
        app.db.forget_words();
        Ok(())
    });
    every(app, tasks, "last seen", LAST_SEEN_EVERY, |app: App| async move { app.accounts.flush_last_seen().await });
    every(app, tasks, "acknowledged messages", ACKNOWLEDGED_EVERY, |app: App| async move {
        app.keys.delete_acknowledged().await
    });
    every(app, tasks, "expired tokens", TOKENS_EVERY, |app: App| async move { app.accounts.sweep_tokens().await });
    every(app, tasks, "old transaction IDs", TXN_IDS_EVERY, |app: App| async move { forget_txn_ids(&app).await });
    every(app, tasks, "what is left over of devices and accounts", LEFTOVERS_EVERY, |app: App| async move {
        store::leftovers::sweep(&app.db).await
    });
    every(app, tasks, "ended server keys", SERVER_KEYS_EVERY, |app: App| async move {
        federation::key_ring::forget_ended(&app.db, app.clock.now_ms() - millis(federation::FORGET_AFTER)).await
    });
}

/// Forgets transaction IDs that are older than a week.
async fn forget_txn_ids(app: &App) -> Result<(), store::Error> {
    let before_ms = app.clock.now_ms() - millis(KEEP_TXN_IDS);
    store::sweeps::forget_txn_ids(&app.db, before_ms).await.map(|_| ())
}

fn every<S, F>(app: &App, tasks: &mut JoinSet<()>, what: &'static str, interval: Duration, sweep: S)
where
    S: Fn(App) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), store::Error>> + Send,
{
    let app = app.clone();
    tasks.spawn(async move {
        let stopping = app.stopping.clone();
        let sweeping = async {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // The first tick is at once, and a start has better things to do.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                if let Err(error) = sweep(app.clone()).await {
                    warn!(what, error = %Report(&error), "sweep not finished");
                }
            }
        };
        let _: Option<()> = stopping.run_until_cancelled(sweeping).await;
    });
}
