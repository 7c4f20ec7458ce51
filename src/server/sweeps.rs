//! Periodic sweeps that remove data that is no longer needed.
//!
//! Promise: a sweep does a bounded amount of work at once, a failed sweep is only logged, and all of them end when the
//! server stops. No user waits for a sweep.

use std::time::Duration;

use tokio::{task::JoinSet, time::MissedTickBehavior};
use tracing::warn;

use crate::{account::millis, app::App, report::Report, store};

/// The interval for dropping counters and wake-ups of idle users and addresses. Short, because a flood of new addresses
/// makes many.
const FORGET_IDLE_EVERY: Duration = Duration::from_secs(60);

/// The time without a sync after which a user is looked up again at the next sync. Far above the longest long poll.
const FORGET_SYNCING_AFTER: Duration = Duration::from_secs(30 * 60);

/// The time offline after which a user's presence is dropped: longer than a holiday.
const FORGET_OFFLINE_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// The interval for evicting unused rooms from memory; loading one again costs a few reads.
const ROOMS_EVERY: Duration = Duration::from_secs(30 * 60);

/// The interval for shrinking the latest events of quiet rooms when those of all rooms have filled their share of the memory
/// budget. Short, because until then each room may keep one event more, however large.
const RINGS_EVERY: Duration = Duration::from_secs(10);

/// The interval for storing when devices were last seen, because that is not worth a write per request.
const LAST_SEEN_EVERY: Duration = Duration::from_secs(180);

/// The interval for deleting the rows of acknowledged messages, which are not delivered again anyway. A few seconds
/// gather the acknowledgements of many devices in one commit. An acknowledgement is not a commit (a sync writes nothing), so
/// no entry of the commit log tells of it.
const ACKNOWLEDGED_EVERY: Duration = Duration::from_secs(10);

/// The interval for storing unread counts that took long to count. A few seconds gather those of a first sync.
const TALLIES_EVERY: Duration = Duration::from_secs(10);

/// The interval for finding unread counts that nobody looks at any more. They are stored after once or twice this time;
/// until then a restart counts them anew.
const QUIET_TALLIES_EVERY: Duration = Duration::from_secs(600);

/// The interval for deleting the rows of expired tokens, which are refused anyway.
const TOKENS_EVERY: Duration = Duration::from_secs(3600);

/// The interval for deleting checkpoints of rooms' states that newer ones make superfluous. They take only space.
const CHECKPOINTS_EVERY: Duration = Duration::from_secs(1800);

/// The interval for deleting transaction IDs older than [`KEEP_TXN_IDS`]; an hour more does not matter.
const TXN_IDS_EVERY: Duration = Duration::from_secs(3600);

/// The time for which transaction IDs are kept. A client repeats a request within minutes; a week covers a phone that
/// was switched off in between.
const KEEP_TXN_IDS: Duration = Duration::from_secs(7 * 24 * 3600);

/// The interval for telling the metrics how large the caches are, and how far the consumers of the commit log are behind.
const SIZES_EVERY: Duration = Duration::from_secs(15);

/// Starts every sweep in its own task.
pub(super) fn spawn(app: &App, tasks: &mut JoinSet<()>) {
    every(app, tasks, "idle users and addresses", FORGET_IDLE_EVERY, |app: App| async move {
        app.rate_limits.forget_idle();
        app.bus.forget_idle(app.clock.now_ms() - millis(FORGET_SYNCING_AFTER));
        Ok(())
    });
    every(app, tasks, "sizes of caches and lags", SIZES_EVERY, |app: App| async move {
        app.memory.record();
        app.db.cursors().record(&app.db, app.clock.now_ms());
        Ok(())
    });
    every(app, tasks, "idle rooms, offline users and rare words", ROOMS_EVERY, |app: App| async move {
        app.rooms.forget_idle();
        app.ephemeral.forget_offline(app.clock.now_ms() - millis(FORGET_OFFLINE_AFTER));
        app.db.forget_words();
        Ok(())
    });
    every(app, tasks, "latest events of quiet rooms", RINGS_EVERY, |app: App| async move {
        app.rooms.shrink_rings();
        Ok(())
    });
    every(app, tasks, "last seen", LAST_SEEN_EVERY, |app: App| async move { app.accounts.flush_last_seen().await });
    every(app, tasks, "acknowledged messages", ACKNOWLEDGED_EVERY, |app: App| async move {
        app.keys.delete_acknowledged().await
    });
    every(
        app,
        tasks,
        "unread counts",
        TALLIES_EVERY,
        |app: App| async move { app.push.store_tallies(&app.rooms).await },
    );
    every(app, tasks, "quiet unread counts", QUIET_TALLIES_EVERY, |app: App| async move {
        app.push.find_quiet_tallies();
        Ok(())
    });
    every(app, tasks, "expired tokens", TOKENS_EVERY, |app: App| async move { app.accounts.sweep_tokens().await });
    every(app, tasks, "superfluous checkpoints", CHECKPOINTS_EVERY, |app: App| async move {
        app.rooms.thin_checkpoints().await
    });
    every(app, tasks, "old transaction IDs", TXN_IDS_EVERY, |app: App| async move { forget_txn_ids(&app).await });
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
            // The first tick comes at once. It is skipped, so that sweeps do not slow the start.
            ticks.tick().await;
            loop {
                ticks.tick().await;
                match sweep(app.clone()).await {
                    // A process that follows deletes no rows; the one that leads does.
                    Ok(()) | Err(store::Error::NotLeader) => {}
                    Err(error) => warn!(what, error = %Report(&error), "sweep not finished"),
                }
            }
        };
        let _: Option<()> = stopping.run_until_cancelled(sweeping).await;
    });
}
