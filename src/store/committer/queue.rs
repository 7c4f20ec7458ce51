//! The queue of writes. A writer takes a place and its positions, builds its write there, and fills the place.
//!
//! The queue's lock is held only for the first and the last step, so writers build side by side. The committer takes
//! filled places from the front and stops at the first one that is still being built, so writes are committed in the
//! order of their positions. Building never waits for I/O, so it does not keep those behind it for long.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::{Health, Lineage, MAX_BATCH_ROWS, MAX_QUEUE, Shared, Write, transaction::Erased};
use crate::store::{Error, Position, ids::lock};

pub(super) enum Work {
    Write(Write),
    Transaction(Box<dyn Erased>),
}

impl Work {
    pub(super) fn lineage(&self) -> Option<&Lineage> {
        match self {
            Self::Write(write) => write.lineage.as_ref(),
            Self::Transaction(_) => None,
        }
    }

    /// The number of its rows, as far as that is known before it runs.
    fn rows(&self) -> usize {
        match self {
            Self::Write(write) => write.rows.len(),
            Self::Transaction(transaction) => transaction.rows(),
        }
    }

    pub(super) fn is_essential(&self) -> bool {
        match self {
            Self::Write(_) => false,
            Self::Transaction(transaction) => transaction.is_essential(),
        }
    }
}

/// A write that is ready for the committer.
pub(super) struct QueuedWrite {
    /// The last of its positions.
    pub(super) position: Position,
    pub(super) work: Work,
    pub(super) answer: oneshot::Sender<Result<(), Error>>,
}

/// A queued write. Waiting for it is waiting for its commit; dropping it lets the write go on.
#[must_use = "a write is only answered after its commit"]
pub struct Committed {
    position: Position,
    answer: oneshot::Receiver<Result<(), Error>>,
}

impl Committed {
    /// The position that the write has, or will have.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Waits until it is known whether the write was committed.
    ///
    /// # Errors
    /// Nothing was stored then, except perhaps after [`Error::Stopping`]: the outcome is unknown until the next start.
    pub async fn wait(self) -> Result<Position, Error> {
        match self.answer.await {
            Ok(result) => result.map(|()| self.position),
            Err(_) => Err(Error::Stopping),
        }
    }
}

/// A place in the queue.
pub(super) enum QueuePlace {
    /// Its write is being built.
    Building,
    Ready(QueuedWrite),
    /// Building was refused or has panicked. The positions stay unused.
    Void,
}

/// The state of the queue: open, or closed and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Intake {
    #[default]
    Open,
    /// Another process writes, or this one is about to let another write.
    Following,
    Stopping,
}

impl Intake {
    /// The error of a write that is not taken.
    fn refusal(self) -> Option<Error> {
        match self {
            Self::Open => None,
            Self::Following => Some(Error::NotLeader),
            Self::Stopping => Some(Error::Stopping),
        }
    }
}

#[derive(Default)]
pub(super) struct Queue {
    places: VecDeque<QueuePlace>,
    /// The number of the first place. Places are numbered through the life of the process.
    first: u64,
    /// The last position that was given out.
    last: i64,
    intake: Intake,
}

/// The number of a place, and its first and last position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticket {
    number: u64,
    first: Position,
    last: Position,
}

impl Queue {
    /// Creates an empty queue that gives out the positions after `last`.
    pub(super) fn after(last: Position) -> Self {
        Self { last: last.0, ..Self::default() }
    }

    /// Takes no more writes, for ever.
    pub(super) fn stop(&mut self) {
        self.intake = Intake::Stopping;
    }

    /// Takes no more writes until [`Self::open`].
    pub(super) fn follow(&mut self) {
        if self.intake == Intake::Open {
            self.intake = Intake::Following;
        }
    }

    /// Takes writes again, at the positions after `last`. There must be no places left.
    pub(super) fn open(&mut self, last: Position) {
        self.last = last.0;
        if self.intake == Intake::Following {
            self.intake = Intake::Open;
        }
    }

