//! The committer: the one task of this process that writes to the database.
//!
//! Writers queue their writes and wait. The committer takes everything that is waiting, up to [`MAX_BATCH`] writes or about
//! [`MAX_BATCH_ROWS`] rows, into one transaction, and commits. While it commits, the next batch gathers, so batches grow
//! with the load without any timer. After the commit, in this order: memory is updated from the batch's entry of the commit
//! log ([`Memory`]), the new position becomes visible ([`Committer::published`]), and the writers are answered.
//!
//! Positions are given out with a write's place in the queue, before the write is built. The queue is first in, first
//! out, so positions are in commit order ([`queue`]).
//!
//! A batch that fails is rolled back and each of its writes is tried once more alone. A write that fails again breaks its
//! [`Lineage`]: all writes that were built on it fail too, and nothing of them is stored.
//!
//! A writer is answered only when the outcome of its write is known, even if the connection is lost ([`connection`]).
//! The task ends only with the server, or when it can no longer be correct ([`Ended`]); the process then ends too.
//!
//! Several processes can share a database on PostgreSQL ([`Role::Follow`]). One of them leads and writes; the committers of
//! the others follow its log, and one of those takes over when the leader stops or is gone ([`roles`]).

mod batch;
mod connection;
mod current;
mod gathered;
mod health;
mod lease;
mod lineage;
mod logged;
mod notice;
mod one_call;
mod patience;
mod queue;
mod reserve;
mod roles;
mod run;
mod steps;
mod transaction;
mod write;

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use current::Current;
use health::Pulse;
pub use health::{Ended, Health};
pub use lineage::{Lineage, Unfinished};
use logged::touches_of;
use notice::Notice;
pub use patience::Patience;
pub use queue::Committed;
use queue::{Builder, Queue, QueuedWrite, Work};
pub(super) use reserve::Reserve;
pub use roles::Role;
pub(super) use roles::new_term_number;
use steps::Steps;
pub use steps::{CommitStep, StepHook};
use transaction::Slot;
pub use transaction::Transaction;
pub use write::Write;

use super::{
    Counters, DatabaseOptions, Error, Position,
    ids::Ids,
    ids::lock,
    log::{Feed, Memories, Memory},
    terms::Terms,
};
use crate::clock::Clock;
pub(super) use batch::RESERVE_IDS;
pub(crate) use batch::insert_rows;
pub(super) use connection::{Engine, LOCK_KEY, WriterConn, lock_query, set_limits};
#[cfg(test)]
pub(super) use {
    batch::STATEMENTS,
    connection::STATEMENTS as CONNECTION_STATEMENTS,
    logged::INSERTS,
    one_call::{postgres_text, sqlite_text},
};

/// The most writes in one transaction: enough that an fsync is shared by everyone who waits, small enough that a batch
/// stays within a few milliseconds.
pub const MAX_BATCH: usize = 512;

/// The number of rows at which a transaction ends. Few batches of events have so many; 512 writes of 250 messages to
/// devices each would keep everybody waiting for seconds.
pub const MAX_BATCH_ROWS: usize = 4096;

/// The most writes that may wait. Each waits inside a request, so this bounds memory; further callers are told to
/// retry.
pub const MAX_QUEUE: usize = 16_384;

/// The write side of the database. Cheap to clone.
#[derive(Clone)]
pub struct Committer(Arc<Shared>);

/// The function that runs when a position has become visible.
#[derive(Default)]
struct OnPublished(OnceLock<Box<dyn Fn() + Send + Sync>>);

pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    published: AtomicI64,
    feed: Feed,
    memory: Memories,
    steps: Steps,
    on_published: OnPublished,
    /// The visible position, for those who wait for it. Only where several processes share the database.
    visible: watch::Sender<Position>,
    role: Role,
    terms: Terms,
    /// Told when another process may have committed.
    hint: Notify,
    /// True once all of memory is there, so that it may follow other processes.
    memory_is_complete: watch::Sender<bool>,
    pulse: Pulse,
    current: Current,
    /// The disk reserve; `None` for PostgreSQL, whose disk is not ours.
    reserve: Option<Reserve>,
    notice: Duration,
    notice_timer: Mutex<Notice>,
    clock: Clock,
    /// Cancelled when the server stops.
    stop: CancellationToken,
    pub(super) ids: Ids,
    pub(super) counters: Arc<Counters>,
}

impl Shared {
    fn published(&self) -> Position {
        Position(self.published.load(Ordering::Acquire))
    }

    /// Makes a position visible, which memory has everything up to.
    fn show(&self, position: Position) {
        self.published.store(position.0, Ordering::Release);
        if self.role == Role::Follow {
            self.visible.send_replace(position);
        }
    }

