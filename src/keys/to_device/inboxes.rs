//! The numbers of each device's waiting messages, in memory.
//!
//! Every send and every sync asks for them: is the inbox full, is it empty? Reading them goes through the whole inbox. So one
//! request reads, and the others that want the inbox of the same device wait for it.
//!
//! Promise: a cached inbox is never behind the database, and a read of it is never wasted. Commits go on meanwhile: what they
//! change is collected. The read says which commits it saw, and the changes of the later ones are applied to its result.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::OnceCell;

use super::acknowledged::Acknowledged;
use crate::{
    keys::Keys,
    memory::budget::{Budget, Part},
    store::{
        DeviceNid, Error, Position,
        ids::lock,
        to_device::{self, Waiting},
    },
};

/// The memory of a cached inbox. When the budget is full we clear the cache, which costs each device one query.
const CACHED_BYTES: u64 = 100;

/// Maximum number of changes collected for one read, 40 bytes each. A read takes less time than so many commits, but
/// the clients that wait for it may have hung up. With more changes, a later request reads again.
const MAX_CHANGES: usize = 1024;

/// The bounds of a device's waiting messages, as known in memory. They are never too low, but not always exact.
#[derive(Debug, Clone, Copy)]
pub(in crate::keys) struct Inbox {
    /// No message is before this one.
    pub(super) oldest: Position,
    /// No message is after this one.
    pub(in crate::keys) newest: Position,
    /// At most this many messages wait.
    pub(in crate::keys) count: u64,
    /// At most this many bytes wait.
    pub(in crate::keys) bytes: u64,
}

const EMPTY: Inbox = Inbox { oldest: Position(i64::MAX), newest: Position::BEFORE_ALL, count: 0, bytes: 0 };

/// The effect of a commit on an inbox.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// The commit has added messages at its position.
    Added { messages: u32, bytes: u32 },
    /// The commit has deleted messages. None is left up to `upto`.
    Removed { upto: Position, messages: u32, bytes: u32 },
}

/// A read of an inbox. It stays readable for those who wait for it when it is evicted.
#[derive(Debug, Default)]
struct Load {
    /// Filled by one of those who wait. The others fail with it too: trying one after the other, each would wait for a
    /// database that does not answer.
    result: OnceCell<Result<Inbox, Error>>,
    /// The changes since the read was asked for, each with its position. Locked while the entries are.
    changes: Mutex<Vec<(Position, Change)>>,
}

#[derive(Debug)]
enum CachedInbox {
    Loading(Arc<Load>),
    /// `seen`: commits up to here are in the numbers, although memory may be told of them only now.
    Known {
        inbox: Inbox,
        seen: Position,
    },
}

/// The cached inboxes. The lock is held for single look-ups.
#[derive(Debug)]
pub(in crate::keys) struct Inboxes {
    entries: Arc<Mutex<HashMap<DeviceNid, CachedInbox>>>,
    max_bytes: u64,
    pub(super) acknowledged: Acknowledged,
}

impl Inbox {
    fn new(waiting: Waiting) -> Self {
        Self {
            oldest: waiting.oldest.unwrap_or(EMPTY.oldest),
            newest: waiting.newest.unwrap_or(EMPTY.newest),
            count: waiting.messages,
            bytes: waiting.bytes,
        }
    }

    fn apply(&mut self, at: Position, change: Change) {
        match change {
            Change::Added { messages, bytes } => {
                self.oldest = self.oldest.min(at);
                self.newest = self.newest.max(at);
                self.count += u64::from(messages);
                self.bytes += u64::from(bytes);
            }
            Change::Removed { upto, .. } if self.newest <= upto => *self = EMPTY,
            Change::Removed { upto, messages, bytes } => {
                self.oldest = self.oldest.max(Position(upto.0 + 1));
                self.count = self.count.saturating_sub(u64::from(messages));
                self.bytes = self.bytes.saturating_sub(u64::from(bytes));
            }
        }
    }
}

fn bytes(entries: &HashMap<DeviceNid, CachedInbox>) -> u64 {
    entries.len() as u64 * CACHED_BYTES
}

impl Inboxes {
    pub(in crate::keys) fn new(budget: &Budget) -> Self {
        let entries = Arc::<Mutex<HashMap<_, _>>>::default();
        let weighed = Arc::clone(&entries);
        budget.watch(Part::Inboxes, move || bytes(&lock(&weighed)));
        Self { entries, max_bytes: budget.share(Part::Inboxes), acknowledged: Acknowledged::default() }
    }

