//! Transaction IDs: a request that is repeated is not done twice.
//!
//! The results of a device's latest requests are in memory. For all other requests, a hash of the ID is in memory,
//! loaded once, so that a new ID is known to be new without asking the database. The row that remembers an ID is
//! committed together with the request's event.
//!
//! Promise: an ID is found from the moment when its event is queued, even if the cache evicts or loads the device
//! meanwhile. A queued ID is in a map of its own. When it is committed, it moves in one step to its device in the
//! cache, if the device is there. A device is added to the cache before its IDs are read, so no ID is missed in
//! between.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash as _, Hasher as _},
    sync::{Arc, Mutex},
};

use ruma::{EventId, OwnedEventId};
use tokio::sync::OnceCell;

use crate::{
    memory::{
        budget::{Budget, Part},
        growing::GrowingCache,
    },
    store::{Database, DeviceNid, Error, Row, ids::lock, txn_ids as rows},
};

/// The number of a device's latest requests whose results are kept in memory; at most twice as many are. A client
/// repeats only what it has just sent.
const KEPT_PER_DEVICE: usize = 512;

/// The number of hashes that are kept in memory for a device, eight bytes each: more than a thousand requests a day for
/// a week. A device that sends more costs a database lookup for each request.
const HASHES_PER_DEVICE: usize = 8_192;

/// Approximate memory of a device without IDs; of an ID besides its texts, with its event and its places in two maps; and
/// of a hash.
const DEVICE_BYTES: u64 = 400;
const ID_BYTES: usize = 140;
const HASH_BYTES: usize = 9;

/// The key by which a request is remembered. The scope is its endpoint with all path parameters but the ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TxnKey {
    pub device: DeviceNid,
    pub scope: Arc<str>,
    pub txn: Arc<str>,
}

/// The results of some requests.
#[derive(Debug, Default)]
struct Done {
    by_txn: HashMap<(Arc<str>, Arc<str>), OwnedEventId>,
    by_event: HashMap<OwnedEventId, Arc<str>>,
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
struct DeviceTxns {
    latest: Done,
    /// The results before `latest`. Dropped when `latest` is full, so the last [`KEPT_PER_DEVICE`] are always there.
    previous: Done,
    /// Hashes of all IDs in the database, unless there are too many.
    hashes: Option<HashSet<u64>>,
}

/// A device in the cache. IDs that are committed while its rows are being read are remembered as well.
#[derive(Debug, Default)]
struct Device {
    txns: Mutex<DeviceTxns>,
    loaded: OnceCell<()>,
}

pub(crate) struct TransactionIds {
    db: Arc<Database>,
    kept: Arc<Kept>,
}

struct Kept {
    devices: Arc<GrowingCache<DeviceNid, Device>>,
    /// The queued IDs, which are not in the database yet. There are at most as many as writes in the queue.
    queued: Mutex<HashMap<TxnKey, OwnedEventId>>,
}

/// A queued ID. If it is dropped without [`Self::committed`], it is forgotten: its event was not stored.
pub(in crate::room) struct QueuedTxn {
    kept: Arc<Kept>,
    key: TxnKey,
    is_committed: bool,
}

/// A handle to the devices in memory, for what follows the commits.
pub(in crate::room) struct KnownTxns(Arc<Kept>);

impl KnownTxns {
    /// Evicts a device that has used an ID elsewhere.
    pub(in crate::room) fn evict(&self, device: DeviceNid) {
        self.0.devices.remove(&device);
    }

    pub(in crate::room) fn evict_all(&self) {
        self.0.devices.clear();
    }
}

impl TransactionIds {
    pub(in crate::room) fn known(&self) -> KnownTxns {
        KnownTxns(Arc::clone(&self.kept))
    }

    pub(in crate::room) fn new(db: Arc<Database>, budget: &Budget) -> Self {
        let devices = budget.growing_cache(Part::TransactionIds);
        Self { db, kept: Arc::new(Kept { devices, queued: Mutex::default() }) }
    }

    async fn device(&self, nid: DeviceNid) -> Result<Arc<Device>, Error> {
        let device = self.kept.devices.get_or_default(&nid, DEVICE_BYTES);
        // This runs for every event that is shown to its sender: making the future below would copy all of it each
        // time.
        if device.loaded.initialized() {
            return Ok(device);
        }
        let load = async {
            let mut reader = self.db.read().await?;
            let rows = rows::recent_txn_ids(&mut reader.conn(), nid, HASHES_PER_DEVICE).await?;
            let bytes = {
                let mut txns = lock(&device.txns);
                txns.add_stored(rows);
                txns.bytes()
            };
            self.kept.devices.has_grown(&nid, &device, bytes);
            Ok::<_, Error>(())
        };
        device.loaded.get_or_try_init(|| Box::pin(load)).await?;
        Ok(device)
    }