    /// Returns the reason why nothing more comes, once everything was taken.
    pub(super) fn has_ended(&self) -> Option<Intake> {
        (self.intake != Intake::Open && self.places.is_empty()).then_some(self.intake)
    }

    /// Takes no more writes from now on, and removes all places. Dropping them tells their writers that the server stops.
    pub(super) fn close(&mut self) -> VecDeque<QueuePlace> {
        self.stop();
        self.first += self.places.len() as u64;
        std::mem::take(&mut self.places)
    }

    fn take_place(&mut self, count: usize, health: Health) -> Result<Ticket, Error> {
        if let Some(error) = self.intake.refusal() {
            return Err(error);
        }
        // A new write could not be answered; queued writes are settled when the database is back.
        if health == Health::Waiting {
            return Err(Error::Waiting);
        }
        if self.places.len() >= MAX_QUEUE {
            return Err(Error::Overloaded);
        }
        let number = self.first + self.places.len() as u64;
        let first = Position(self.last + 1);
        self.last += i64::try_from(count).unwrap_or(i64::MAX).max(1);
        self.places.push_back(QueuePlace::Building);
        Ok(Ticket { number, first, last: Position(self.last) })
    }

    /// Fills a place. Returns whether it is the first one, for which the committer waits. In a closed queue there is no
    /// such place any more, and `filled` stays where it is.
    fn fill(&mut self, number: u64, filled: &mut QueuePlace) -> bool {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(place) = index.and_then(|index| self.places.get_mut(index)) else { return false };
        std::mem::swap(place, filled);
        index == Some(0)
    }

    /// Takes up to `most` writes from the front, up to the first place that is being built. The write that reaches
    /// [`MAX_BATCH_ROWS`] is the last one.
    pub(super) fn take(&mut self, most: usize) -> Vec<QueuedWrite> {
        let mut batch = Vec::with_capacity(self.places.len().min(most));
        let mut rows = 0;
        while batch.len() < most
            && rows < MAX_BATCH_ROWS
            && let Some(place) = self.places.pop_front_if(|place| !matches!(place, QueuePlace::Building))
        {
            self.first += 1;
            if let QueuePlace::Ready(queued) = place {
                rows += queued.work.rows();
                batch.push(queued);
            }
        }
        batch
    }
}

/// A place in the queue whose write is being built. Dropping it gives the place up.
pub(super) struct Builder<'a> {
    shared: &'a Shared,
    ticket: Ticket,
    filled: QueuePlace,
}

impl<'a> Builder<'a> {
    /// Takes a place, with `count` positions.
    ///
    /// # Errors
    /// [`Error::Stopping`], [`Error::NotLeader`], [`Error::Waiting`] or [`Error::Overloaded`].
    pub(super) fn enter(shared: &'a Shared, count: usize) -> Result<Self, Error> {
        let health = shared.pulse.get();
        let ticket = lock(&shared.queue).take_place(count, health)?;
        Ok(Self { shared, ticket, filled: QueuePlace::Void })
    }

    pub(super) fn first(&self) -> Position {
        self.ticket.first
    }

    /// Fills the place, and lets the committer have it.
    pub(super) fn fill(mut self, work: Work) -> Committed {
        let (answer, receiver) = oneshot::channel();
        let position = self.ticket.last;
        self.filled = QueuePlace::Ready(QueuedWrite { position, work, answer });
        Committed { position, answer: receiver }
    }
}

impl Drop for Builder<'_> {
    fn drop(&mut self) {
        let is_first = lock(&self.shared.queue).fill(self.ticket.number, &mut self.filled);
        // The queue was closed, and nobody takes the write any more.
        if let QueuePlace::Ready(queued) = std::mem::replace(&mut self.filled, QueuePlace::Void) {
            self.shared.refuse(queued, Error::Stopping);
        }
        // The committer stops at a place that is being built, and takes those behind it together with it.
        if is_first {
            self.shared.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
