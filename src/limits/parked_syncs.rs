//! Syncs that wait for news: a bounded number for each device and each user, with a bounded size of their filters.
//!
//! A client has one such sync. A client that lost its connection, or that asks again without waiting, leaves others
//! behind, and each keeps a connection and memory until its timeout. The newest syncs win: beyond a limit the oldest
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
    filter::SyncFilter,
    memory::cache::HasBytes as _,
    store::{DeviceNid, UserNid, ids::lock},
};

/// The maximum number of waiting syncs of one device. One is usual; a few more come from tabs, and from connections
/// that broke unnoticed.
pub const MAX_FOR_DEVICE: usize = 8;

/// The maximum number of waiting syncs of one user, on all devices: more than anyone uses at a time.
pub const MAX_FOR_USER: usize = 100;

/// The maximum size of the filters of one user's waiting syncs, in bytes. A filter that several of them share counts
/// once. A usual filter takes 3 kB, and the largest about 125 kB with the default of `limits.filter_bytes`. One sync may
/// wait with a filter of any size.
pub const MAX_FILTER_BYTES: u64 = 256 << 10;

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
    filter: Arc<SyncFilter>,
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
    /// Takes a place for the caller's sync. If that is one too many, the oldest gives way; if the filters are too
    /// large, as many of the oldest as necessary.
    pub fn park(&self, caller: &LocalDevice, filter: &Arc<SyncFilter>) -> ParkedSync<'_> {
        self.park_device(caller.user.nid, caller.device_nid, filter)
    }

    fn park_device(&self, user: UserNid, device: DeviceNid, filter: &Arc<SyncFilter>) -> ParkedSync<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let superseded = Arc::new(Notify::new());
        let mut users = lock(&self.users);
        let waiting = users.entry(user).or_default();
        let filter = Arc::clone(filter);
        waiting.push_back(Waiting { number, device, filter, superseded: Arc::clone(&superseded) });
        let of_device = waiting.iter().filter(|other| other.device == device).count();
        let oldest = if of_device > MAX_FOR_DEVICE {
            waiting.iter().position(|other| other.device == device)
        } else {
            (waiting.len() > MAX_FOR_USER).then_some(0)
        };
        if let Some(oldest) = oldest.and_then(|oldest| waiting.remove(oldest)) {
            oldest.superseded.notify_one();
        }
        while waiting.len() > 1
            && filter_bytes(waiting) > MAX_FILTER_BYTES
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.superseded.notify_one();
        }
        ParkedSync { parked: self, user, number, superseded }
    }
}

/// The bytes of all filters of waiting syncs, each counted once.
fn filter_bytes(waiting: &VecDeque<Waiting>) -> u64 {
    let counted = |upto: usize, filter| waiting.iter().take(upto).any(|other| Arc::ptr_eq(&other.filter, filter));
    let filters = waiting.iter().map(|sync| &sync.filter).enumerate();
    filters.filter(|(index, filter)| !counted(*index, filter)).map(|(_, filter)| filter.bytes()).sum()
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
    use crate::filter::Definition;

    /// A filter that takes a little more than this.
    fn filter(bytes: u64) -> Arc<SyncFilter> {
        let name = "x".repeat(usize::try_from(bytes).expect("little"));
        let json = format!(r#"{{"presence":{{"types":["{name}"]}}}}"#);
        Arc::new(SyncFilter::new(&Definition::read(&json).expect("a filter")).expect("one entry"))
    }

    async fn is_superseded(place: &ParkedSync<'_>) -> bool {
        tokio::time::timeout(Duration::ZERO, place.superseded()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_a_device_gives_way() {
        let parked = ParkedSyncs::default();
        let (alice, phone, laptop) = (UserNid(1), DeviceNid(1), DeviceNid(2));
        let all = SyncFilter::of_all();
        let other = parked.park_device(alice, laptop, &all);
        let first = parked.park_device(alice, phone, &all);
        let rest: Vec<_> = (1..MAX_FOR_DEVICE).map(|_| parked.park_device(alice, phone, &all)).collect();
        assert!(!is_superseded(&first).await);
        let _newest = parked.park_device(alice, phone, &all);
        assert!(is_superseded(&first).await);
        assert!(!is_superseded(&rest[0]).await && !is_superseded(&other).await);
        drop(rest);
        let _again = parked.park_device(alice, phone, &all);
        assert!(!is_superseded(&other).await, "those that ended have left their places");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_a_user_gives_way_and_nobody_elses() {
        let parked = ParkedSyncs::default();
        let all = SyncFilter::of_all();
        let bobs = parked.park_device(UserNid(2), DeviceNid(0), &all);
        let device = |number: usize| DeviceNid(i64::try_from(number).expect("few"));
        let places: Vec<_> =
            (1..=MAX_FOR_USER).map(|number| parked.park_device(UserNid(1), device(number), &all)).collect();
        assert!(!is_superseded(&places[0]).await);
        let _newest = parked.park_device(UserNid(1), device(MAX_FOR_USER + 1), &all);
        assert!(is_superseded(&places[0]).await);
        assert!(!is_superseded(&places[1]).await && !is_superseded(&bobs).await);
        drop((places, bobs));
        assert_eq!(lock(&parked.users).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_give_way_to_large_filters() {
        let parked = ParkedSyncs::default();
        let park = |user, filter: &Arc<SyncFilter>| parked.park_device(UserNid(user), DeviceNid(1), filter);
        let (of_all, third) = (SyncFilter::of_all(), MAX_FILTER_BYTES / 3);
        let (small, bobs) = (park(1, &of_all), park(2, &filter(third)));
        let (one, two) = (filter(third), filter(third));
        let first = park(1, &one);
        let second = park(1, &two);
        // A filter counts once, however many wait with it.
        let shared: Vec<_> = (0..3).map(|_| park(1, &one)).collect();
        assert!(!is_superseded(&small).await && !is_superseded(&first).await);
        let third_one = park(1, &filter(third));
        // The oldest go until the rest fits. The place of `first` alone frees nothing, because others share its filter.
        assert!(is_superseded(&small).await && is_superseded(&first).await && is_superseded(&second).await);
        assert!(!is_superseded(&shared[0]).await && !is_superseded(&bobs).await);
        let largest = park(1, &filter(2 * MAX_FILTER_BYTES));
        assert!(is_superseded(&third_one).await && !is_superseded(&largest).await, "one may always wait");
    }
}