    /// The cached inbox.
    pub(super) fn find(&self, device: DeviceNid) -> Option<Inbox> {
        match lock(&self.entries).get(&device) {
            Some(CachedInbox::Known { inbox, .. }) => Some(*inbox),
            Some(CachedInbox::Loading(_)) | None => None,
        }
    }

    /// The cached inbox, or else the read that is to be waited for.
    fn find_or_load(&self, device: DeviceNid) -> Result<Inbox, Arc<Load>> {
        let mut entries = lock(&self.entries);
        match entries.get(&device) {
            Some(CachedInbox::Known { inbox, .. }) => return Ok(*inbox),
            Some(CachedInbox::Loading(load)) => return Err(Arc::clone(load)),
            None => {}
        }
        if bytes(&entries) + CACHED_BYTES > self.max_bytes {
            entries.clear();
        }
        let load = Arc::<Load>::default();
        entries.insert(device, CachedInbox::Loading(Arc::clone(&load)));
        Err(load)
    }

    /// The inbox that was read, with the later changes. It is cached, unless it was evicted meanwhile.
    fn loaded(&self, device: DeviceNid, load: &Arc<Load>, read: Result<Waiting, Error>) -> Result<Inbox, Error> {
        let mut entries = lock(&self.entries);
        let is_running = |entry: &CachedInbox| matches!(entry, CachedInbox::Loading(other) if Arc::ptr_eq(other, load));
        let is_evicted = !entries.get(&device).is_some_and(is_running);
        let waiting = match read {
            Ok(waiting) => waiting,
            Err(error) => {
                if !is_evicted {
                    entries.remove(&device);
                }
                return Err(error);
            }
        };
        let (mut inbox, seen) = (Inbox::new(waiting), waiting.seen);
        // Those that came before an eviction count for an evicted one too. Somebody may wait for it who knows of them.
        for (at, change) in lock(&load.changes).iter().filter(|(at, _)| *at > seen) {
            inbox.apply(*at, *change);
        }
        if !is_evicted {
            entries.insert(device, CachedInbox::Known { inbox, seen });
        }
        Ok(inbox)
    }

    /// Adds messages that the commit at `at` has stored.
    pub(in crate::keys) fn added(&self, device: DeviceNid, at: Position, (messages, bytes): (u32, u32)) {
        self.changed(device, at, Change::Added { messages, bytes });
    }

    /// Removes messages that the commit at `at` has deleted. None is left up to `upto`.
    pub(in crate::keys) fn removed(
        &self,
        device: DeviceNid,
        (at, upto): (Position, Position),
        (messages, bytes): (u32, u32),
    ) {
        self.changed(device, at, Change::Removed { upto, messages, bytes });
        self.acknowledged.deleted(device, upto);
    }

    /// Evicts the inbox of a device, or keeps the one that is being read from being cached.
    pub(in crate::keys) fn evict(&self, device: DeviceNid) {
        lock(&self.entries).remove(&device);
    }

    pub(in crate::keys) fn evict_all(&self) {
        lock(&self.entries).clear();
    }

    /// Evicts the inbox of a device from which another process has deleted. No message is left up to `upto`.
    pub(in crate::keys) fn removed_elsewhere(&self, device: DeviceNid, upto: Position) {
        self.evict(device);
        self.acknowledged.deleted(device, upto);
    }

    fn changed(&self, device: DeviceNid, at: Position, change: Change) {
        let mut entries = lock(&self.entries);
        let is_too_much = match entries.get_mut(&device) {
            Some(CachedInbox::Known { inbox, seen }) => {
                if at > *seen {
                    inbox.apply(at, change);
                }
                false
            }
            Some(CachedInbox::Loading(load)) => {
                let mut changes = lock(&load.changes);
                changes.push((at, change));
                changes.len() >= MAX_CHANGES
            }
            None => false,
        };
        if is_too_much {
            entries.remove(&device);
        }
    }
}

impl Keys {
    /// The bounds of the device's waiting messages; read from the database when not cached.
    pub(in crate::keys) async fn inbox(&self, device: DeviceNid) -> Result<Inbox, Error> {
        let inboxes = &self.memory.inboxes;
        let load = match inboxes.find_or_load(device) {
            Ok(inbox) => return Ok(inbox),
            Err(load) => load,
        };
        let read = async {
            let read = async { to_device::waiting(&mut self.db.read().await?.conn(), device).await };
            inboxes.loaded(device, &load, read.await)
        };
        load.result.get_or_init(|| Box::pin(read)).await.clone()
    }
}

#[cfg(test)]
mod tests;