    /// The result of the request with this key. It may still be queued, and may never be stored.
    pub(in crate::room) async fn find(&self, key: &TxnKey) -> Result<Option<OwnedEventId>, Error> {
        let device = self.device(key.device).await?;
        // In this order: an ID moves from here to its device.
        let queued = lock(&self.kept.queued).get(key).cloned();
        if queued.is_some() {
            return Ok(queued);
        }
        {
            let txns = lock(&device.txns);
            let id = (Arc::clone(&key.scope), Arc::clone(&key.txn));
            if let Some(event_id) = txns.latest.by_txn.get(&id).or_else(|| txns.previous.by_txn.get(&id)) {
                return Ok(Some(event_id.clone()));
            }
            // A device that was evicted meanwhile does not know the IDs that were committed since.
            let is_current = self.kept.devices.peek(&key.device).is_some_and(|kept| Arc::ptr_eq(&kept, &device));
            let is_new = |hashes: &HashSet<u64>| !hashes.contains(&hash(&key.scope, &key.txn));
            if is_current && txns.hashes.as_ref().is_some_and(is_new) {
                return Ok(None);
            }
        }
        let mut reader = self.db.read().await?;
        let found = rows::find_txn_id(&mut reader.conn(), key.device, &key.scope, &key.txn).await?;
        found.map(|event_id| EventId::parse(&event_id).map_err(|error| Error::damaged("event ID", error))).transpose()
    }

    /// Remembers an ID that is about to be committed.
    pub(in crate::room) fn queue(&self, key: TxnKey, event_id: &EventId) -> QueuedTxn {
        lock(&self.kept.queued).insert(key.clone(), event_id.to_owned());
        QueuedTxn { kept: Arc::clone(&self.kept), key, is_committed: false }
    }

    /// Empties the cache, as happens when too many devices are active.
    #[cfg(test)]
    pub(in crate::room) fn drop_devices(&self) {
        self.kept.devices.clear();
    }

    /// The transaction ID with which this device sent the event, if it did lately.
    pub(crate) async fn of_event(&self, device: DeviceNid, event_id: &EventId) -> Result<Option<String>, Error> {
        let device = self.device(device).await?;
        let txns = lock(&device.txns);
        let txn = txns.latest.by_event.get(event_id).or_else(|| txns.previous.by_event.get(event_id));
        Ok(txn.map(|txn| txn.to_string()))
    }
}

impl QueuedTxn {
    /// Notes that the row is in the database.
    pub(in crate::room) fn committed(mut self) {
        self.is_committed = true;
        let Some((key, device, bytes)) = self.move_to_device() else { return };
        self.kept.devices.has_grown(&key, &device, bytes);
    }

    /// Moves the ID to its device, if that is in the cache. Returns the device if it has grown.
    fn move_to_device(&self) -> Option<(DeviceNid, Arc<Device>, u64)> {
        // Held to the end, so that a reader that does not find the ID here any more finds it with its device.
        let mut queued = lock(&self.kept.queued);
        let (key, event_id) = queued.remove_entry(&self.key)?;
        let device = self.kept.devices.get(&key.device)?;
        let mut txns = lock(&device.txns);
        let capacity = txns.capacity();
        txns.remember(key.scope, key.txn, event_id);
        // Each doubling is noticed, which is enough, and most IDs cost nothing.
        let bytes = (txns.capacity() != capacity).then(|| txns.bytes());
        drop(txns);
        Some((key.device, device, bytes?))
    }
}

impl Drop for QueuedTxn {
    fn drop(&mut self) {
        if !self.is_committed {
            lock(&self.kept.queued).remove(&self.key);
        }
    }
}

/// The hash of an ID. If two IDs have the same hash, the second one costs a database lookup.
fn hash(scope: &str, txn: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (scope, txn).hash(&mut hasher);
    hasher.finish()
}

impl DeviceTxns {
    /// The number of IDs and hashes for which there is memory.
    fn capacity(&self) -> (usize, usize) {
        let hashes = self.hashes.as_ref().map_or(0, HashSet::capacity);
        (self.latest.by_txn.capacity() + self.previous.by_txn.capacity(), hashes)
    }

