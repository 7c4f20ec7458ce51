//! Answers that share a budget: whether there is room for one more, and who is hung up on to make it.

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

/// How many receivers fill the budget, once half of it is used. A share is several initial syncs of a large account; one that
/// is larger goes out all the same, while its receiver has no other.
pub(super) const SHARES: usize = 8;

/// Whoever reads as fast is not hung up on to make room. A large initial sync must come to its end on a slow line.
const FAST_BYTES_PER_SECOND: f64 = 64.0 * 1024.0;

/// An answer is not slow before that: it may have been written this moment.
pub(super) const YOUNG: Duration = Duration::from_secs(5);

/// How often the progress of all answers is looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The answers on their way that share a budget.
#[derive(Debug)]
pub(super) struct Way {
    budget_bytes: usize,
    bytes: usize,
    pub(super) shares: HashMap<Receiver, usize>,
    next: u64,
    answers: HashMap<u64, Answer>,
}

#[derive(Debug)]
struct Answer {
    /// What it costs the budget: all of it until the last byte is taken, for so long its memory stays. Zero once it is
    /// given up.
    bytes: usize,
    receiver: Receiver,
    left: Arc<AtomicUsize>,
    since: Instant,
    hangup: Hangup,
    seen_left: usize,
    /// How fast it was taken between the last two looks, once there were two. What the buffers of the system took at the
    /// beginning is no reading.
    recent_bytes_per_second: Option<f64>,
    /// The time that its client may fall behind from now on.
    credit: Duration,
}

impl Answer {
    /// How fast it is taken.
    fn bytes_per_second(&self, now: Instant) -> f64 {
        self.recent_bytes_per_second.unwrap_or_else(|| {
            let taken = self.bytes.saturating_sub(self.left.load(Ordering::Relaxed));
            taken as f64 / (now - self.since).as_secs_f64().max(0.001)
        })
    }

    /// Whether its client is hung up on when room is wanted.
    fn is_slow(&self, now: Instant) -> bool {
        self.bytes > 0 && now - self.since >= YOUNG && self.bytes_per_second(now) < FAST_BYTES_PER_SECOND
    }
}

impl Way {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, bytes: 0, shares: HashMap::new(), next: 0, answers: HashMap::new() }
    }

    /// What all of them hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room for an answer: its number here, and what is left of it.
    pub(super) fn hold(
        &mut self,
        bytes: usize,
        receiver: Receiver,
        hangup: &Hangup,
        now: Instant,
    ) -> Option<(u64, Arc<AtomicUsize>)> {
        let share = self.shares.get(&receiver).copied().unwrap_or_default();
        let is_half_used = self.bytes + bytes > self.budget_bytes / 2;
        let share_bytes = if is_half_used { self.budget_bytes / SHARES } else { self.budget_bytes };
        let over_share = (share + bytes).saturating_sub(share_bytes).min(share);
        if !self.give_up(over_share, Some(receiver), now) {
            return None;
        }
        let over = (self.bytes + bytes).saturating_sub(self.budget_bytes).min(self.bytes);
        if !self.give_up(over, None, now) {
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

    /// An answer turned out smaller.
    pub(super) fn shrink(&mut self, id: u64, bytes: usize) {
        let Some(answer) = self.answers.get_mut(&id).filter(|answer| answer.bytes > bytes) else { return };
        let (receiver, saved) = (answer.receiver, answer.bytes - bytes);
        answer.bytes = bytes;
        answer.seen_left = bytes;
        answer.left.store(bytes, Ordering::Relaxed);
        self.give_back(receiver, saved);
    }

    /// An answer is taken, or its connection has ended.
    pub(super) fn end(&mut self, id: u64) {
        if let Some(answer) = self.answers.remove(&id) {
            self.give_back(answer.receiver, answer.bytes);
        }
    }

    /// Gives up the slowest answers, of one receiver or of all, until so many bytes are free. Nothing happens when that is
    /// not enough.
    fn give_up(&mut self, bytes: usize, of: Option<Receiver>, now: Instant) -> bool {
        if bytes == 0 {
            return true;
        }
        let mut slow: Vec<_> = self
            .answers
            .iter()
            .filter(|(_, answer)| of.is_none_or(|receiver| answer.receiver == receiver))
            .filter(|(_, answer)| answer.is_slow(now))
            .map(|(id, answer)| (answer.bytes_per_second(now), *id, answer.bytes))
            .collect();
        slow.sort_by(|(left, ..), (right, ..)| left.total_cmp(right));
        let (mut given_up, mut freed) = (Vec::new(), 0);
        for (_, id, size) in slow {
            if freed >= bytes {
                break;
            }
            given_up.push(id);
            freed += size;
        }
        if freed < bytes {
            return false;
        }
        debug!(answers = given_up.len(), "hung up on the slowest readers to make room");
        for id in given_up {
            self.hang_up_on(id);
        }
        true
    }

    /// Takes back what an answer no longer holds.
    fn give_back(&mut self, receiver: Receiver, bytes: usize) {
        self.bytes -= bytes;
        if let Some(share) = self.shares.get_mut(&receiver) {
            *share -= bytes;
            if *share == 0 {
                self.shares.remove(&receiver);
            }
        }
    }

    /// Looks at the progress of all answers, and hangs up on those who are too far behind.
    pub(super) fn look(&mut self, now: Instant) {
        let mut stalled = Vec::new();
        for (id, answer) in &mut self.answers {
            let left = answer.left.load(Ordering::Relaxed);
            let taken = answer.seen_left.saturating_sub(left);
            answer.seen_left = left;
            if now - answer.since >= 2 * LOOK_EVERY {
                answer.recent_bytes_per_second = Some(taken as f64 / LOOK_EVERY.as_secs_f64());
            }
            answer.credit = GRACE.min((answer.credit + earned(taken)).saturating_sub(LOOK_EVERY));
            if answer.credit.is_zero() {
                stalled.push(*id);
            }
        }
        for id in stalled {
            debug!("hung up on a client that does not take its answer");
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
