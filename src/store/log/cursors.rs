//! The places of all cursors: kept in memory as they move, and stored together.
//!
//! Promise: places are stored at most once a second, and nothing is written while nothing happens. A cursor that only
//! passes entries without work for it is stored once a minute: passing them again costs little.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{LogEntry, Touch, cursor::TRY_AGAIN_AFTER, trim};
use crate::{
    clock::Clock,
    report::Report,
    store::{
        Conn, Database, Error, Position, Transaction,
        committer::Health,
        conn::{on, statements},
    },
};

statements! {
    FIND_CURSOR = "SELECT pos FROM log_cursor WHERE consumer = $1";
    LIST_CURSORS = "SELECT consumer FROM log_cursor ORDER BY consumer LIMIT $1";
    STORE_CURSOR = "INSERT INTO log_cursor (consumer, pos) VALUES ($1, $2) ON CONFLICT (consumer) DO UPDATE SET pos = excluded.pos";
    DELETE_CURSOR = "DELETE FROM log_cursor WHERE consumer = $1";
}

/// The interval for storing cursors that have done work: as much is done again after the process was killed.
const STORE_EVERY: Duration = Duration::from_secs(1);

/// The interval for storing cursors that had no work.
const STORE_IDLE_EVERY: Duration = Duration::from_secs(60);

/// The interval for deleting entries that nobody needs any more; more often would delete a few at a time.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// The number of rows that are looked through for consumers that no longer exist; far more than there ever were.
const MAX_CONSUMERS: i64 = 1000;

/// The place of one cursor.
#[derive(Debug, Clone, Copy)]
struct CursorPlace {
    /// Returns whether an entry with this touch may make work for the consumer.
    concerns: fn(&Touch) -> bool,
    /// The position up to which everything is done; `None` until the cursor knows.
    done: Option<Position>,
    /// The time of the last entry that is done.
    done_at_ms: i64,
    /// The position in the table; [`Position::BEFORE_ALL`] if there is none.
    stored: Position,
}

/// The number of times that all places were forgotten. A place that was found before says nothing afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// The end of the log, and the places of all cursors.
#[derive(Debug)]
struct Places {
    latest: Position,
    generation: Generation,
    by_consumer: BTreeMap<&'static str, CursorPlace>,
}

impl Places {
    fn done(&self, consumer: &'static str) -> Option<Position> {
        self.by_consumer.get(consumer)?.done
    }
}

/// The end of a step of a cursor.
pub(super) struct Moved {
    /// The position up to which everything is done.
    pub(super) done: Position,
    /// The time of the last entry that is done.
    pub(super) at_ms: i64,
    /// False if it only passed entries without work.
    pub(super) has_worked: bool,
}

/// The distance of a cursor from the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    pub consumer: &'static str,
    pub positions: i64,
    /// The time for which the oldest entry that is not done has waited.
    pub time: Duration,
}

/// The places of all cursors of this process.
#[derive(Debug)]
pub struct Cursors {
    places: watch::Sender<Places>,
    /// Told when work was done that is not stored yet.
    worked: Notify,
}

impl Cursors {
    pub(super) fn new(latest: Position) -> Self {
        let places = Places { latest, generation: Generation(0), by_consumer: BTreeMap::new() };
        Self { places: watch::Sender::new(places), worked: Notify::new() }
    }

    /// The position of the newest entry.
    pub(super) fn latest(&self) -> Position {
        self.places.borrow().latest
    }

    pub(super) fn register(&self, consumer: &'static str, concerns: fn(&Touch) -> bool) {
        let place = CursorPlace { concerns, done: None, done_at_ms: 0, stored: Position::BEFORE_ALL };
        self.places.send_modify(|places| _ = places.by_consumer.insert(consumer, place));
    }

    /// Notes the newest entry. A cursor that has done everything before passes an entry without work for it, and is not
    /// woken: most commits wake nobody.
    pub(super) fn appended(&self, entry: &LogEntry) {
        self.places.send_if_modified(|places| {
            let before = std::mem::replace(&mut places.latest, entry.pos);
            let mut is_work = false;
            for place in places.by_consumer.values_mut() {
                if place.done == Some(before) && !entry.touches.iter().any(|(_, touch)| (place.concerns)(touch)) {
                    (place.done, place.done_at_ms) = (Some(entry.pos), entry.at_ms);
                } else {
                    is_work = true;
                }
            }
            is_work
        });
    }

