//! The committer's task: takes waiting writes, commits them and makes them known.

use std::{
    collections::VecDeque,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use tokio::time::Instant;
use tracing::{Instrument as _, debug_span};

use super::{
    CommitStep, Committer, Ended, Health, Lineage, MAX_BATCH, QueuedWrite, Reserve, Role, Shared, Work,
    connection::{Failure, WriterConn},
    queue::{Intake, QueuePlace},
};
use crate::{
    report::Report,
    store::{Error, ids::lock, log::LogEntry},
};

/// The number of times that a batch is sent again when the connection was lost and nothing of it is stored. If the
/// connection is lost more often, the batch is the cause.
const RESENDS: usize = 2;

impl Committer {
    /// Serves writers until [`Self::stop`] was called and the queue is empty. Returns the connection, to be closed last.
    pub(in crate::store) async fn run(self, mut conn: WriterConn) -> WriterConn {
        let mut ending = Ending { shared: &self.0, why: None };
        ending.why = Some(self.serve(&mut conn).await);
        drop(ending);
        conn
    }

    /// Commits queued writes, for as long as this process has the right to. `Ok`: another process is to have it.
    pub(super) async fn lead(&self, conn: &mut WriterConn) -> Result<(), Ended> {
        loop {
            let (batch, has_ended) = self.take();
            if batch.is_empty() {
                match has_ended {
                    None => self.wait_for_writes(conn).await?,
                    Some(Intake::Stopping) => return Err(Ended::Stopped),
                    Some(Intake::Following | Intake::Open) => return Ok(()),
                }
                continue;
            }
            let span = debug_span!("committer.batch", writes = batch.len());
            self.commit(conn, batch).instrument(span).await?;
        }
    }

    /// Takes writes from the queue. With none, returns the reason why nothing more comes, if there is one.
    pub(super) fn take(&self) -> (Vec<QueuedWrite>, Option<Intake>) {
        let mut queue = lock(&self.0.queue);
        (queue.take(MAX_BATCH), queue.has_ended())
    }

    async fn commit(&self, conn: &mut WriterConn, mut batch: Vec<QueuedWrite>) -> Result<(), Ended> {
        metrics::histogram!("sabha_db_batch_writes").record(batch.len() as f64);
        self.0.steps.reached(CommitStep::Taken).await;
        self.fail_superseded(&mut batch);
        let error = match self.store(conn, &batch).await {
            Ok(Ok(entry)) => return self.succeed(batch, entry).await,
            Ok(Err(error)) => error,
            Err(ended) => return Err(self.give_up(batch, ended)),
        };
        if batch.len() == 1 {
            self.fail(batch, &error);
            return Ok(());
        }
        tracing::warn!(error = %Report(&error), writes = batch.len(), "batch not committed, trying each write alone");
        let mut left = VecDeque::from(batch);
        while let Some(queued) = left.pop_front() {
            let mut alone = vec![queued];
            self.fail_superseded(&mut alone);
            match self.store(conn, &alone).await {
                Ok(Ok(entry)) => self.succeed(alone, entry).await?,
                Ok(Err(error)) => self.fail(alone, &error),
                Err(ended) => {
                    alone.extend(left);
                    return Err(self.give_up(alone, ended));
                }
            }
        }
        Ok(())
    }

    /// Gives up writes of which nothing is stored, or of which that is not known, because the committer ends or follows from
    /// now on.
    fn give_up(&self, batch: Vec<QueuedWrite>, ended: Ended) -> Ended {
        for queued in batch {
            if ended == Ended::Fenced && self.0.role == Role::Follow {
                self.0.refuse(queued, Error::NotLeader);
            } else {
                // Its writer is told that the server stops.
                self.0.abandon(&queued);
            }
        }
        ended
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
        let asked_at = self.0.clock.uptime();
        let answer = self.reporting(conn.commit(&self.0, batch), batch.len()).await;
        // Whatever became of the batch, the slot was ours.
        if !batch.is_empty() && !matches!(answer, Err(Failure::Fenced | Failure::Stopped)) {
            self.0.current.confirm(asked_at);
        }
        answer
    }

    /// Waits for the database, and reports when that takes long.
    pub(super) async fn reporting<T>(&self, answer: impl Future<Output = T>, writes: usize) -> T {
        let began = Instant::now();
        let mut timer = std::mem::take(&mut *lock(&self.0.notice_timer));
        let mut answer = pin!(answer);
        let in_time = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => timer.poll_due(began, self.0.notice, cx).map(|()| None),
        });
        let in_time = in_time.await;
        *lock(&self.0.notice_timer) = timer;
        if let Some(answer) = in_time {
            return answer;
        }
        tracing::warn!(writes, "the database does not answer a commit");
        self.0.pulse.set(Health::Waiting);
        answer.await
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
        steps.reached(CommitStep::Remembered).await;
        self.0.show(last);
        if let Some(entry) = entry {
            self.0.feed.append(entry);
        }
        steps.reached(CommitStep::Published).await;
        for queued in batch {
            if let Work::Transaction(transaction) = queued.work {
                transaction.answer();
            }
            // A writer that went away does not wait for its answer.
            let _ = queued.answer.send(Ok(()));
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

/// Runs a change of memory. A change that panics may be half done, for any number of rooms and users. Readers would
/// take the missing part for "nothing new" and skip it for ever, so nothing may become visible any more.
pub(super) fn contained(hook: impl FnOnce()) -> Result<(), Ended> {
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
            Ended::Fenced | Ended::SetBack | Ended::MemoryBehind | Ended::Panicked => {
                tracing::error!(reason = %why, waiting = waiting.len(), "no more writes");
            }
        }
        if matches!(why, Ended::Fenced | Ended::SetBack) {
            self.shared.current.end();
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
