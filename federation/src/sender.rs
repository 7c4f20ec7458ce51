//! The sender: delivers events and other changes to the servers that must have them.
//!
//! A machine without database, sockets or clock: [`Shard::step`] takes an input and returns effects, whose answers are later
//! inputs. Several shards share the destinations. Each reads the same commit log, through its driver.
//!
//! Promises:
//!
//! - Nothing is lost. Work stays in memory until it is delivered, and [`Shard::done_upto`] holds the cursor of the log before
//!   it, or a row says that the destination lags ([`SenderEffect::Lag`]). After a crash, everything is sent again that
//!   the stored cursor and the rows do not have. Only what a destination cannot take is skipped, one part at a time.
//! - A destination has one transaction in flight, gets events in the order of their positions, and the same bytes with
//!   the same ID when a transaction is repeated.
//! - Each is alone: one that is down, slow or refuses something delays no other. One that is down takes no memory for its
//!   work after a minute, and no read of the database until it answers.
//! - A destination is found again: by a retry, whose time is a row, or as soon as it contacts us.
//!
//! A destination is *healthy*, with its work in memory; or it *lags*: it has a row, and if its work is not in memory, it reads
//! what it has missed. One that fails backs off, and is asked with an empty transaction whether it is there. After 30 days
//! of failures it is *dead*: it is asked once a day.
//!
//! Reading order: [`SenderInput`] and [`SenderEffect`]; `destination`; its steps `intake`, `send`, `answer`, `lag` and
//! `catch_up`; then the parts `queue`, `draft`, `body`, `transaction`, `backoff`, `verdict`, `ephemeral` and `limits`.

mod answer;
mod backoff;
mod body;
mod catch_up;
mod destination;
mod draft;
mod effect;
mod ephemeral;
mod input;
mod intake;
mod lag;
mod limits;
mod queue;
mod send;
mod time;
mod transaction;
mod verdict;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use rand::Rng;
use ruma::OwnedServerName;

use self::{
    backoff::Backoff,
    destination::{Counted, Destination, Doing, Missed},
    lag::Lag,
    limits::{Bodies, Turns},
};
pub use self::{
    catch_up::MAX_PAGE,
    effect::{EffectNumber, LagRow, Part, SenderEffect, SkipReason, Wanted, WantedItems},
    input::{EduKey, EduOut, ItemKind, Loaded, LoadedItem, MissedEvent, MissedPage, Outgoing, SenderInput},
    limits::Bounds,
    send::{MAX_ANSWER_BYTES, SEND_TIME},
    time::{Moment, Now},
    transaction::{MAX_EDUS, MAX_PART_BYTES, MAX_PDUS, MAX_TRANSACTION_BYTES, Transaction},
    verdict::SendResult,
};
use crate::ids::{Position, ServerNid};

/// The destinations of one shard.
#[derive(Debug)]
pub struct Shard {
    origin: OwnedServerName,
    bounds: Bounds,
    /// The log was read up to here.
    read_upto: Position,
    destinations: BTreeMap<ServerNid, Destination>,
    due: BTreeSet<(Moment, ServerNid)>,
    bodies: Bodies,
    turns: Turns,
    /// The sums of what was counted of each destination.
    counted: Counted,
    last_number: u64,
    last_serial: u64,
    /// The destinations that are looked at in this step.
    touched: VecDeque<ServerNid>,
}

/// One step: the present, chance, and the effects until now.
struct Step<'a> {
    now: Now,
    rand: &'a mut dyn Rng,
    effects: Vec<SenderEffect>,
}

/// The memory that a shard uses, and how its destinations are.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ShardUsage {
    /// The destinations in memory. A healthy one without work is not.
    pub destinations: usize,
    pub lagging: usize,
    pub failing: usize,
    pub dead: usize,
    pub catching_up: usize,
    /// Events and changes of devices that wait in memory, without the pages of those that catch up.
    pub queued: usize,
    pub edu_bytes: usize,
    pub body_bytes: usize,
}

impl Shard {
    /// Begins after `cursor`, the stored place in the log, with the stored rows of the shard's destinations.
    pub fn new(
        origin: OwnedServerName,
        bounds: Bounds,
        cursor: Position,
        rows: impl IntoIterator<Item = LagRow>,
        now: Now,
        rand: &mut impl Rng,
    ) -> Self {
        let mut shard = Self {
            origin,
            bounds,
            read_upto: cursor,
            destinations: BTreeMap::new(),
            due: BTreeSet::new(),
            bodies: Bodies::new(bounds.body_bytes),
            turns: Turns::default(),
            counted: Counted::default(),
            last_number: 0,
            last_serial: 0,
            touched: VecDeque::new(),
        };
        for row in rows {
            let interval = Duration::from_millis(u64::try_from(row.interval_ms).unwrap_or_default());
            let (since, next_at) = (now.moment_at(row.failing_since_ms), now.moment_at(row.next_ms));
            let backoff = Backoff::stored(since, interval, next_at, now, rand);
            let destination = Destination {
                missed: Some(Missed::after(row.pos)),
                lag: Some(Lag::found(row.pos, backoff.is_some(), now.moment)),
                backoff,
                ..Destination::default()
            };
            shard.put_back(row.server, destination, now);
            // One that does not fail goes on with the first step.
            shard.due.insert((now.moment, row.server));
        }
        shard
    }

