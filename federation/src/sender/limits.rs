//! The bounds of a shard: the memory of transactions, and how many destinations catch up side by side.
//!
//! Promise: a destination that takes its transactions slowly delays no other one for long. Slow ones share a half of the
//! memory, so that they wait for each other alone, and a request gives way after five seconds when prompt ones wait.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    time::Moment,
    transaction::{LEAST_BYTES, MAX_TRANSACTION_BYTES},
};
use crate::ids::ServerNid;

/// The bounds of one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Maximum number of events and changes of devices that wait in memory for all destinations together.
    pub queued: usize,
    /// Maximum bytes of EDUs that wait, counted for each destination.
    pub edu_bytes: usize,
    /// Maximum bytes of transactions that are read, sent or kept for a retry. At least four large transactions.
    pub body_bytes: usize,
}

impl Default for Bounds {
    /// Bounds for one of 16 shards: together at most 6 MiB of work, 4 MiB of EDUs and 32 MiB of transactions.
    fn default() -> Self {
        Self { queued: 8_192, edu_bytes: 256 * 1024, body_bytes: 2 * 1024 * 1024 }
    }
}

/// The number of destinations that catch up at a time. Each reads pages of what it has missed, and only those do that have
/// just answered.
pub(super) const MAX_CATCHING_UP: usize = 16;

/// The time after which a request gives way. Work that waits so long is covered by a row too, so nothing depends on it.
pub(super) const GIVE_WAY_AFTER: Duration = Duration::from_secs(5);

/// Memory that a transaction may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grant {
    pub bytes: usize,
    is_slow: bool,
}

/// The memory of transactions.
#[derive(Debug)]
pub(super) struct Bodies {
    most: usize,
    prompt: usize,
    slow: usize,
    /// The transactions that are kept for a retry, with their size. They go when the memory is needed.
    kept: BTreeMap<ServerNid, usize>,
    kept_bytes: usize,
    waiting: VecDeque<ServerNid>,
    waiting_slow: VecDeque<ServerNid>,
    /// The requests that are under way, by their begin.
    sending: BTreeSet<(Moment, ServerNid)>,
}

