//! Answers that share a budget. Decides whether there is room for one more, and on which clients we hang up to make it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::debug;

use super::{
    super::pace::{GRACE, earned},
    Hangup, Receiver,
};

/// The number of receivers that fill the budget, once half of it is used. A share holds several initial syncs of a
/// large account. An answer larger than a share is still sent, if its receiver has no other.
pub(super) const SHARES: usize = 8;

/// The rate from which a reader counts as fast. A large initial sync must finish on a slow line.
const FAST_BYTES_PER_SECOND: f64 = 64.0 * 1024.0;

/// The minimum age of an answer that is given up for room: a younger one may just have been written.
pub(super) const YOUNG: Duration = Duration::from_secs(5);

/// The age from which an answer counts as slow, however fast it is read. Otherwise a few readers that are just fast
/// enough could keep the room from everyone. At [`FAST_BYTES_PER_SECOND`] a large initial sync of 10 MB is read by
/// then.
pub(super) const LONG: Duration = Duration::from_secs(180);

/// The maximum age of an answer, even if no other needs its room. The same 10 MB take 43 minutes at the slowest
/// permitted rate ([`earned`]).
pub(super) const LATEST_END: Duration = Duration::from_secs(3600);

/// The interval at which the progress of all answers is checked.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The answers in flight that share a budget.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) budget_bytes: usize,
    bytes: usize,
    pub(super) shares: HashMap<Receiver, usize>,
    next: u64,
    answers: HashMap<u64, Answer>,
}

#[derive(Debug)]
struct Answer {
    /// The bytes that it costs the budget: its full size until the last byte is read, because its memory stays that
    /// long. Zero once it is given up.
    bytes: usize,
    receiver: Receiver,
    left: Arc<AtomicUsize>,
    since: Instant,
    hangup: Hangup,
    seen_left: usize,
    /// The reading rate between the last two checks, once there were two. Bytes that the system's buffers took at the
    /// beginning do not count as read.
    recent_bytes_per_second: Option<f64>,
    /// The time that its client may fall behind from now on.
    credit: Duration,
}

impl Answer {
    /// Returns the rate at which it is read.
    fn bytes_per_second(&self, now: Instant) -> f64 {
        self.recent_bytes_per_second.unwrap_or_else(|| {
            let taken = self.bytes.saturating_sub(self.left.load(Ordering::Relaxed));
            taken as f64 / (now - self.since).as_secs_f64().max(0.001)
        })
    }

    /// Returns whether we may hang up on its client for room, whoever the receiver is.
    fn is_slow(&self, now: Instant) -> bool {
        now - self.since >= LONG || self.bytes_per_second(now) < FAST_BYTES_PER_SECOND
    }
}

