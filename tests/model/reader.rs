//! The reader of the commit log: a consumer that stops in the middle of its work, goes on later, and must miss nothing.
//!
//! While it is stopped, the log is trimmed as if much time had passed. Entries that it has not read must stay.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sabha::{
    app::App,
    store::{
        Error, Position,
        log::{Consumer, Cursor, LogEntry, Touch},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Doors,
    delays::yields,
    world::{World, lock},
};

/// The age of entries that are trimmed: more than the ten minutes for which an entry always stays.
const LATER: Duration = Duration::from_secs(3600);

/// Enough yields for commits and syncs of others.
const MAX_YIELDS: u32 = 20;

/// A thing that the reader was told.
#[derive(Debug, Clone)]
pub enum Told {
    Entry(LogEntry),
    /// It was to read the tables for the commits in this range.
    Tables(Position, Position),
}

/// Everything that the reader was told, in order.
pub type Record = Arc<Mutex<Vec<Told>>>;

struct Reader {
    record: Record,
    rng: Mutex<StdRng>,
}

impl Reader {
    async fn pause(&self) {
        let count = lock(&self.rng).random_range(0..MAX_YIELDS);
        yields(count).await;
    }
}

impl Consumer for Reader {
    const NAME: &'static str = "model";
    type Work = LogEntry;

    fn concerns(_: &Touch) -> bool {
        true
    }

    fn work(&self, entry: &LogEntry) -> Option<LogEntry> {
        Some(entry.clone())
    }

    async fn perform(&self, work: Vec<LogEntry>) -> Result<(), Error> {
        for entry in work {
            // It may be stopped before an entry and after it; then the whole work comes again.
            self.pause().await;
            lock(&self.record).push(Told::Entry(entry));
        }
        self.pause().await;
        Ok(())
    }

    async fn catch_up(&self, from: Position, to: Position) -> Result<(), Error> {
        lock(&self.record).push(Told::Tables(from, to));
        Ok(())
    }
}

/// Reads the log, with pauses, until no writer is left and everything is read. Returns what it was told.
pub async fn run(doors: Arc<Doors>, world: Arc<World>, seed: u64) -> Vec<Told> {
    let record = Record::default();
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        let app = doors.app().await;
        let reader = Reader { record: Arc::clone(&record), rng: Mutex::new(StdRng::seed_from_u64(rng.random())) };
        let is_over = read_for_a_while(&app, reader, &world, rng.random_range(1..20)).await;
        if is_over {
            return std::mem::take(&mut *lock(&record));
        }
        if !app.stopping.is_cancelled() && rng.random() {
            upkeep(&app, &world).await;
        }
        drop(app);
        wait_for_acts(&world, rng.random_range(0..10), None).await;
    }
}

/// Reads until there were some more acts or the server stops. Returns whether everything is read.
async fn read_for_a_while(app: &App, reader: Reader, world: &World, acts: u64) -> bool {
    let stop = CancellationToken::new();
    let cursor = Cursor::new(reader, Arc::clone(&app.db), app.clock.clone());
    let stopping = async {
        let is_last = wait_for_acts(world, acts, Some(app)).await;
        if is_last {
            let latest = app.db.committer().feed().latest();
            app.db.cursors().reached(Reader::NAME, latest).await;
        }
        stop.cancel();
        is_last
    };
    let ((), is_last) = tokio::join!(cursor.run(&stop), stopping);
    is_last
}

/// Waits until so many more acts have ended, or the server stops or does not lead any more. Returns whether no writer is
/// left.
async fn wait_for_acts(world: &World, acts: u64, app: Option<&App>) -> bool {
    let mut progress = world.progress();
    let until = progress.borrow().saturating_add(acts);
    let stopping = async {
        match app {
            // A process that follows reads nothing.
            Some(app) => tokio::select! {
                () = app.stopping.cancelled() => {}
                () = app.db.committer().following() => {}
            },
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // A process that has stopped or follows never reads the last entry.
        biased;
        () = stopping => return false,
        // The sender outlives us, so waiting for it cannot fail.
        _ = progress.wait_for(|count| *count >= until) => {}
    }
    *progress.borrow() == u64::MAX
}

/// Stores the cursors and trims the log.
async fn upkeep(app: &App, world: &World) {
    let now_ms = app.clock.now_ms() + LATER.as_millis() as i64;
    let kept = async {
        app.db.cursors().store(&app.db).await?;
        app.db.cursors().trim(&app.db, now_ms).await
    };
    match kept.await {
        // Another process keeps it.
        Ok(()) | Err(Error::NotLeader) => {}
        Err(error) if app.stopping.is_cancelled() => drop(error),
        Err(error) => world.fault("the log is not kept", error.to_string()),
    }
}
