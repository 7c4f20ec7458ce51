//! One destination: what waits for it, what it is doing, and what it has missed.

use std::sync::Arc;

use super::{
    EffectNumber,
    backoff::Backoff,
    draft::{DraftItems, Loading},
    ephemeral::Ephemeral,
    lag::Lag,
    limits::{GIVE_WAY_AFTER, Grant},
    queue::Queue,
    time::{Moment, Now},
    transaction::Transaction,
    verdict::Trial,
};
use crate::ids::Position;

/// A server that we send to. One for which nothing is to be done is not in memory.
#[derive(Default, Debug)]
pub(super) struct Destination {
    /// Work that is in memory: all that waits, unless `missed` is set.
    pub live: Queue,
    /// Set if work is not in memory. Then there is a row too.
    pub missed: Option<Missed>,
    pub items: DraftItems,
    pub ephemeral: Ephemeral,
    pub doing: Doing,
    /// Set from a failure to the next success.
    pub backoff: Option<Backoff>,
    pub lag: Option<Lag>,
    pub trial: Trial,
    /// A transaction that failed, for its retry with the same bytes.
    pub kept: Option<Arc<Transaction>>,
    /// The moment of an empty transaction, which tells the destination that we are back.
    pub announce_at: Option<Moment>,
    /// The moment at which a read that failed is repeated.
    pub read_again_at: Option<Moment>,
    /// Set if the latest request was slow.
    pub is_slow: bool,
    /// The moment of the next look at it, as its shard notes it.
    pub due: Option<Moment>,
    /// Its part in the counts of its shard.
    pub counted: Counted,
}

/// The share of a destination in the bounds of its shard.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Counted {
    pub queued: usize,
    pub edu_bytes: usize,
}

/// The activity of a destination. It does one thing at a time, so one transaction is in flight at most.
#[derive(Default, Debug)]
pub(super) enum Doing {
    #[default]
    Nothing,
    /// It waits for memory, or for a turn to catch up.
    Waiting,
    /// It reads what it has missed.
    Reading(EffectNumber),
    Loading(Box<Loading>),
    Sending(Sending),
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Sending {
    pub number: EffectNumber,
    pub transaction: Arc<Transaction>,
    pub since: Moment,
    /// `None` for an empty transaction.
    pub grant: Option<Grant>,
}

/// Work that is not in memory: it has to be read.
#[derive(Debug)]
pub(super) struct Missed {
    /// Everything up to here was delivered.
    pub done: Position,
    /// All changes of devices up to here were delivered: they go before events.
    pub devices_done: Position,
    pub page: Option<Page>,
    /// Set if all work after this position is in [`Destination::live`].
    pub live_after: Option<Position>,
}

impl Missed {
    pub fn after(done: Position) -> Self {
        Self { done, devices_done: done, page: None, live_after: None }
    }
}

/// A page of what was missed.
#[derive(Debug)]
pub(super) struct Page {
    pub queue: Queue,
    /// Everything up to here is in the page, or delivered.
    pub upto: Position,
    pub is_last: bool,
    /// Set if a transaction has events of one room.
    pub by_room: bool,
}

impl Destination {
    /// The position up to which everything was delivered, at least.
    pub fn done(&self, read_upto: Position) -> Position {
        match &self.missed {
            Some(missed) => missed.done,
            None => self.live.first_pos().map_or(read_upto, |first| Position(first.0 - 1)),
        }
    }

    /// The position up to which the cursor may move. `None`: this destination does not hold it back.
    pub fn holds_at(&self) -> Option<Position> {
        let first = match (&self.lag, &self.missed) {
            (Some(lag), _) if lag.is_stored => self.live.first_after(lag.covers_upto?).map(|entry| entry.pos),
            (_, Some(missed)) => return Some(missed.done),
            (_, None) => self.live.first_pos(),
        };
        first.map(|first| Position(first.0 - 1))
    }

    /// The moment from which work waits that holds the cursor back, and that no row that is being stored will cover.
    pub fn holds_since(&self) -> Option<Moment> {
        match &self.lag {
            None => self.live.oldest_since(),
            Some(lag) => self.live.first_after(lag.covers_upto?).map(|entry| entry.since),
        }
    }

    /// Returns whether there is something that must be delivered.
    pub fn has_work(&self) -> bool {
        !self.live.is_empty() || self.missed.is_some() || self.items.is_waiting() || self.lag.is_some()
    }

    /// Removes the work from memory. It has to be read again, and a row has to cover it.
    pub fn forget_live(&mut self, done: Position) {
        self.live.clear();
        match &mut self.missed {
            Some(missed) => missed.live_after = None,
            None => self.missed = Some(Missed::after(done)),
        }
        if let Some(lag) = &mut self.lag {
            lag.covers_upto = None;
        }
    }

    /// Returns whether EDUs that are in memory alone are of use: the destination works, and has what came before.
    pub fn takes_ephemeral(&self) -> bool {
        self.backoff.is_none() && self.missed.is_none()
    }

    /// The moment of the next look.
    pub fn due_at(&self, now: Now) -> Option<Moment> {
        let lagging_at = self.holds_since().map(|since| since.after(GIVE_WAY_AFTER));
        let next_at = match &self.doing {
            Doing::Nothing => match (self.read_again_at, &self.backoff) {
                (Some(again_at), _) => Some(again_at),
                (None, Some(backoff)) => Some(backoff.next_at),
                (None, None) => {
                    let ready_at = self.ephemeral.ready_at();
                    let forget_at = self.ephemeral.forget_at().filter(|at| *at > now.moment);
                    [self.announce_at, ready_at, forget_at].into_iter().flatten().min()
                }
            },
            _ => None,
        };
        [lagging_at, next_at].into_iter().flatten().min()
    }

    /// Returns whether nothing has to be remembered.
    pub fn is_idle(&self, now: Now) -> bool {
        matches!(self.doing, Doing::Nothing)
            && !self.has_work()
            && self.backoff.is_none()
            && self.announce_at.is_none()
            && self.ephemeral.ready_at().is_none()
            && self.ephemeral.forget_at().is_none_or(|at| at <= now.moment)
    }
}
