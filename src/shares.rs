//! Shares of something bounded: all holders together have at most the whole, and each of them at most a share.
//!
//! Promise: those that find nothing free wait in the order in which they came. One that waits for its own share takes
//! nothing from others.

pub mod large_answers;

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::store::ids::lock;

/// The reason why nothing was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoShare {
    /// The request is for more than a whole share, and will never have it.
    TooMuch,
    /// The holder has its whole share, or too many of its requests wait.
    OfHolder,
    /// All holders together have the whole.
    OfAll,
}

/// Something shared, in units that its user chooses, among holders with the name `K`.
#[derive(Debug)]
pub struct Shares<K> {
    all: Arc<Semaphore>,
    share_units: u32,
    max_asking: usize,
    /// The holders that have something or wait for it. Locked for a few lines without `.await`.
    holders: Mutex<HashMap<K, Holder>>,
}

#[derive(Debug)]
struct Holder {
    units: Arc<Semaphore>,
    asking: usize,
}

/// A request that waits or holds something, until this is dropped.
#[derive(Debug)]
struct Asking<K: Copy + Eq + Hash> {
    shares: Arc<Shares<K>>,
    name: K,
}

/// A part that is held until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Share<K: Copy + Eq + Hash> {
    _of_all: OwnedSemaphorePermit,
    _of_holder: OwnedSemaphorePermit,
    _asking: Asking<K>,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// `all_units` for all holders, `share_units` for each of them. At most `max_asking` requests of a holder hold
    /// something or wait.
    pub fn new(all_units: u32, share_units: u32, max_asking: usize) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(all_units as usize));
        Arc::new(Self { all, share_units, max_asking, holders: Mutex::default() })
    }

    /// Takes `units`, and waits for them until `deadline`.
    ///
    /// # Errors
    /// [`NoShare::TooMuch`] at once, otherwise the one that was not free in time.
    ///
    /// # Cancellation
    /// A request that is dropped holds nothing.
    pub async fn take(self: &Arc<Self>, name: K, units: u32, deadline: Instant) -> Result<Share<K>, NoShare> {
        let (asking, of_holder) = self.ask(name, units)?;
        // The holder's own share comes first: a request that waits for that takes nothing from others.
        let of_holder = of_holder.acquire_many_owned(units);
        let of_holder = timeout_at(deadline, of_holder).await.ok().and_then(Result::ok).ok_or(NoShare::OfHolder)?;
        let of_all = Arc::clone(&self.all).acquire_many_owned(units);
        let of_all = timeout_at(deadline, of_all).await.ok().and_then(Result::ok).ok_or(NoShare::OfAll)?;
        Ok(Share { _of_all: of_all, _of_holder: of_holder, _asking: asking })
    }

    /// Takes `units` if they are free.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn try_take(self: &Arc<Self>, name: K, units: u32) -> Result<Share<K>, NoShare> {
        let (asking, of_holder) = self.ask(name, units)?;
        let of_holder = of_holder.try_acquire_many_owned(units).map_err(|_| NoShare::OfHolder)?;
        let of_all = Arc::clone(&self.all).try_acquire_many_owned(units).map_err(|_| NoShare::OfAll)?;
        Ok(Share { _of_all: of_all, _of_holder: of_holder, _asking: asking })
    }

    /// The number of the holder's requests that hold something or wait for it.
    pub fn asking(&self, name: K) -> usize {
        lock(&self.holders).get(&name).map_or(0, |holder| holder.asking)
    }

    fn ask(self: &Arc<Self>, name: K, units: u32) -> Result<(Asking<K>, Arc<Semaphore>), NoShare> {
        if units > self.share_units {
            return Err(NoShare::TooMuch);
        }
        let mut holders = lock(&self.holders);
        let new = || Holder { units: Arc::new(Semaphore::new(self.share_units as usize)), asking: 0 };
        let holder = holders.entry(name).or_insert_with(new);
        if holder.asking >= self.max_asking {
            return Err(NoShare::OfHolder);
        }
        holder.asking += 1;
        Ok((Asking { shares: Arc::clone(self), name }, Arc::clone(&holder.units)))
    }

    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        lock(&self.holders).len()
    }
}

impl<K: Copy + Eq + Hash> Drop for Asking<K> {
    fn drop(&mut self) {
        let mut holders = lock(&self.shares.holders);
        let Some(holder) = holders.get_mut(&self.name) else { return };
        holder.asking -= 1;
        if holder.asking == 0 {
            holders.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_for_more_than_a_share_is_refused_at_once() {
        let shares = Shares::new(10, 4, usize::MAX);
        let (began, later) = (Instant::now(), Instant::now() + std::time::Duration::from_secs(1));
        for units in [5, 10, u32::MAX] {
            assert_eq!(shares.take("alice", units, later).await.err(), Some(NoShare::TooMuch));
            assert_eq!(shares.try_take("alice", units).err(), Some(NoShare::TooMuch));
        }
        assert_eq!((began.elapsed(), shares.holders()), (std::time::Duration::ZERO, 0));
        let held = [shares.try_take("alice", 4), shares.try_take("bob", 4)];
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(shares.take("alice", 1, began).await.err(), Some(NoShare::OfHolder));
        assert_eq!(shares.take("carol", 3, began).await.err(), Some(NoShare::OfAll));
        assert!(shares.try_take("carol", 2).is_ok());
        drop(held);
        assert_eq!((shares.holders(), shares.all.available_permits()), (0, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_get_theirs_in_order() {
        let shares = Shares::new(10, 10, usize::MAX);
        let (all, later) = (shares.try_take(0, 10), Instant::now() + std::time::Duration::from_secs(1));
        let (large, small) = (shares.take(1, 8, later), shares.take(2, 8, later));
        let held = async {
            drop(all);
            assert!(shares.try_take(3, 1).is_err(), "nobody passes those that wait");
        };
        let (large, small, ()) = tokio::join!(large, small, held);
        assert!(large.is_ok());
        assert_eq!(small.err(), Some(NoShare::OfAll));
    }
}