impl Way {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, bytes: 0, shares: HashMap::new(), next: 0, answers: HashMap::new() }
    }

    /// The bytes that all these answers hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves room for an answer, and hangs up on other clients for it only if `may_hang_up`. Returns its number here
    /// and its count of bytes left.
    pub(super) fn hold(
        &mut self,
        bytes: usize,
        receiver: Receiver,
        hangup: &Hangup,
        may_hang_up: bool,
    ) -> Option<(u64, Arc<AtomicUsize>)> {
        let now = Instant::now();
        let share = self.shares.get(&receiver).copied().unwrap_or_default();
        let is_half_used = self.bytes + bytes > self.budget_bytes / 2;
        let share_bytes = if is_half_used { self.budget_bytes / SHARES } else { self.budget_bytes };
        let over_share = (share + bytes).saturating_sub(share_bytes).min(share);
        if over_share > 0 && !(may_hang_up && self.give_up(over_share, Some(receiver), now)) {
            return None;
        }
        let over = (self.bytes + bytes).saturating_sub(self.budget_bytes).min(self.bytes);
        if over > 0 && !(may_hang_up && self.give_up(over, None, now)) {
            return None;
        }
        let (id, left) = (self.next, Arc::new(AtomicUsize::new(bytes)));
        self.next += 1;
        self.bytes += bytes;
        *self.shares.entry(receiver).or_default() += bytes;
        let answer = Answer {
            bytes,
            receiver,
            left: Arc::clone(&left),
            since: now,
            hangup: hangup.clone(),
            seen_left: bytes,
            recent_bytes_per_second: None,
            credit: GRACE,
        };
        self.answers.insert(id, answer);
        Some((id, left))
    }

    /// Reduces the size of an answer that was compressed.
    pub(super) fn shrink(&mut self, id: u64, bytes: usize) {
        let Some(answer) = self.answers.get_mut(&id).filter(|answer| answer.bytes > bytes) else { return };
        let (receiver, saved) = (answer.receiver, answer.bytes - bytes);
        answer.bytes = bytes;
        answer.seen_left = bytes;
        answer.left.store(bytes, Ordering::Relaxed);
        self.give_back(receiver, saved);
    }

    /// Removes an answer that was read or whose connection has ended.
    pub(super) fn end(&mut self, id: u64) {
        if let Some(answer) = self.answers.remove(&id) {
            self.give_back(answer.receiver, answer.bytes);
        }
    }

    /// Gives up the slowest answers, of one receiver or of all, until this many bytes are free. Among all receivers, a
    /// fast reader's answer may also be given up while its receiver holds more than a share, because it has taken the
    /// room of others. If all that is not enough, gives up nothing and returns false.
    fn give_up(&mut self, bytes: usize, of: Option<Receiver>, now: Instant) -> bool {
        let mut candidates: Vec<_> = self
            .answers
            .iter()
            .filter(|(_, answer)| of.is_none_or(|receiver| answer.receiver == receiver))
            .filter(|(_, answer)| answer.bytes > 0 && now - answer.since >= YOUNG)
            .map(|(id, answer)| (answer.bytes_per_second(now), *id, answer))
            .collect();
        candidates.sort_by(|(left, ..), (right, ..)| left.total_cmp(right));
        let (mut given_up, mut freed) = (Vec::new(), 0);
        let mut freed_of: HashMap<Receiver, usize> = HashMap::new();
        for (_, id, answer) in candidates {
            if freed >= bytes {
                break;
            }
            let freed_of = freed_of.entry(answer.receiver).or_default();
            let share = self.shares.get(&answer.receiver).map_or(0, |share| share - *freed_of);
            let is_over_share = of.is_none() && share > self.budget_bytes / SHARES;
            if answer.is_slow(now) || is_over_share {
                given_up.push(id);
                freed += answer.bytes;
                *freed_of += answer.bytes;
            }
        }
        if freed < bytes {
            return false;
        }
        debug!(answers = given_up.len(), "hung up on readers to make room");
        for id in given_up {
            self.hang_up_on(id);
        }
        true
    }

    /// Returns bytes to the budget that an answer no longer holds.
    fn give_back(&mut self, receiver: Receiver, bytes: usize) {
        self.bytes -= bytes;
        if let Some(share) = self.shares.get_mut(&receiver) {
            *share -= bytes;
            if *share == 0 {
                self.shares.remove(&receiver);
            }
        }
    }

    /// Checks the progress of all answers, and hangs up on clients that are too far behind or took too long.
    pub(super) fn look(&mut self, now: Instant) {
        let mut too_late = Vec::new();
        for (id, answer) in &mut self.answers {
            let left = answer.left.load(Ordering::Relaxed);
            let taken = answer.seen_left.saturating_sub(left);
            answer.seen_left = left;
            if now - answer.since >= 2 * LOOK_EVERY {
                answer.recent_bytes_per_second = Some(taken as f64 / LOOK_EVERY.as_secs_f64());
            }
            answer.credit = GRACE.min((answer.credit + earned(taken)).saturating_sub(LOOK_EVERY));
            if answer.credit.is_zero() || now - answer.since >= LATEST_END {
                too_late.push(*id);
            }
        }
        for id in too_late {
            debug!("hung up on a client that does not take its answer in time");
            self.hang_up_on(id);
        }
    }

    fn hang_up_on(&mut self, id: u64) {
        if let Some(answer) = self.answers.get_mut(&id) {
            answer.hangup.hang_up();
            let (receiver, bytes) = (answer.receiver, std::mem::take(&mut answer.bytes));
            self.give_back(receiver, bytes);
        }
    }
}