    /// Approximate memory that the device takes.
    fn bytes(&self) -> u64 {
        let (_, hashes) = self.capacity();
        DEVICE_BYTES + (self.latest.bytes() + self.previous.bytes() + hashes * HASH_BYTES) as u64
    }

    fn remember(&mut self, scope: Arc<str>, txn: Arc<str>, event_id: OwnedEventId) {
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
    fn add_stored(&mut self, stored: Vec<(String, String, String)>) {
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

impl TxnKey {
    pub(in crate::room) fn row(&self, event_id: &EventId, now_ms: i64) -> Row {
        rows::TxnIdColumns {
            device_nid: self.device,
            scope: Arc::clone(&self.scope),
            txn: Arc::clone(&self.txn),
            event_id: event_id.as_str().into(),
            created_at: now_ms,
        }
        .row()
    }
}

impl crate::room::Rooms {
    /// The transaction ID with which this device sent the event, if it did lately.
    pub async fn transaction_id_of(&self, device: DeviceNid, event_id: &EventId) -> Result<Option<String>, Error> {
        self.txn_ids.of_event(device, event_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event_id(number: usize) -> OwnedEventId {
        EventId::parse(format!("$event{number}")).expect("an event ID")
    }

    #[test]
    fn the_latest_requests_are_always_in_memory_and_never_many_more() {
        let mut txns = DeviceTxns::default();
        for number in 0..3 * KEPT_PER_DEVICE + 7 {
            txns.remember("send".into(), number.to_string().into(), event_id(number));
            let kept = |number: usize| {
                let id = ("send".into(), number.to_string().into());
                let by_txn = txns.latest.by_txn.get(&id).or_else(|| txns.previous.by_txn.get(&id));
                let of_event = |done: &Done| done.by_event.get(&event_id(number)).cloned();
                assert_eq!(by_txn.is_some(), of_event(&txns.latest).or_else(|| of_event(&txns.previous)).is_some());
                by_txn == Some(&event_id(number))
            };
            let oldest = (number + 1).saturating_sub(KEPT_PER_DEVICE);
            assert!(kept(oldest) && kept(number), "{number}");
            assert!(txns.latest.by_txn.len() + txns.previous.by_txn.len() <= 2 * KEPT_PER_DEVICE, "{number}");
        }
    }

    #[test]
    fn a_device_takes_more_memory_with_its_ids_and_never_more_than_a_bound() {
        let mut txns = DeviceTxns { hashes: Some(HashSet::new()), ..DeviceTxns::default() };
        assert_eq!(txns.bytes(), DEVICE_BYTES);
        let mut largest = 0;
        for number in 0..3 * KEPT_PER_DEVICE {
            txns.remember("send".into(), number.to_string().into(), event_id(number));
            largest = txns.bytes().max(largest);
        }
        assert!((100_000..1_000_000).contains(&largest), "{largest}");
    }

    #[test]
    fn a_device_with_too_many_hashes_has_none() {
        let mut txns = DeviceTxns { hashes: Some(HashSet::new()), ..DeviceTxns::default() };
        for number in 0..HASHES_PER_DEVICE {
            txns.remember("send".into(), number.to_string().into(), event_id(number));
        }
        assert!(txns.hashes.as_ref().is_some_and(|hashes| hashes.contains(&hash("send", "0"))));
        txns.remember("send".into(), "one more".into(), event_id(0));
        assert_eq!(txns.hashes, None, "from here on the database is asked");
    }

    #[test]
    fn what_is_remembered_while_a_device_is_read_stays() {
        let stored = || vec![("send".to_owned(), "old".to_owned(), "$old".to_owned())];
        let mut txns = DeviceTxns::default();
        txns.remember("send".into(), "new".into(), event_id(1));
        txns.add_stored(stored());
        for txn in ["old", "new"] {
            assert!(txns.latest.by_txn.contains_key(&("send".into(), txn.into())), "{txn}");
            assert!(txns.hashes.as_ref().is_some_and(|hashes| hashes.contains(&hash("send", txn))), "{txn}");
        }
        let mut txns = DeviceTxns::default();
        for number in 0..=KEPT_PER_DEVICE {
            txns.remember("send".into(), number.to_string().into(), event_id(number));
        }
        txns.add_stored(stored());
        assert_eq!(txns.hashes, None, "too many came for all to be known");
    }
}
