//! The committer's task: takes waiting writes, commits them and makes them known.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use tracing::{Instrument as _, debug_span};

use super::{
    CommitStep, Committer, Ended, Health, Lineage, MAX_BATCH, QueuedWrite, Reserve, Shared, Work,
    connection::{Failure, WriterConn},
    queue::QueuePlace,
};
use crate::{
    report::Report,
    store::{Error, ids::lock, log::LogEntry},
};

/// The number of times that a batch is sent again when the connection was lost and nothing of it is stored. If the
/// connection is lost more often, the batch is the cause.
const RESENDS: usize = 2;

impl Committer {
    /// Commits queued writes, until [`Self::stop`] was called and the queue is empty. Returns the connection, to be
    /// closed last.
    pub(in crate::store) async fn run(self, mut conn: WriterConn) -> WriterConn {
        let mut ending = Ending { shared: &self.0, why: None };
        loop {
            let (batch, has_ended) = self.take();
            if batch.is_empty() {
                if has_ended {
                    ending.why = Some(Ended::Stopped);
                    break;
                }
                self.0.wake.notified().await;
                continue;
            }
            let span = debug_span!("committer.batch", writes = batch.len());
            if let Err(ended) = self.commit(&mut conn, batch).instrument(span).await {
                ending.why = Some(ended);
                break;
            }
        }
        drop(ending);
        conn
    }

    fn take(&self) -> (Vec<QueuedWrite>, bool) {
        let mut queue = lock(&self.0.queue);
        (queue.take(MAX_BATCH), queue.has_ended())
    }

    async fn commit(&self, conn: &mut WriterConn, mut batch: Vec<QueuedWrite>) -> Result<(), Ended> {
        metrics::histogram!("sabha_db_batch_writes").record(batch.len() as f64);
        self.0.steps.reached(CommitStep::Taken).await;
        self.fail_superseded(&mut batch);
        match self.settled(conn, &batch).await? {
            Ok(entry) => self.succeed(batch, entry).await,
            Err(error) if batch.len() == 1 => {
                self.fail(batch, &error);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(error = %Report(&error), writes = batch.len(), "batch not committed, trying each write alone");
                for queued in batch {
                    let mut alone = vec![queued];
                    self.fail_superseded(&mut alone);
                    match self.settled(conn, &alone).await? {
                        Ok(entry) => self.succeed(alone, entry).await?,
                        Err(error) => self.fail(alone, &error),
                    }
                }
                Ok(())
            }
        }
    }

    /// Commits the batch as [`Self::store`] does. If the committer ends over it, memory gives it up.
    async fn settled(
        &self,
        conn: &mut WriterConn,
        batch: &[QueuedWrite],
    ) -> Result<Result<Option<Arc<LogEntry>>, Error>, Ended> {
        let stored = self.store(conn, batch).await;
        if stored.is_err() {
            batch.iter().for_each(|queued| self.0.abandon(queued));
        }
        stored
    }

    /// Commits the batch, and returns its entry of the commit log. The inner error says that nothing of it is stored.
    async fn store(
        &self,
        conn: &mut WriterConn,
        batch: &[QueuedWrite],
    ) -> Result<Result<Option<Arc<LogEntry>>, Error>, Ended> {
        let mut resends = 0;
        let is_essential = batch.iter().all(|queued| queued.work.is_essential());
        let reserve = self.0.reserve.as_ref();
        if let Some(reserve) = reserve.filter(|reserve| reserve.is_free() && !is_essential)
            && !reserve.is_taken().await
        {
            self.0.pulse.set(Health::DiskFull);
            return Ok(Err(Error::disk_full()));
        }
        loop {
            let error = match self.watched(conn, batch).await {
                Ok(entry) => {
                    let is_full = reserve.is_some_and(Reserve::is_free);
                    self.0.pulse.set(if is_full { Health::DiskFull } else { Health::Working });
                    return Ok(Ok(entry));
                }
                Err(Failure::Lost(_)) if resends < RESENDS => {
                    resends += 1;
                    continue;
                }
                Err(Failure::Lost(error) | Failure::Refused(error)) => error,
                Err(Failure::Fenced) => return Err(Ended::Fenced),
                Err(Failure::Stopped) => return Err(Ended::Unsettled),
            };
            let is_full = matches!(error, Error::DiskFull(_));
            if is_full && is_essential && reserve.is_some_and(Reserve::give_up) {
                tracing::warn!("the disk is full: signing in and out goes on in the room that was kept for it");
                continue;
            }
            self.0.pulse.set(if is_full { Health::DiskFull } else { Health::Working });
            return Ok(Err(error));
        }
    }