    /// Takes an input. The effects are to be carried out in their order.
    pub fn step(&mut self, input: SenderInput, now: Now, rand: &mut impl Rng) -> Vec<SenderEffect> {
        let mut step = Step { now, rand, effects: vec![] };
        match input {
            SenderInput::Committed { pos, work } => self.committed(pos, work, now.moment),
            SenderInput::Edu(edu) => self.take_edu(edu),
            SenderInput::Contact(server) => {
                if let Some(backoff) = self.destinations.get_mut(&server).and_then(|it| it.backoff.as_mut()) {
                    backoff.contacted(now);
                    self.touched.push_back(server);
                }
            }
            SenderInput::Announce(servers) => self.announce(servers, &mut step),
            SenderInput::Loaded { server, number, loaded } => {
                self.with(server, &mut step, |shard, destination, step| {
                    shard.loaded(server, destination, number, loaded, step);
                });
            }
            SenderInput::Missed { server, number, page } => {
                self.with(server, &mut step, |shard, destination, step| {
                    shard.missed(destination, number, page, step.now.moment);
                });
            }
            SenderInput::NotRead { server, number } => {
                self.with(server, &mut step, |shard, destination, step| {
                    shard.not_read(destination, number, step.now.moment);
                });
            }
            SenderInput::Answered { server, number, result, reason } => {
                self.with(server, &mut step, |shard, destination, step| {
                    shard.answered(server, destination, number, (result, reason), step);
                });
            }
            SenderInput::LagStored { server, number } => self.lag_stored(server, number),
            SenderInput::Tick => {}
        }
        self.go_on(&mut step);
        step.effects
    }

    /// The position up to which everything that the shard was told of is delivered or covered by a committed row, so that
    /// the stored cursor may be there. `None`: everything is.
    pub fn done_upto(&self) -> Option<Position> {
        // A page may have reached further than the log was read.
        self.destinations.values().filter_map(Destination::holds_at).min().map(|pos| pos.min(self.read_upto))
    }

    /// The moment at which the shard wants a [`SenderInput::Tick`].
    pub fn due_at(&self) -> Option<Moment> {
        let first = self.due.first().map(|(at, _)| *at);
        let gives_way = self.bodies.gives_way().map(|(at, _)| at);
        [first, gives_way].into_iter().flatten().min()
    }

    /// The memory in use, and how the destinations are.
    pub fn usage(&self, now: Now) -> ShardUsage {
        let count = |is: &dyn Fn(&Destination) -> bool| self.destinations.values().filter(|it| is(it)).count();
        ShardUsage {
            destinations: self.destinations.len(),
            lagging: count(&|it| it.lag.is_some()),
            failing: count(&|it| it.backoff.is_some()),
            dead: count(&|it| it.backoff.is_some_and(|backoff| backoff.is_dead(now))),
            catching_up: self.turns.taken(),
            queued: self.counted.queued,
            edu_bytes: self.counted.edu_bytes,
            body_bytes: self.bodies.bytes(),
        }
    }

    /// Looks at everything that may have something to do now.
    fn go_on(&mut self, step: &mut Step<'_>) {
        while let Some(&(at, server)) = self.due.first().filter(|(at, _)| *at <= step.now.moment) {
            self.due.remove(&(at, server));
            self.touched.push_back(server);
        }
        loop {
            if let Some(server) = self.touched.pop_front() {
                self.look(server, false, step);
            } else if let Some(server) = self.bodies.next_waiting().or_else(|| self.turns.next_waiting()) {
                self.look(server, true, step);
            } else if let Some((_, server)) = self.bodies.gives_way().filter(|(at, _)| *at <= step.now.moment) {
                self.with(server, step, |shard, destination, step| shard.give_way(server, destination, step));
            } else {
                return;
            }
        }
    }

    /// Lets a destination begin something. `has_waited` is set if it was its turn to do so.
    fn look(&mut self, server: ServerNid, has_waited: bool, step: &mut Step<'_>) {
        let Some(mut destination) = self.destinations.remove(&server) else { return };
        if has_waited && matches!(destination.doing, Doing::Waiting) {
            destination.doing = Doing::Nothing;
        }
        self.mind_lag(server, &mut destination, step);
        if matches!(destination.doing, Doing::Nothing) {
            self.begin(server, &mut destination, has_waited, step);
        }
        self.put_back(server, destination, step.now);
    }

    /// Changes a destination, and looks at it then.
    fn with(
        &mut self,
        server: ServerNid,
        step: &mut Step<'_>,
        change: impl FnOnce(&mut Self, &mut Destination, &mut Step<'_>),
    ) {
        if let Some(mut destination) = self.destinations.remove(&server) {
            change(self, &mut destination, step);
            self.destinations.insert(server, destination);
            self.touched.push_back(server);
        }
    }

    /// Puts a destination back that was taken out, unless nothing has to be remembered of it.
    fn put_back(&mut self, server: ServerNid, mut destination: Destination, now: Now) {
        count(&mut self.counted, &mut destination);
        if let Some(due) = destination.due.take() {
            self.due.remove(&(due, server));
        }
        if destination.is_idle(now) {
            return;
        }
        destination.due = destination.due_at(now);
        self.due.extend(destination.due.map(|due| (due, server)));
        self.destinations.insert(server, destination);
    }

    fn next_number(&mut self) -> EffectNumber {
        self.last_number += 1;
        EffectNumber(self.last_number)
    }

    fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }
}

/// Counts a destination anew in the sums of its shard.
fn count(sums: &mut Counted, destination: &mut Destination) {
    let now = Counted { queued: destination.live.len(), edu_bytes: destination.ephemeral.bytes() };
    sums.queued = sums.queued + now.queued - destination.counted.queued;
    sums.edu_bytes = sums.edu_bytes + now.edu_bytes - destination.counted.edu_bytes;
    destination.counted = now;
}