impl Bodies {
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(4 * MAX_TRANSACTION_BYTES),
            prompt: 0,
            slow: 0,
            kept: BTreeMap::new(),
            kept_bytes: 0,
            waiting: VecDeque::new(),
            waiting_slow: VecDeque::new(),
            sending: BTreeSet::new(),
        }
    }

    /// The bytes that are in use.
    pub fn bytes(&self) -> usize {
        self.prompt + self.slow + self.kept_bytes
    }

    /// Takes memory for a transaction, at most `wish` bytes. `None`: the destination has to wait. `is_next` is set if it
    /// has waited. Call [`Self::evict`] then.
    pub fn grant(&mut self, server: ServerNid, wish: usize, is_slow: bool, is_next: bool) -> Option<Grant> {
        let free = self.free(is_slow);
        let (waiting, used) = match is_slow {
            true => (&mut self.waiting_slow, &mut self.slow),
            false => (&mut self.waiting, &mut self.prompt),
        };
        if free < LEAST_BYTES || !(is_next || waiting.is_empty()) {
            waiting.push_back(server);
            return None;
        }
        let bytes = wish.min(free);
        *used += bytes;
        Some(Grant { bytes, is_slow })
    }

    /// Gives back what the transaction does not need.
    pub fn shrink(&mut self, grant: Grant, bytes: usize) -> Grant {
        let smaller = Grant { bytes: bytes.min(grant.bytes), ..grant };
        self.release(Grant { bytes: grant.bytes - smaller.bytes, ..grant });
        smaller
    }

    pub fn release(&mut self, grant: Grant) {
        let used = if grant.is_slow { &mut self.slow } else { &mut self.prompt };
        *used -= grant.bytes;
    }

    /// Keeps a transaction for a retry, if there is room. Returns whether it is kept.
    pub fn keep(&mut self, server: ServerNid, bytes: usize) -> bool {
        let fits = self.bytes() + bytes <= self.most;
        if fits {
            self.drop_kept(server);
            self.kept.insert(server, bytes);
            self.kept_bytes += bytes;
        }
        fits
    }

    /// Takes the memory of a kept transaction for its retry.
    pub fn retry(&mut self, server: ServerNid, is_slow: bool) -> Option<Grant> {
        let bytes = self.drop_kept(server)?;
        *(if is_slow { &mut self.slow } else { &mut self.prompt }) += bytes;
        Some(Grant { bytes, is_slow })
    }

    /// A destination whose kept transaction has to go.
    pub fn evict(&mut self) -> Option<ServerNid> {
        let (&server, _) = self.kept.first_key_value().filter(|_| self.bytes() > self.most)?;
        self.drop_kept(server);
        Some(server)
    }

    pub fn drop_kept(&mut self, server: ServerNid) -> Option<usize> {
        let bytes = self.kept.remove(&server)?;
        self.kept_bytes -= bytes;
        Some(bytes)
    }

    /// Takes out a destination that has waited and can go on now.
    pub fn next_waiting(&mut self) -> Option<ServerNid> {
        let next = |waiting: &mut VecDeque<ServerNid>, free: usize| match free >= LEAST_BYTES {
            true => waiting.pop_front(),
            false => None,
        };
        let (free, free_slow) = (self.free(false), self.free(true));
        next(&mut self.waiting, free).or_else(|| next(&mut self.waiting_slow, free_slow))
    }

    pub fn sent(&mut self, server: ServerNid, since: Moment) {
        self.sending.insert((since, server));
    }

    pub fn answered(&mut self, server: ServerNid, since: Moment) {
        self.sending.remove(&(since, server));
    }

    /// The moment at which a request has to give way, and whose it is.
    pub fn gives_way(&self) -> Option<(Moment, ServerNid)> {
        let (since, server) = self.sending.first().filter(|_| !self.waiting.is_empty())?;
        Some((since.after(GIVE_WAY_AFTER), *server))
    }

    /// A quarter is left to the slow ones, who have a half at most.
    fn free(&self, is_slow: bool) -> usize {
        let own = match is_slow {
            true => (self.most / 2).saturating_sub(self.slow),
            false => (self.most - self.most / 4).saturating_sub(self.prompt),
        };
        own.min(self.most.saturating_sub(self.prompt + self.slow))
    }
}

/// The turns of destinations that catch up.
#[derive(Default, Debug)]
pub(super) struct Turns {
    taken: usize,
    waiting: VecDeque<ServerNid>,
}

impl Turns {
    /// Takes a turn, or waits for one. `is_next` is set if the destination has waited.
    pub fn take(&mut self, server: ServerNid, is_next: bool) -> bool {
        let is_free = self.taken < MAX_CATCHING_UP && (is_next || self.waiting.is_empty());
        if is_free {
            self.taken += 1;
        } else {
            self.waiting.push_back(server);
        }
        is_free
    }