    /// Commits the batch, and reports when that takes long.
    async fn watched(&self, conn: &mut WriterConn, batch: &[QueuedWrite]) -> Result<Option<Arc<LogEntry>>, Failure> {
        let notice = tokio::time::sleep(self.0.notice);
        let commit = conn.commit(&self.0, batch);
        tokio::pin!(notice, commit);
        tokio::select! {
            biased;
            stored = &mut commit => return stored,
            () = notice => {}
        }
        tracing::warn!(writes = batch.len(), "the database does not answer a commit");
        self.0.pulse.set(Health::Waiting);
        commit.await
    }

    /// Updates memory, makes the position visible, and answers. Others wake those who wait for news.
    async fn succeed(&self, batch: Vec<QueuedWrite>, entry: Option<Arc<LogEntry>>) -> Result<(), Ended> {
        let Some(last) = batch.last().map(|queued| queued.position) else {
            return Ok(());
        };
        let steps = &self.0.steps;
        steps.reached(CommitStep::Stored).await;
        let span = debug_span!("committer.publish");
        if let Some(entry) = &entry {
            span.in_scope(|| contained(|| self.0.memory.apply(entry)))?;
        }
        let answers: Vec<Answer> = batch.into_iter().map(answer).collect();
        steps.reached(CommitStep::Remembered).await;
        self.0.published.store(last.0, Ordering::Release);
        if let Some(entry) = entry {
            self.0.feed.append(entry);
        }
        steps.reached(CommitStep::Published).await;
        for (answer, output) in answers {
            if let Some(output) = output {
                output();
            }
            // A writer that went away does not wait for its answer.
            let _ = answer.send(Ok(()));
        }
        if let Some(tell) = self.0.on_published.0.get() {
            tell();
        }
        steps.reached(CommitStep::Answered).await;
        Ok(())
    }

    /// Answers writes whose chain is already broken, and leaves the others.
    fn fail_superseded(&self, batch: &mut Vec<QueuedWrite>) {
        let broken = |queued: &mut QueuedWrite| queued.work.lineage().is_some_and(Lineage::is_broken);
        for queued in batch.extract_if(.., broken) {
            self.0.abandon(&queued);
            let _ = queued.answer.send(Err(Error::Superseded));
        }
    }

    fn fail(&self, batch: Vec<QueuedWrite>, error: &Error) {
        for queued in batch {
            tracing::error!(error = %Report(error), position = queued.position.0, "write not stored");
            self.0.abandon(&queued);
            if let Some(lineage) = queued.work.lineage() {
                lineage.break_off();
            }
            let _ = queued.answer.send(Err(error.clone()));
        }
    }
}

/// An answer, and the function that hands over a transaction's output before it.
type Answer = (tokio::sync::oneshot::Sender<Result<(), Error>>, Option<super::Hook>);

fn answer(queued: QueuedWrite) -> Answer {
    let output = match queued.work {
        Work::Write(_) => None,
        Work::Transaction(transaction) => transaction.answer(),
    };
    (queued.answer, output)
}

/// Runs a change of memory. A change that panics may be half done, for any number of rooms and users. Readers would
/// take the missing part for "nothing new" and skip it for ever, so nothing may become visible any more.
fn contained(hook: impl FnOnce()) -> Result<(), Ended> {
    catch_unwind(AssertUnwindSafe(hook)).map_err(|_| Ended::MemoryBehind)
}

/// Reports that the committer has ended, for whatever reason, and releases everyone who waits for it.
struct Ending<'a> {
    shared: &'a Shared,
    /// `None` while it runs.
    why: Option<Ended>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let why = self.why.unwrap_or_else(|| {
            // A task that is dropped without a panic belongs to a runtime that is ending.
            if std::thread::panicking() { Ended::Panicked } else { Ended::Stopped }
        });
        let waiting = lock(&self.shared.queue).close();
        match why {
            Ended::Stopped => {}
            Ended::Unsettled => tracing::warn!(reason = %why, "no more writes"),
            Ended::Fenced | Ended::MemoryBehind | Ended::Panicked => {
                tracing::error!(reason = %why, waiting = waiting.len(), "no more writes");
            }
        }
        self.shared.pulse.set(Health::Ended(why));
        for place in &waiting {
            if let QueuePlace::Ready(queued) = place {
                self.shared.abandon(queued);
            }
        }
        // Their writers are told that the server stops.
        drop(waiting);
    }
}