    /// Tells memory that a write was not stored.
    fn abandon(&self, queued: &QueuedWrite) {
        self.memory.abandoned(&touches_of(queued).collect::<Vec<_>>());
    }

    /// Answers a write that is not committed, and breaks its chain.
    fn refuse(&self, queued: QueuedWrite, error: Error) {
        self.abandon(&queued);
        if let Some(lineage) = queued.work.lineage() {
            lineage.break_off();
        }
        // A writer that went away does not wait for its answer.
        let _ = queued.answer.send(Err(error));
    }
}

impl Committer {
    pub(super) fn new(
        last: Position,
        feed: Feed,
        counters: Arc<Counters>,
        options: &DatabaseOptions,
        reserve: Option<Reserve>,
    ) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(Queue::after(last)),
            wake: Notify::new(),
            published: AtomicI64::new(last.0),
            feed,
            memory: Memories::default(),
            steps: Steps::default(),
            on_published: OnPublished::default(),
            visible: watch::Sender::new(last),
            role: options.role,
            terms: Terms::default(),
            hint: Notify::new(),
            memory_is_complete: watch::Sender::new(false),
            pulse: Pulse::default(),
            current: Current::new(options),
            reserve,
            notice: options.patience.notice,
            notice_timer: Mutex::default(),
            clock: options.clock.clone(),
            stop: CancellationToken::new(),
            ids: Ids::default(),
            counters,
        }))
    }

    /// The position up to which everything is committed and visible in memory.
    pub fn published(&self) -> Position {
        self.0.published()
    }

    /// Queues a write of `count` consecutive positions. `build` gets the first one and runs in the write's place in the
    /// queue: others build at the same time, but those behind it are committed only after it. So it must be quick. The
    /// position of the write is its last one.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Waiting`], [`Error::NotLeader`] or [`Error::Stopping`], before `build` has run.
    /// [`Error::HoldsNul`]. [`Error::Superseded`] if the write has a word of an earlier time as leader. The errors of
    /// `build`. Nothing is stored then, and the positions stay unused.
    pub fn submit<E: From<Error>>(
        &self,
        count: usize,
        build: impl FnOnce(Position) -> Result<Write, E>,
    ) -> Result<Committed, E> {
        self.push(count, |position| {
            let write = build(position)?;
            if let Some(error) = write.refusal() {
                let last = Position(position.0 + i64::try_from(count).unwrap_or(1).max(1) - 1);
                self.0.memory.abandoned(&write.touches_at(last).collect::<Vec<_>>());
                if let Some(lineage) = &write.lineage {
                    lineage.break_off();
                }
                return Err(error.into());
            }
            for row in &write.rows {
                row.check_touched(write.touches.iter().map(|(_, touch)| touch));
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
    /// As [`Committed::wait`]; a refusal by the transaction itself is part of its output.
    pub async fn transact<T: Transaction>(&self, transaction: T) -> Result<T::Output, Error> {
        let (output, received) = oneshot::channel();
        self.push::<Error>(1, |_| Ok(Work::Transaction(Box::new(Slot::new(transaction, output)))))?.wait().await?;
        received.await.map_err(|_| Error::Stopping)
    }

    fn push<E: From<Error>>(
        &self,
        count: usize,
        build: impl FnOnce(Position) -> Result<Work, E>,
    ) -> Result<Committed, E> {
        let builder = Builder::enter(&self.0, count)?;
        let work = build(builder.first())?;
        Ok(builder.fill(work))
    }

    /// The entries of the commit log, for those who follow it.
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// Makes a part of memory follow the commits from now on.
    pub fn remember(&self, memory: Arc<dyn Memory>) {
        self.0.memory.add(memory);
    }

    pub fn ids(&self) -> &Ids {
        &self.0.ids
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.0.terms
    }

    /// Runs `tell` each time a position has become visible and its writers are answered. It must only set a flag for the
    /// task that wakes the users whom the position concerns: the next batch waits. Only the first call counts.
    pub fn on_published(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _: Result<(), Box<dyn Fn() + Send + Sync>> = self.0.on_published.0.set(Box::new(tell));
    }

    /// Says that the users whom visible positions concern were woken. For tests, which may wait at this step.
    pub async fn woken(&self) {
        self.0.steps.reached(CommitStep::Woken).await;
    }

    /// Waits for `hook` after each step of each commit from now on. For tests; only the first hook counts.
    pub fn on_step(&self, hook: StepHook) {
        self.0.steps.set(hook);
    }

    /// Takes no more writes; queued writes are still committed.
    pub(super) fn stop(&self) {
        lock(&self.0.queue).stop();
        self.0.stop.cancel();
        self.0.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