    pub fn give_back(&mut self) {
        self.taken -= 1;
    }

    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Takes out a destination that has waited and can go on now.
    pub fn next_waiting(&mut self) -> Option<ServerNid> {
        if self.taken < MAX_CATCHING_UP { self.waiting.pop_front() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 4 * MAX_TRANSACTION_BYTES;

    /// Grants large transactions to destinations from `first` on, until one has to wait.
    fn fill(bodies: &mut Bodies, first: i64, is_slow: bool) -> Vec<Grant> {
        (first..).map_while(|nid| bodies.grant(ServerNid(nid), MAX_TRANSACTION_BYTES, is_slow, false)).collect()
    }

    #[test]
    fn slow_destinations_leave_memory_to_prompt_ones_and_these_to_slow_ones() {
        let mut bodies = Bodies::new(0);
        let slow = fill(&mut bodies, 1, true);
        assert_eq!(slow.iter().map(|grant| grant.bytes).sum::<usize>(), MOST / 2);
        let prompt = fill(&mut bodies, 10, false);
        assert_eq!(prompt.iter().map(|grant| grant.bytes).sum::<usize>(), MOST / 2);
        assert_eq!((bodies.bytes(), bodies.next_waiting()), (MOST, None));

        bodies.release(slow[0]);
        // The prompt one is first, and may have three quarters.
        assert_eq!(bodies.next_waiting(), Some(ServerNid(12)));
        assert!(bodies.grant(ServerNid(12), MAX_TRANSACTION_BYTES, false, true).is_some());
        assert_eq!(bodies.grant(ServerNid(13), 1, false, false), None);
        assert_eq!(bodies.next_waiting(), None);
        bodies.release(slow[1]);
        assert_eq!(bodies.next_waiting(), Some(ServerNid(3)), "a slow one has its quarter");
    }

    #[test]
    fn nobody_overtakes_those_who_wait() {
        let mut bodies = Bodies::new(MOST);
        let grants = fill(&mut bodies, 1, false);
        bodies.release(grants[0]);
        assert_eq!(bodies.grant(ServerNid(9), 1, false, false), None);
        assert_eq!(bodies.next_waiting(), Some(ServerNid(4)));
        let grant = bodies.grant(ServerNid(4), MAX_TRANSACTION_BYTES, false, true).unwrap();
        assert_eq!(bodies.next_waiting(), None);
        let before = bodies.bytes();
        let smaller = bodies.shrink(grant, 10);
        assert_eq!((smaller.bytes, bodies.bytes()), (10, before - grant.bytes + 10));
        assert_eq!(bodies.next_waiting(), Some(ServerNid(9)));
    }

    #[test]
    fn kept_transactions_go_when_the_memory_is_needed() {
        let mut bodies = Bodies::new(MOST);
        for nid in 1..=4 {
            assert!(bodies.keep(ServerNid(nid), MAX_TRANSACTION_BYTES));
        }
        assert!(!bodies.keep(ServerNid(5), 1));
        assert_eq!(bodies.evict(), None);
        assert!(bodies.grant(ServerNid(6), MAX_TRANSACTION_BYTES, false, false).is_some());
        assert_eq!((bodies.evict(), bodies.evict()), (Some(ServerNid(1)), None));
        assert_eq!(bodies.retry(ServerNid(1), true), None);
        let before = bodies.bytes();
        let grant = bodies.retry(ServerNid(2), true).unwrap();
        assert_eq!((grant.bytes, bodies.bytes()), (MAX_TRANSACTION_BYTES, before));
    }

    #[test]
    fn the_oldest_request_gives_way_if_a_prompt_one_waits() {
        let mut bodies = Bodies::new(MOST);
        bodies.sent(ServerNid(2), Moment(2_000));
        bodies.sent(ServerNid(1), Moment(1_000));
        assert_eq!(bodies.gives_way(), None);
        fill(&mut bodies, 10, true);
        assert_eq!(bodies.gives_way(), None, "only a slow one waits");
        fill(&mut bodies, 20, false);
        assert_eq!(bodies.gives_way(), Some((Moment(6_000), ServerNid(1))));
        bodies.answered(ServerNid(1), Moment(1_000));
        assert_eq!(bodies.gives_way(), Some((Moment(7_000), ServerNid(2))));
    }

    #[test]
    fn a_bounded_number_catches_up_at_a_time() {
        let mut turns = Turns::default();
        assert!((0..16).all(|nid| turns.take(ServerNid(nid), false)));
        assert!(!turns.take(ServerNid(16), false) && turns.next_waiting().is_none());
        turns.give_back();
        assert!(!turns.take(ServerNid(17), false), "it does not overtake");
        assert_eq!(turns.next_waiting(), Some(ServerNid(16)));
        assert!(turns.take(ServerNid(16), true) && turns.next_waiting().is_none());
        assert_eq!(turns.taken(), 16);
    }
}