    /// Notes that the log goes on from here.
    pub(super) fn skipped_to(&self, latest: Position) {
        self.places.send_modify(|places| places.latest = latest);
    }

    /// The present generation of places. Read it before anything that a place is to follow from.
    pub(super) fn generation(&self) -> Generation {
        self.places.borrow().generation
    }

    /// Forgets the places of all consumers: another process goes on with them, and stores how far it has come. Steps that
    /// are not over yet change nothing here any more.
    pub(in crate::store) fn forget_places(&self) {
        self.places.send_modify(|places| {
            places.generation.0 += 1;
            for place in places.by_consumer.values_mut() {
                (place.done, place.stored) = (None, Position::BEFORE_ALL);
            }
        });
    }

    /// Reads the stored place of a consumer, which goes on from there. A place after all commits is as good as none: the
    /// consumer would wait for ever, and pass what it has not done.
    pub(super) async fn find_stored(
        &self,
        db: &Database,
        consumer: &'static str,
        generation: Generation,
    ) -> Result<Option<Position>, Error> {
        let mut reader = db.read().await?;
        let stored: Option<(i64,)> = on!(&mut reader.conn(), db => sqlx::query_as(FIND_CURSOR.text())
            .bind(consumer).fetch_optional(&mut **db).await)?;
        let Some(pos) = stored.map(|(pos,)| Position(pos)) else { return Ok(None) };
        let published = db.committer().published();
        if pos > published {
            tracing::error!(
                consumer,
                position = pos.0,
                published = published.0,
                "the stored place in the commit log is after all commits: reading the tables"
            );
            return Ok(None);
        }
        self.change(consumer, generation, |place| (place.done, place.stored) = (Some(pos), pos));
        Ok(Some(pos))
    }

    /// The position up to which a consumer has done everything, if it knows that already.
    pub(super) fn done(&self, consumer: &'static str) -> Option<Position> {
        self.places.borrow().done(consumer)
    }

    /// Waits until there are entries that a consumer has not done, or its place is not known. Cancel safe.
    pub(super) async fn wait_for_entries(&self, consumer: &'static str) {
        // The sender is in `self`, so the wait ends only with an entry.
        let _ = self.places.subscribe().wait_for(|places| places.done(consumer) < Some(places.latest)).await;
    }

    /// Notes how far a consumer has come in a step that began in this generation.
    pub(super) fn moved(&self, consumer: &'static str, generation: Generation, to: Moved) {
        self.change(consumer, generation, |place| (place.done, place.done_at_ms) = (Some(to.done), to.at_ms));
        if to.has_worked {
            self.worked.notify_one();
        }
    }

    /// Changes a place, unless it was forgotten since this generation.
    fn change(&self, consumer: &'static str, generation: Generation, change: impl FnOnce(&mut CursorPlace)) {
        self.places.send_if_modified(|places| {
            if places.generation != generation {
                return false;
            }
            let Some(place) = places.by_consumer.get_mut(consumer) else { return false };
            change(place);
            true
        });
    }

    /// Waits until a consumer has done everything up to `pos`. It need not be registered yet. Cancel safe.
    pub async fn reached(&self, consumer: &'static str, pos: Position) {
        // The sender is in `self`, so the wait ends only when the place is reached.
        let _ = self.places.subscribe().wait_for(|places| places.done(consumer) >= Some(pos)).await;
    }

    /// The distance of each cursor from the end of the log. A consumer that has not begun has none: in a process that follows,
    /// none has.
    pub fn lags(&self, db: &Database, now_ms: i64) -> Vec<Lag> {
        let feed = db.committer().feed();
        let places = self.places.borrow();
        let lag = |(consumer, place): (&&'static str, &CursorPlace)| {
            let done = place.done?;
            let since_ms =
                if done >= places.latest { now_ms } else { feed.time_after(done).unwrap_or(place.done_at_ms) };
            let waited_ms = u64::try_from(now_ms - since_ms).unwrap_or_default();
            let positions = (places.latest.0 - done.0).max(0);
            Some(Lag { consumer, positions, time: Duration::from_millis(waited_ms) })
        };
        places.by_consumer.iter().filter_map(lag).collect()
    }

    /// Tells the metrics how far behind each cursor is.
    pub fn record(&self, db: &Database, now_ms: i64) {
        for Lag { consumer, positions, time } in self.lags(db, now_ms) {
            metrics::gauge!("sabha_log_cursor_lag_positions", "consumer" => consumer).set(positions as f64);
            metrics::gauge!("sabha_log_cursor_lag_seconds", "consumer" => consumer).set(time.as_secs_f64());
        }
    }

