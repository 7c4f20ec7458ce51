//! The committer: the one task of this process that writes to the database.
//!
//! Writers queue what they want written and wait. The committer takes everything that is waiting, up to [`MAX_BATCH`]
//! writes, into one transaction, and commits. While it commits, the next batch gathers, so batches grow with the load
//! without any timer. After the commit, in this order: memory is updated ([`Write::after`]), the new position becomes
//! visible ([`Committer::published`]), and the writers are answered.
//!
//! Positions are given out when a write is queued. The queue is first in, first out, so positions are in commit order.
//!
//! A batch that fails is rolled back and each of its writes is tried once more alone. A write that fails again breaks its
//! [`Lineage`]: all writes that were built on it fail too, and nothing of them is stored.

mod batch;
mod gathered;
mod one_call;
mod steps;
mod transaction;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use tokio::sync::{Notify, oneshot};
use tracing::{Instrument as _, debug_span};

use steps::Steps;
pub use steps::{CommitStep, StepHook};
pub use transaction::Transaction;
use transaction::{Erased, Slot};

use super::{Counters, Error, Position, Row, ids::Ids, ids::lock};
pub(crate) use batch::insert_rows;
pub(super) use batch::{Engine, RESERVE_IDS, WriterConn};
#[cfg(test)]
pub(super) use {
    batch::STATEMENTS,
    one_call::{postgres_text, sqlite_text},
};

/// The most writes in one transaction: enough that an fsync is shared by everyone who waits, small enough that a batch
/// stays within a few milliseconds.
pub const MAX_BATCH: usize = 512;

/// The most writes that may wait. Each waits inside a request, so this bounds memory, and callers are told to come back.
pub const MAX_QUEUE: usize = 16_384;

/// A chain of writes of which each builds on the one before, such as the events of one room.
#[derive(Debug, Clone, Default)]
pub struct Lineage(Arc<AtomicBool>);

