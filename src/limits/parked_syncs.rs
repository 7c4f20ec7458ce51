//! Syncs that wait for news: a bounded number for each device and each user.
//!
//! A client has one such sync. A client that lost its connection, or that asks again without waiting, leaves others
//! behind, and each keeps a connection and memory until its timeout. The newest syncs win: beyond the limit the oldest
//! is answered, without news and with its own token.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{
    account::LocalDevice,
    store::{DeviceNid, UserNid, ids::lock},
};

/// The maximum number of waiting syncs of one device. One is usual; a few more come from tabs, and from connections
/// that broke unnoticed.
pub const MAX_FOR_DEVICE: usize = 8;

/// The maximum number of waiting syncs of one user, on all devices: more than anyone uses at a time.
pub const MAX_FOR_USER: usize = 100;

/// All waiting syncs.
#[derive(Debug, Default)]
pub struct ParkedSyncs {
    next: AtomicU64,
    users: Mutex<HashMap<UserNid, VecDeque<Waiting>>>,
}

/// A waiting sync. The syncs of a user are in the order of their arrival.
#[derive(Debug)]
struct Waiting {
    number: u64,
    device: DeviceNid,
    superseded: Arc<Notify>,
}

/// A place among the waiting syncs, until this is dropped.
#[derive(Debug)]
pub struct ParkedSync<'a> {
    parked: &'a ParkedSyncs,
    user: UserNid,
    number: u64,
    superseded: Arc<Notify>,
}

impl ParkedSyncs {
    /// Takes a place for the caller's sync. If that is one too many, the oldest gives way.
    pub fn park(&self, caller: &LocalDevice) -> ParkedSync<'_> {
        self.park_device(caller.user.nid, caller.device_nid)
    }

    fn park_device(&self, user: UserNid, device: DeviceNid) -> ParkedSync<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let superseded = Arc::new(Notify::new());
        let mut users = lock(&self.users);
        let waiting = users.entry(user).or_default();
        waiting.push_back(Waiting { number, device, superseded: Arc::clone(&superseded) });
        let of_device = waiting.iter().filter(|other| other.device == device).count();
        let oldest = if of_device > MAX_FOR_DEVICE {
            waiting.iter().position(|other| other.device == device)
        } else {
            (waiting.len() > MAX_FOR_USER).then_some(0)
        };
        if let Some(oldest) = oldest.and_then(|oldest| waiting.remove(oldest)) {
            oldest.superseded.notify_one();
        }
        ParkedSync { parked: self, user, number, superseded }
    }
}

impl ParkedSync<'_> {
    /// Resolves when newer syncs have taken the place. Cancel safe.
    pub async fn superseded(&self) {
        self.superseded.notified().await;
    }
}

impl Drop for ParkedSync<'_> {
    fn drop(&mut self) {
        let mut users = lock(&self.parked.users);
        let Some(waiting) = users.get_mut(&self.user) else { return };
        waiting.retain(|other| other.number != self.number);
        if waiting.is_empty() {
            users.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_superseded(place: &ParkedSync<'_>) -> bool {
        tokio::time::timeout(Duration::ZERO, place.superseded()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_a_device_gives_way() {
        let parked = ParkedSyncs::default();
        let (alice, phone, laptop) = (UserNid(1), DeviceNid(1), DeviceNid(2));
        let other = parked.park_device(alice, laptop);
        let first = parked.park_device(alice, phone);
        let rest: Vec<_> = (1..MAX_FOR_DEVICE).map(|_| parked.park_device(alice, phone)).collect();
        assert!(!is_superseded(&first).await);
        let _newest = parked.park_device(alice, phone);
        assert!(is_superseded(&first).await);
        assert!(!is_superseded(&rest[0]).await && !is_superseded(&other).await);
        drop(rest);
        let _again = parked.park_device(alice, phone);
        assert!(!is_superseded(&other).await, "those that ended have left their places");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_a_user_gives_way_and_nobody_elses() {
        let parked = ParkedSyncs::default();
        let bobs = parked.park_device(UserNid(2), DeviceNid(0));
        let device = |number: usize| DeviceNid(i64::try_from(number).expect("few"));
        let places: Vec<_> = (1..=MAX_FOR_USER).map(|number| parked.park_device(UserNid(1), device(number))).collect();
        assert!(!is_superseded(&places[0]).await);
        let _newest = parked.park_device(UserNid(1), device(MAX_FOR_USER + 1));
        assert!(is_superseded(&places[0]).await);
        assert!(!is_superseded(&places[1]).await && !is_superseded(&bobs).await);
        drop((places, bobs));
        assert_eq!(lock(&parked.users).len(), 1);
    }
}
