//! Cursors: consumers of the commit log, and how far each of them has come.
//!
//! Promise: a consumer sees each entry at least once and in order, across restarts too. Work that was done shortly before
//! the process was killed is done again. A consumer whose work fails tries again later and stops nobody else. One that is
//! too far behind gets the tables to read instead of the log ([`Consumer::catch_up`]).
//!
//! A cursor's position is in memory; [`super::cursors`] stores it from time to time.

use std::{future::Future, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    LogEntry, Touch,
    cursors::{Generation, Moved},
    feed::Upcoming,
};
use crate::{
    clock::Clock,
    report::Report,
    store::{Database, Error, Position},
};

/// The pause after a failure: long enough for a database in trouble, and short for a user who waits for the work.
pub(super) const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A follower of the commit log: a function from an entry to work, and the work.
pub trait Consumer: Send + Sync + 'static {
    /// The name of its row in `log_cursor`, and its label in the metrics.
    const NAME: &'static str;

    type Work: Send;

    /// Returns whether an entry with this touch may make work. Entries without such a touch pass by.
    fn concerns(touch: &Touch) -> bool;

    /// The work that follows from an entry that concerns it. It only looks at the entry.
    fn work(&self, entry: &LogEntry) -> Option<Self::Work>;

    /// Does the work of some entries, in their order. It may be done more than once, so doing it twice must be safe.
    fn perform(&self, work: Vec<Self::Work>) -> impl Future<Output = Result<(), Error>> + Send;

    /// Does all work that the commits in (`from`, `to`] may have made, as the tables show it. Called instead of
    /// [`Self::perform`] when the log does not reach back, and for a new consumer.
    fn catch_up(&self, from: Position, to: Position) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A consumer and its place in the log.
pub struct Cursor<C> {
    consumer: C,
    db: Arc<Database>,
    clock: Clock,
}

impl<C: Consumer> Cursor<C> {
    /// Creates the cursor of a consumer, and keeps the log for it from now on.
    pub fn new(consumer: C, db: Arc<Database>, clock: Clock) -> Self {
        db.cursors().register(C::NAME, C::concerns);
        Self { consumer, db, clock }
    }

    /// Follows the log until the server stops.
    pub async fn run(self, stopping: &CancellationToken) {
        let follow = async {
            loop {
                if let Err(error) = self.step().await {
                    tracing::warn!(consumer = C::NAME, error = %Report(&error), "commit log not followed, trying again later");
                    tokio::time::sleep(TRY_AGAIN_AFTER).await;
                }
            }
        };
        let _: Option<()> = stopping.run_until_cancelled(follow).await;
    }

    /// Waits for entries, and does their work. Of several processes, only the one that writes does it. If that is another one
    /// before the work is done, the step counts for nothing.
    pub(in crate::store) async fn step(&self) -> Result<(), Error> {
        self.db.committer().leading().await;
        let cursors = self.db.cursors();
        let generation = cursors.generation();
        cursors.wait_for_entries(C::NAME).await;
        if self.db.committer().is_following() {
            // Its place was forgotten, and another process has a later one.
            return Ok(());
        }
        let Some(done) = cursors.done(C::NAME) else { return self.begin(generation).await };
        match self.db.committer().feed().after(&self.db, done, self.clock.now_ms()).await? {
            Upcoming::Entries(entries) => self.perform(&entries, generation).await,
            Upcoming::TooFar => {
                tracing::warn!(
                    consumer = C::NAME,
                    position = done.0,
                    "too far behind in the commit log: reading the tables"
                );
                self.catch_up(done, generation).await
            }
        }
    }

    /// Finds the place where the consumer was. A new consumer begins with the tables, and so does one whose place is damaged.
    async fn begin(&self, generation: Generation) -> Result<(), Error> {
        match self.db.cursors().find_stored(&self.db, C::NAME, generation).await? {
            Some(_) => Ok(()),
            None => self.catch_up(Position::BEFORE_ALL, generation).await,
        }
    }

    async fn catch_up(&self, from: Position, generation: Generation) -> Result<(), Error> {
        let to = self.db.committer().feed().latest();
        self.consumer.catch_up(from, to).await?;
        let moved = Moved { done: to, at_ms: self.clock.now_ms(), has_worked: true };
        self.db.cursors().moved(C::NAME, generation, moved);
        Ok(())
    }

    async fn perform(&self, entries: &[Arc<LogEntry>], generation: Generation) -> Result<(), Error> {
        let Some(last) = entries.last() else { return Ok(()) };
        let concerning = entries.iter().filter(|entry| entry.touches.iter().any(|(_, touch)| C::concerns(touch)));
        let work: Vec<C::Work> = concerning.filter_map(|entry| self.consumer.work(entry)).collect();
        let has_worked = !work.is_empty();
        if has_worked {
            self.consumer.perform(work).await?;
        }
        let moved = Moved { done: last.pos, at_ms: last.at_ms, has_worked };
        self.db.cursors().moved(C::NAME, generation, moved);
        Ok(())
    }
}
