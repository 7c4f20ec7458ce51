//! Budgets for password guesses. Only wrong guesses count.
//!
//! Every attempt counts against its address, like any action. That alone would let many addresses guess at one account.
//! So wrong passwords also count against the account, in two budgets: a narrow one for the pair of account and address,
//! and one that is `address_factor` times as wide for the account from all addresses. Any budget per account can be
//! used up by strangers. With the pair, they need many addresses to keep the owner out; without the wide budget, many
//! addresses could guess without end. Right passwords cost nothing, so a user with many devices is not slowed down.
//!
//! Names count in their canonical form, whether or not the account exists, so the answers do not reveal that.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::store::ids::lock;

/// The key of a budget. Names are kept as hashes, so a guess costs the same few bytes for a name of any length.
type Key = (u64, Option<IpAddr>);

/// The time when each budget is full again; see the "generic cell rate algorithm".
type Whole = HashMap<Key, Instant>;

/// A number of guesses, and how fast they come back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) burst: u32,
    /// The time in which one guess comes back.
    pub(super) period: Duration,
}

impl Budget {
    /// Takes one guess from a budget that is full again at `whole_at`.
    fn take(self, whole_at: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let next = whole_at.unwrap_or(now).max(now) + self.period;
        match (next - now).checked_sub(self.period * self.burst) {
            Some(over) if !over.is_zero() => Err(over),
            _ => Ok(next),
        }
    }
}

pub(super) struct Guesses {
    hasher: RandomState,
    /// The budget for an account from one address.
    pair: Budget,
    /// The budget for an account from all addresses; its key has no address.
    account: Budget,
    /// The budgets that are not full; full ones are swept. Each attempt has passed the limit of its address, which so
    /// bounds this map too.
    whole: Mutex<Whole>,
}

impl Guesses {
    pub(super) fn new(pair: Budget, account: Budget) -> Self {
        Self { hasher: RandomState::new(), pair, account, whole: Mutex::default() }
    }

    /// The budgets that a guess counts against. With an unknown address (a unix socket without a proxy's header) there
    /// is only the narrow one.
    fn budgets(&self, name: &str, address: Option<IpAddr>) -> impl Iterator<Item = (Key, Budget)> {
        let name = self.hasher.hash_one(name);
        let wide = address.is_some().then_some(((name, None), self.account));
        std::iter::once(((name, address), self.pair)).chain(wide)
    }

    /// Takes a guess before it is checked, so that concurrent guesses count. A right guess is given back.
    pub(super) fn take(&self, name: &str, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let mut whole = lock(&self.whole);
        let mut taken: Vec<(Key, Instant)> = Vec::with_capacity(2);
        for (key, budget) in self.budgets(name, address) {
            taken.push((key, budget.take(whole.get(&key).copied(), now)?));
        }
        whole.extend(taken);
        Ok(())
    }

    pub(super) fn give_back(&self, name: &str, address: Option<IpAddr>) {
        let mut whole = lock(&self.whole);
        for (key, budget) in self.budgets(name, address) {
            if let Some(whole_at) = whole.get_mut(&key) {
                *whole_at -= budget.period;
            }
        }
    }

    /// Forgets budgets that are full.
    pub(super) fn forget_whole(&self, now: Instant) {
        lock(&self.whole).retain(|_, whole_at| *whole_at > now);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn guesses() -> Guesses {
        Guesses::new(Budget { burst: 2, period: SECOND }, Budget { burst: 3, period: SECOND })
    }

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    #[test]
    fn wrong_guesses_count_for_the_pair_and_for_the_account() {
        let (guesses, now) = (guesses(), Instant::now());
        assert_eq!(guesses.take("alice", address(1), now), Ok(()));
        assert_eq!(guesses.take("alice", address(1), now), Ok(()));
        assert_eq!(guesses.take("alice", address(1), now), Err(SECOND), "the pair's budget is used up");
        assert_eq!(guesses.take("bob", address(1), now), Ok(()), "another account's is not");
        assert_eq!(guesses.take("alice", address(2), now), Ok(()), "a refused guess costs nothing");
        assert_eq!(guesses.take("alice", address(3), now), Err(SECOND), "the account's budget is used up");
        assert_eq!(guesses.take("alice", address(3), now + SECOND), Ok(()), "and comes back");
    }

    #[test]
    fn right_ones_are_given_back() {
        let (guesses, now) = (guesses(), Instant::now());
        for _ in 0..10 {
            assert_eq!(guesses.take("alice", address(1), now), Ok(()));
            guesses.give_back("alice", address(1));
        }
        assert_eq!(guesses.take("alice", None, now), Ok(()));
        guesses.forget_whole(now);
        assert_eq!(lock(&guesses.whole).len(), 1, "only what is not whole is kept");
        guesses.forget_whole(now + SECOND);
        assert_eq!(lock(&guesses.whole).len(), 0);
    }
}