    /// The position up to which every cursor is stored; `None` if there are no cursors.
    pub(super) fn slowest(&self) -> Option<Position> {
        self.places.borrow().by_consumer.values().map(|place| place.stored).min()
    }

    /// Stores the cursors that have moved. Called at a clean stop too.
    ///
    /// # Errors
    /// When the database fails. The next call stores them.
    pub async fn store(&self, db: &Database) -> Result<(), Error> {
        let (generation, moved): (Generation, Vec<(&'static str, Position)>) = {
            let places = self.places.borrow();
            let moved = |(consumer, place): (&&'static str, &CursorPlace)| {
                place.done.filter(|done| *done > place.stored).map(|done| (*consumer, done))
            };
            (places.generation, places.by_consumer.iter().filter_map(moved).collect())
        };
        if moved.is_empty() {
            return Ok(());
        }
        db.committer().transact(StoreCursors(moved.clone())).await?;
        for (consumer, pos) in moved {
            self.change(consumer, generation, |place| place.stored = pos);
        }
        Ok(())
    }

    /// Deletes the entries of the log that nobody needs any more at this time.
    ///
    /// # Errors
    /// When the database fails. The next call goes on.
    pub async fn trim(&self, db: &Database, now_ms: i64) -> Result<(), Error> {
        trim::trim(db, now_ms).await
    }

    /// Stores the cursors and trims the log, for as long as it is polled. Call it when all consumers are registered.
    pub async fn keep(&self, db: &Database, clock: &Clock) {
        let mut trim_at = Instant::now();
        let mut is_clean = false;
        loop {
            db.committer().leading().await;
            let latest = self.latest();
            // A disk that is full, or a database that does not answer, is left to the writes of users.
            if db.committer().health() == Health::Working {
                let kept = async {
                    if !is_clean {
                        self.forget_unknown(db).await?;
                        is_clean = true;
                    }
                    self.store(db).await?;
                    if trim_at <= Instant::now() {
                        self.trim(db, clock.now_ms()).await?;
                        trim_at = Instant::now() + TRIM_EVERY;
                    }
                    Ok::<_, Error>(())
                };
                if let Err(error) = kept.await {
                    tracing::warn!(error = %Report(&error), "cursors of the commit log not stored, trying again later");
                    self.worked.notify_one();
                    tokio::time::sleep(TRY_AGAIN_AFTER).await;
                }
            } else {
                self.worked.notify_one();
            }
            self.wait_for_need(latest).await;
        }
    }

    /// Waits until something should be stored: soon after work, later after entries without work, and never while there
    /// are neither.
    async fn wait_for_need(&self, latest: Position) {
        let passed = async {
            loop {
                tokio::time::sleep(STORE_IDLE_EVERY).await;
                if self.latest() > latest {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.worked.notified() => {}
            () = passed => {}
        }
        tokio::time::sleep(STORE_EVERY).await;
    }

    /// Deletes the places of consumers that this release does not have, which would be taken for the slowest ones.
    pub(super) async fn forget_unknown(&self, db: &Database) -> Result<(), Error> {
        let mut reader = db.read().await?;
        let stored: Vec<(String,)> = on!(&mut reader.conn(), db => sqlx::query_as(LIST_CURSORS.text())
            .bind(MAX_CONSUMERS).fetch_all(&mut **db).await)?;
        drop(reader);
        let unknown: Vec<String> = {
            let known = &self.places.borrow().by_consumer;
            stored.into_iter().map(|(name,)| name).filter(|name| !known.contains_key(name.as_str())).collect()
        };
        if !unknown.is_empty() {
            db.committer().transact(ForgetCursors(unknown)).await?;
        }
        Ok(())
    }
}

/// Stores places. They touch nothing: a row of the log for each would never end.
struct StoreCursors(Vec<(&'static str, Position)>);

impl Transaction for StoreCursors {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        for (consumer, pos) in &self.0 {
            on!(conn, db => sqlx::query(STORE_CURSOR.text())
                .bind(*consumer).bind(pos.0).execute(&mut **db).await.map(drop))?;
        }
        Ok(())
    }
}

struct ForgetCursors(Vec<String>);

impl Transaction for ForgetCursors {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        for consumer in &self.0 {
            on!(conn, db => sqlx::query(DELETE_CURSOR.text())
                .bind(consumer.as_str()).execute(&mut **db).await.map(drop))?;
        }
        Ok(())
    }
}