impl Lineage {
    /// Whether a write of this chain has failed. What was built on it in memory must be thrown away.
    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn break_off(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What one writer wants written, all of it or none of it.
#[derive(Default)]
pub struct Write {
    pub(super) rows: Vec<Row>,
    pub(super) lineage: Option<Lineage>,
    pub(super) stored: Vec<Arc<AtomicBool>>,
    pub(super) after: Option<Hook>,
    pub(super) wake: Option<Hook>,
}

type Hook = Box<dyn FnOnce() + Send + Sync>;

impl Write {
    pub fn new(rows: Vec<Row>) -> Self {
        Self { rows, ..Self::default() }
    }

    /// Names the chain that this write belongs to.
    #[must_use]
    pub fn in_lineage(mut self, lineage: Lineage) -> Self {
        self.lineage = Some(lineage);
        self
    }

    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Adds `row`, and sets `stored` once it is committed.
    pub fn add_new(&mut self, row: Row, stored: Arc<AtomicBool>) {
        self.rows.push(row);
        self.stored.push(stored);
    }

    /// Runs after the commit and before the position becomes visible, in the order of the queue. Must be short and must
    /// not block: every writer waits for it.
    #[must_use]
    pub fn after(mut self, after: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.after = Some(Box::new(after));
        self
    }

    /// Runs right after the position has become visible: the place for wake-ups. The same care applies.
    #[must_use]
    pub fn wake(mut self, wake: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.wake = Some(Box::new(wake));
        self
    }
}

enum Work {
    Write(Write),
    Transaction(Box<dyn Erased>),
}

struct Queued {
    position: Position,
    work: Work,
    answer: oneshot::Sender<Result<(), Error>>,
}

impl Work {
    fn lineage(&self) -> Option<&Lineage> {
        match self {
            Self::Write(write) => write.lineage.as_ref(),
            Self::Transaction(_) => None,
        }
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Queued>,
    /// The last position that was given out.
    last: i64,
    stopping: bool,
}

/// The write side of the database. Cheap to clone.
#[derive(Clone)]
pub struct Committer(Arc<Shared>);

pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    published: AtomicI64,
    steps: Steps,
    pub(super) ids: Ids,
    pub(super) counters: Arc<Counters>,
}

/// A queued write. Waiting for it is waiting for its commit; dropping it lets the write go on.
#[must_use = "a write is only answered after its commit"]
pub struct Committed {
    position: Position,
    answer: oneshot::Receiver<Result<(), Error>>,
}

impl Committed {
    /// Where the write is, or will be, in the order of everything.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Waits for the commit.
    ///
    /// # Errors
    /// After [`Error::Database`] the write may or may not have been stored.
    pub async fn wait(self) -> Result<Position, Error> {
        match self.answer.await {
            Ok(result) => result.map(|()| self.position),
            Err(_) => Err(Error::Stopping),
        }
    }
}

impl Committer {
    pub(super) fn new(last: Position, counters: Arc<Counters>) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(Queue { last: last.0, ..Queue::default() }),
            wake: Notify::new(),
            published: AtomicI64::new(last.0),
            steps: Steps::default(),
            ids: Ids::default(),
            counters,
        }))
    }

    /// The position up to which everything is committed and visible in memory.
    pub fn published(&self) -> Position {
        Position(self.0.published.load(Ordering::Acquire))
    }

    /// Queues a write of `count` consecutive positions. `build` is told the first and must be quick: it runs under the
    /// queue's lock, so that positions are in the order of the queue. The write stands at its last position.
    ///
    /// # Errors
    /// [`Error::Overloaded`] or [`Error::Stopping`]; `build` has then not run. [`Error::HoldsNul`]. What `build` refuses is
    /// passed on. Nothing is queued then.
    pub fn submit<E: From<Error>>(
        &self,
        count: usize,
        build: impl FnOnce(Position) -> Result<Write, E>,
    ) -> Result<Committed, E> {
        self.push(count, |position| {
            let write = build(position)?;
            // Writes of a lineage have changed memory by now; whoever builds them looks first.
            if write.lineage.is_none() && write.rows.iter().any(Row::holds_nul) {
                return Err(Error::HoldsNul.into());
            }
            Ok(Work::Write(write))
        })
    }

    /// Queues rows that need no position and waits for their commit.
    ///
    /// # Errors
    /// As [`Committed::wait`].
    pub async fn write(&self, write: Write) -> Result<Position, Error> {
        self.submit::<Error>(1, |_| Ok(write))?.wait().await
    }

    /// Runs a transaction that must read before it writes, in its place in the queue.
    ///
    /// # Errors
    /// As [`Committed::wait`]; what the transaction itself refuses is part of its output.
    pub async fn transact<T: Transaction>(&self, transaction: T) -> Result<T::Output, Error> {
        let (output, received) = oneshot::channel();
        self.push::<Error>(1, |_| Ok(Work::Transaction(Box::new(Slot::new(transaction, output)))))?.wait().await?;
        received.await.map_err(|_| Error::Stopping)
    }

    fn push<E: From<Error>>(
        &self,
        count: usize,
        work: impl FnOnce(Position) -> Result<Work, E>,
    ) -> Result<Committed, E> {
        let mut queue = lock(&self.0.queue);
        if queue.stopping {
            return Err(Error::Stopping.into());
        }
        if queue.waiting.len() >= MAX_QUEUE {
            return Err(Error::Overloaded.into());
        }
        let work = work(Position(queue.last + 1))?;
        queue.last += i64::try_from(count).unwrap_or(i64::MAX).max(1);
        let position = Position(queue.last);
        let (answer, receiver) = oneshot::channel();
        queue.waiting.push_back(Queued { position, work, answer });
        drop(queue);
        self.0.wake.notify_one();
        Ok(Committed { position, answer: receiver })
    }

    pub fn ids(&self) -> &Ids {
        &self.0.ids
    }

    /// Waits for `hook` after each step of each commit from now on. For tests; only the first hook counts.
    pub fn on_step(&self, hook: StepHook) {
        self.0.steps.set(hook);
    }

    /// Takes no more writes; what is queued is still committed.
    pub(super) fn stop(&self) {
        lock(&self.0.queue).stopping = true;
        self.0.wake.notify_one();
    }

    /// Commits what is queued, until [`Self::stop`] and the queue is empty.
    pub(super) async fn run(self, mut conn: WriterConn) {
        loop {
            let (batch, stopping) = self.take();
            if batch.is_empty() {
                if stopping {
                    conn.close().await;
                    return;
                }
                self.0.wake.notified().await;
                continue;
            }
            let span = debug_span!("committer.batch", writes = batch.len());
            self.commit(&mut conn, batch).instrument(span).await;
        }
    }

    fn take(&self) -> (Vec<Queued>, bool) {
        let mut queue = lock(&self.0.queue);
        let count = queue.waiting.len().min(MAX_BATCH);
        (queue.waiting.drain(..count).collect(), queue.stopping)
    }

    async fn commit(&self, conn: &mut WriterConn, mut batch: Vec<Queued>) {
        metrics::histogram!("sabha_db_batch_writes").record(batch.len() as f64);
        self.0.steps.reached(CommitStep::Taken).await;
        fail_superseded(&mut batch);
        match conn.commit(&self.0, &batch).await {
            Ok(()) => self.succeed(batch).instrument(debug_span!("committer.publish")).await,
            Err(error) if batch.len() == 1 => fail(batch, &error),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), writes = batch.len(), "batch not committed, trying each write alone");
                for queued in batch {
                    let mut alone = vec![queued];
                    fail_superseded(&mut alone);
                    match conn.commit(&self.0, &alone).await {
                        Ok(()) => self.succeed(alone).await,
                        Err(error) => fail(alone, &error),
                    }
                }
            }
        }
    }

    async fn succeed(&self, batch: Vec<Queued>) {
        let Some(last) = batch.last().map(|queued| queued.position) else {
            return;
        };
        let steps = &self.0.steps;
        steps.reached(CommitStep::Stored).await;
        let mut answers = Vec::with_capacity(batch.len());
        let mut wakes: Vec<Hook> = Vec::with_capacity(batch.len());
        for queued in batch {
            match queued.work {
                Work::Write(write) => {
                    for stored in write.stored {
                        stored.store(true, Ordering::Release);
                    }
                    wakes.extend(write.wake);
                    if let Some(after) = write.after {
                        contained(after);
                    }
                }
                Work::Transaction(transaction) => contained(|| wakes.extend(transaction.committed(queued.position))),
            }
            answers.push(queued.answer);
        }
        steps.reached(CommitStep::Remembered).await;
        self.0.published.store(last.0, Ordering::Release);
        steps.reached(CommitStep::Published).await;
        for wake in wakes {
            contained(wake);
        }
        steps.reached(CommitStep::Woken).await;
        for answer in answers {
            // A writer that went away does not wait for its answer.
            let _ = answer.send(Ok(()));
        }
        steps.reached(CommitStep::Answered).await;
    }
}

/// One writer's mistake must not stop the only task that writes.
fn contained(hook: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(hook)).is_err() {
        tracing::error!("updating memory after a commit panicked");
    }
}

/// Answers writes whose chain is already broken, and leaves the others.
fn fail_superseded(batch: &mut Vec<Queued>) {
    let broken = |queued: &mut Queued| queued.work.lineage().is_some_and(Lineage::is_broken);
    for queued in batch.extract_if(.., broken) {
        let _ = queued.answer.send(Err(Error::Superseded));
    }
}

fn fail(batch: Vec<Queued>, error: &Error) {
    for queued in batch {
        tracing::error!(error = %Chain(error), position = queued.position.0, "write not stored");
        if let Some(lineage) = queued.work.lineage() {
            lineage.break_off();
        }
        let _ = queued.answer.send(Err(error.clone()));
    }
}

/// Displays an error with its causes.
struct Chain<'a>(&'a Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
