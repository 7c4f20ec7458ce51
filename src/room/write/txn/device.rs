//! The transaction IDs of one device in memory: the results of its latest requests, and the hashes of all.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash as _, Hasher as _},
    sync::{Arc, Mutex},
};

use ruma::{EventId, OwnedEventId};
use tokio::sync::OnceCell;

/// The number of a device's latest requests whose results are kept in memory; at most twice as many are. A client
/// repeats only what it has just sent.
const KEPT_PER_DEVICE: usize = 512;

/// The number of hashes that are kept in memory for a device, eight bytes each: more than a thousand requests a day for
/// a week. A device that sends more costs a database lookup for each request.
pub(super) const HASHES_PER_DEVICE: usize = 8_192;

/// Approximate memory of a device without IDs; of an ID besides its texts, with its event and its places in two maps; and
/// of a hash.
pub(super) const DEVICE_BYTES: u64 = 400;
const ID_BYTES: usize = 140;
const HASH_BYTES: usize = 9;

/// The results of some requests.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) by_txn: HashMap<(Arc<str>, Arc<str>), OwnedEventId>,
    pub(super) by_event: HashMap<OwnedEventId, Arc<str>>,
    /// The bytes of all texts.
    text_bytes: usize,
}

impl Done {
    fn add(&mut self, scope: Arc<str>, txn: Arc<str>, event_id: OwnedEventId) {
        self.text_bytes += scope.len() + txn.len() + 2 * event_id.as_str().len();
        self.by_event.insert(event_id.clone(), Arc::clone(&txn));
        self.by_txn.insert((scope, txn), event_id);
    }

    fn bytes(&self) -> usize {
        self.by_txn.capacity() * ID_BYTES + self.text_bytes
    }
}

#[derive(Debug, Default)]
pub(super) struct DeviceTxns {
    pub(super) latest: Done,
    /// The results before `latest`. Dropped when `latest` is full, so the last [`KEPT_PER_DEVICE`] are always there.
    pub(super) previous: Done,
    /// Hashes of all IDs in the database, unless there are too many.
    pub(super) hashes: Option<HashSet<u64>>,
}

/// A device in the cache. IDs that are committed while its rows are being read are remembered as well.
#[derive(Debug, Default)]
pub(super) struct Device {
    pub(super) txns: Mutex<DeviceTxns>,
    pub(super) loaded: OnceCell<()>,
}

/// The hash of an ID. If two IDs have the same hash, the second one costs a database lookup.
pub(super) fn hash(scope: &str, txn: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (scope, txn).hash(&mut hasher);
    hasher.finish()
}

impl DeviceTxns {
    /// The number of IDs and hashes for which there is memory.
    pub(super) fn capacity(&self) -> (usize, usize) {
        let hashes = self.hashes.as_ref().map_or(0, HashSet::capacity);
        (self.latest.by_txn.capacity() + self.previous.by_txn.capacity(), hashes)
    }

    /// Approximate memory that the device takes.
    pub(super) fn bytes(&self) -> u64 {
        let (_, hashes) = self.capacity();
        DEVICE_BYTES + (self.latest.bytes() + self.previous.bytes() + hashes * HASH_BYTES) as u64
    }

    pub(super) fn remember(&mut self, scope: Arc<str>, txn: Arc<str>, event_id: OwnedEventId) {
        let full = self.hashes.as_ref().is_some_and(|hashes| hashes.len() >= HASHES_PER_DEVICE);
        if full {
            self.hashes = None;
        }
        if let Some(hashes) = &mut self.hashes {
            hashes.insert(hash(&scope, &txn));
        }
        if self.latest.by_txn.len() >= KEPT_PER_DEVICE {
            self.previous = std::mem::take(&mut self.latest);
        }
        self.latest.add(scope, txn, event_id);
    }

    /// Adds the IDs that were read from the database, newest first, to those that were remembered meanwhile.
    pub(super) fn add_stored(&mut self, stored: Vec<(String, String, String)>) {
        // IDs that were dropped from memory meanwhile may have no hash. Then the database is asked.
        let is_all = stored.len() < HASHES_PER_DEVICE && self.previous.by_txn.is_empty();
        let mut hashes: HashSet<u64> = stored.iter().map(|(scope, txn, _)| hash(scope, txn)).collect();
        hashes.extend(self.latest.by_txn.keys().map(|(scope, txn)| hash(scope, txn)));
        self.hashes = is_all.then_some(hashes);
        for (scope, txn, event_id) in stored.into_iter().take(KEPT_PER_DEVICE / 2) {
            if let Ok(event_id) = EventId::parse(&event_id) {
                self.remember(scope.into(), txn.into(), event_id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
