//! Syncs that wait for news: a bounded number for each device and each user, with a bounded size of their filters.
//!
//! A client has one such sync. A client that lost its connection, or that asks again without waiting, leaves others
//! behind, and each keeps a connection and memory until its timeout. The newest syncs win: beyond a limit an older one
//! gives way. It is answered without news and with its own token, but not within [`GIVE_WAY_AFTER`] of its arrival, and
//! until then it gets news like the others. Its client asks again at once, and displaces another sync that gives way.

mod list;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use self::list::{List, Waiting};
use crate::{
    account::LocalDevice,
    config::Limits,
    filter::SyncFilter,
    store::{DeviceNid, UserNid, ids::lock},
};

/// The maximum number of waiting syncs of one device. One is usual; a few more come from tabs, and from connections
/// that broke unnoticed.
pub const MAX_FOR_DEVICE: usize = 8;

/// The maximum number of waiting syncs of one user, on all devices: more than anyone uses at a time.
pub const MAX_FOR_USER: usize = 100;

/// The maximum size of the filters of one user's waiting syncs, in bytes, or four times `limits.filter_bytes` if that is
/// more. A filter that several of them share counts once. Each of [`MAX_FOR_USER`] syncs may have a filter of its own of
/// 20 kB. A usual filter takes 3 kB, and the largest about 125 kB with the default of `limits.filter_bytes`. One sync
/// may wait with a filter of any size.
pub const MAX_FILTER_BYTES: u64 = 2 << 20;

/// The number of filters of `limits.filter_bytes` that one user's waiting syncs may always have.
const LARGEST_FILTERS: u64 = 4;

/// The time from the arrival of a sync until it may be answered because newer ones have displaced it. Its client asks
/// again at once, so clients that displace each other ask twelve times a minute at most. Short against the usual timeout
/// of 30 seconds, so that broken connections do not stay.
pub const GIVE_WAY_AFTER: Duration = Duration::from_secs(5);

/// The number and size of the syncs that give way, as a multiple of those that stay. Beyond it, a sync that gives way
/// is answered at once. Together with those that stay, these are as many syncs as a user may have devices by default.
const GIVING_WAY: usize = 4;

/// All waiting syncs.
#[derive(Debug)]
pub struct ParkedSyncs {
    max_filter_bytes: u64,
    users: Mutex<HashMap<UserNid, OfUser>>,
}

/// The waiting syncs of a user.
#[derive(Debug, Default)]
struct OfUser {
    staying: List,
    giving_way: List,
}

/// The syncs that one more sync displaces.
#[derive(Debug)]
struct Displaced {
    giving_way: Vec<Arc<Signal>>,
    /// These have no place any longer.
    at_once: Vec<Waiting>,
}

/// Tells a sync that newer ones have displaced it.
#[derive(Debug)]
struct Signal {
    parked_at: Instant,
    displaced: Notify,
    at_once: AtomicBool,
}

/// A place among the waiting syncs, until this is dropped.
#[derive(Debug)]
pub struct ParkedSync<'a> {
    parked: &'a ParkedSyncs,
    user: UserNid,
    signal: Arc<Signal>,
}

impl ParkedSyncs {
    pub fn new(limits: &Limits) -> Self {
        let largest = limits.filter_bytes.bytes() as u64;
        Self { max_filter_bytes: MAX_FILTER_BYTES.max(LARGEST_FILTERS * largest), users: Mutex::default() }
    }

    /// Takes a place for the caller's sync. If that is one too many, the oldest gives way; if the filters are too
    /// large, the syncs with the largest ones.
    pub fn park(&self, caller: &LocalDevice, filter: &Arc<SyncFilter>) -> ParkedSync<'_> {
        self.park_device(caller.user.nid, caller.device_nid, filter)
    }

    fn park_device(&self, user: UserNid, device: DeviceNid, filter: &Arc<SyncFilter>) -> ParkedSync<'_> {
        let signal =
            Arc::new(Signal { parked_at: Instant::now(), displaced: Notify::new(), at_once: AtomicBool::new(false) });
        let sync = Waiting::new(device, Arc::clone(filter), Arc::clone(&signal));
        // The lock is free again when syncs are woken and filters are dropped.
        let displaced = lock(&self.users).entry(user).or_default().park(sync, self.max_filter_bytes);
        for signal in displaced.giving_way {
            signal.displaced.notify_one();
        }
        for sync in displaced.at_once {
            sync.signal.at_once.store(true, Ordering::Relaxed);
            sync.signal.displaced.notify_one();
        }
        ParkedSync { parked: self, user, signal }
    }
}

impl OfUser {
    fn park(&mut self, sync: Waiting, max_filter_bytes: u64) -> Displaced {
        let device = sync.device;
        self.staying.push(sync);
        let mut displaced = Vec::new();
        if self.staying.iter().filter(|sync| sync.device == device).count() > MAX_FOR_DEVICE {
            displaced.extend(self.staying.remove_first(|sync| sync.device == device));
        } else if self.staying.len() > MAX_FOR_USER {
            displaced.extend(self.staying.remove_first(|_| true));
        }
        displaced.append(&mut self.staying.remove_largest(max_filter_bytes));
        let giving_way = displaced.iter().map(|sync| Arc::clone(&sync.signal)).collect();
        for sync in displaced {
            self.giving_way.push(sync);
        }
        let mut at_once = self.giving_way.remove_largest(GIVING_WAY as u64 * max_filter_bytes);
        while self.giving_way.len() > GIVING_WAY * MAX_FOR_USER {
            at_once.extend(self.giving_way.remove_first(|_| true));
        }
        Displaced { giving_way, at_once }
    }

    fn remove(&mut self, signal: &Arc<Signal>) -> Option<Waiting> {
        let has_it = |sync: &Waiting| Arc::ptr_eq(&sync.signal, signal);
        self.staying.remove_first(has_it).or_else(|| self.giving_way.remove_first(has_it))
    }

    fn is_empty(&self) -> bool {
        self.staying.len() + self.giving_way.len() == 0
    }
}

impl ParkedSync<'_> {
    /// Resolves when newer syncs have displaced this one, to the time from which it is to be answered without news.
    /// Resolves again if that changes. Cancel safe.
    pub async fn displaced(&self) -> Instant {
        self.signal.displaced.notified().await;
        if self.signal.at_once.load(Ordering::Relaxed) {
            Instant::now()
        } else {
            self.signal.parked_at + GIVE_WAY_AFTER
        }
    }
}

impl Drop for ParkedSync<'_> {
    fn drop(&mut self) {
        let mut users = lock(&self.parked.users);
        let Some(of_user) = users.get_mut(&self.user) else { return };
        let sync = of_user.remove(&self.signal);
        if of_user.is_empty() {
            users.remove(&self.user);
        }
        drop(users);
        // The sync may be the last holder of its filter, so it is dropped after the lock.
        drop(sync);
    }
}

#[cfg(test)]
mod tests;
