//! Transaction IDs: a request that is repeated is not done twice.
//!
//! Of a device's latest requests it is in memory what they did; of all others, loaded once, a hash of the ID, so that a new
//! ID is known to be new without asking the database. The row that remembers an ID is committed together with what the
//! request did.
//!
//! Promise: an ID is found from the moment when its event is queued, whatever the cache has dropped or loads meanwhile. On
//! its way to the database an ID is in a map of its own; when it is committed it moves, in one step, to its device in the
//! cache, if that is there. A device comes into the cache before its IDs are read, so none falls between the two.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    hash::{Hash as _, Hasher as _},
    sync::{Arc, Mutex},
};

use quick_cache::sync::Cache;
use ruma::{EventId, OwnedEventId};
use tokio::sync::OnceCell;

use crate::store::{Database, DeviceNid, Error, Row, ids::lock, rooms as rows};

/// Of how many requests of a device, and at most twice as many, it is in memory what they did. A client repeats only what it has just sent.
const KEPT_PER_DEVICE: usize = 512;

/// How many hashes of a device are kept in memory, eight bytes each: more than a thousand requests a day for a week. A device
/// that sends more pays a look into the database for each.
const HASHES_PER_DEVICE: usize = 8_192;

/// How many devices' IDs are kept in memory: a few hundred MB if every one of them sends without a pause.
const KEPT_DEVICES: usize = 2_000;

/// What a request is remembered by. The scope is its endpoint with all path parameters but the ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TxnKey {
    pub device: DeviceNid,
    pub scope: String,
    pub txn: String,
}

/// What some requests did.
#[derive(Debug, Default)]
struct Done {
    by_txn: HashMap<(String, String), OwnedEventId>,
    by_event: HashMap<OwnedEventId, String>,
}

#[derive(Debug, Default)]
struct DeviceTxns {
    latest: Done,
    /// Those before. Forgotten when `latest` is full, so the last [`KEPT_PER_DEVICE`] are always there.
    previous: Done,
    /// Hashes of all IDs in the database, unless there are too many.
    hashes: Option<HashSet<u64>>,
}

/// A device in the cache. What is committed while its IDs are being read is remembered as well.
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
    devices: Cache<DeviceNid, Arc<Device>>,
    /// What is on its way to the database, where nobody would find it. As many as there are writes in the queue.
    queued: Mutex<HashMap<TxnKey, OwnedEventId>>,
}

/// An ID on its way to the database. Dropped without [`Self::committed`], it is forgotten: its event was not stored.
pub(super) struct QueuedTxn {
    kept: Arc<Kept>,
    key: TxnKey,
    is_committed: bool,
}

impl TransactionIds {
    pub(super) fn new(db: Arc<Database>) -> Self {
        Self { db, kept: Arc::new(Kept { devices: Cache::new(KEPT_DEVICES), queued: Mutex::default() }) }
    }

    async fn device(&self, nid: DeviceNid) -> Result<Arc<Device>, Error> {
        let Ok(device) = self.kept.devices.get_or_insert_with(&nid, || Ok::<_, Infallible>(Arc::default()));
        // Asked for every event that is shown to its sender: making the future below would copy all of it each time.
        if device.loaded.initialized() {
            return Ok(device);
        }
        let load = async {
            let mut reader = self.db.read().await?;
            let rows = rows::recent_txn_ids(&mut reader.conn(), nid, HASHES_PER_DEVICE).await?;
            lock(&device.txns).add_stored(rows);
            Ok::<_, Error>(())
        };
        device.loaded.get_or_try_init(|| Box::pin(load)).await?;
        Ok(device)
    }

    /// What the request with this key did. It may be on its way to the database yet, and never arrive there.
    pub(super) async fn find(&self, key: &TxnKey) -> Result<Option<OwnedEventId>, Error> {
        let device = self.device(key.device).await?;
        // In this order: an ID goes from here to its device.
        let queued = lock(&self.kept.queued).get(key).cloned();
        if queued.is_some() {
            return Ok(queued);
        }
        {
            let txns = lock(&device.txns);
            let id = (key.scope.clone(), key.txn.clone());
            if let Some(event_id) = txns.latest.by_txn.get(&id).or_else(|| txns.previous.by_txn.get(&id)) {
                return Ok(Some(event_id.clone()));
            }
            // A device that has left the cache meanwhile does not know what was committed since.
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

    /// Remembers what is about to be committed.
    pub(super) fn queue(&self, key: TxnKey, event_id: &EventId) -> QueuedTxn {
        lock(&self.kept.queued).insert(key.clone(), event_id.to_owned());
        QueuedTxn { kept: Arc::clone(&self.kept), key, is_committed: false }
    }

    /// Makes the cache empty, as when too many devices are active.
    #[cfg(test)]
    pub(super) fn drop_devices(&self) {
        self.kept.devices.clear();
    }

    /// The transaction ID with which this device sent the event, if it did lately.
    pub(crate) async fn of_event(&self, device: DeviceNid, event_id: &EventId) -> Result<Option<String>, Error> {
        let device = self.device(device).await?;
        let txns = lock(&device.txns);
        Ok(txns.latest.by_event.get(event_id).or_else(|| txns.previous.by_event.get(event_id)).cloned())
    }
}

impl QueuedTxn {
    /// The row is in the database.
    pub(super) fn committed(mut self) {
        self.is_committed = true;
        // Held to the end, so that whoever does not find the ID here any more finds it with its device.
        let mut queued = lock(&self.kept.queued);
        if let Some((key, event_id)) = queued.remove_entry(&self.key)
            && let Some(device) = self.kept.devices.get(&key.device)
        {
            lock(&device.txns).remember(key.scope, key.txn, event_id);
        }
    }
}

impl Drop for QueuedTxn {
    fn drop(&mut self) {
        if !self.is_committed {
            lock(&self.kept.queued).remove(&self.key);
        }
    }
}

/// Of two IDs with the same hash, the second costs a look into the database.
fn hash(scope: &str, txn: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (scope, txn).hash(&mut hasher);
    hasher.finish()
}

impl DeviceTxns {
    fn remember(&mut self, scope: String, txn: String, event_id: OwnedEventId) {
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
        self.latest.by_event.insert(event_id.clone(), txn.clone());
        self.latest.by_txn.insert((scope, txn), event_id);
    }

    /// Adds what was read from the database, newest first, to what was remembered while it was read.
    fn add_stored(&mut self, stored: Vec<(String, String, String)>) {
        // Those that were dropped meanwhile may be in no hash: then the database is asked.
        let is_all = stored.len() < HASHES_PER_DEVICE && self.previous.by_txn.is_empty();
        let mut hashes: HashSet<u64> = stored.iter().map(|(scope, txn, _)| hash(scope, txn)).collect();
        hashes.extend(self.latest.by_txn.keys().map(|(scope, txn)| hash(scope, txn)));
        self.hashes = is_all.then_some(hashes);
        for (scope, txn, event_id) in stored.into_iter().take(KEPT_PER_DEVICE / 2) {
            if let Ok(event_id) = EventId::parse(&event_id) {
                self.remember(scope, txn, event_id);
            }
        }
    }
}

impl TxnKey {
    pub(super) fn row(&self, event_id: &EventId, now_ms: i64) -> Row {
        rows::TXN_ID.row([
            self.device.into(),
            self.scope.as_str().into(),
            self.txn.as_str().into(),
            event_id.as_str().into(),
            now_ms.into(),
        ])
    }
}

impl super::Rooms {
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
            txns.remember("send".to_owned(), number.to_string(), event_id(number));
            let kept = |number: usize| {
                let id = ("send".to_owned(), number.to_string());
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
    fn a_device_with_too_many_hashes_has_none() {
        let mut txns = DeviceTxns { hashes: Some(HashSet::new()), ..DeviceTxns::default() };
        for number in 0..HASHES_PER_DEVICE {
            txns.remember("send".to_owned(), number.to_string(), event_id(number));
        }
        assert!(txns.hashes.as_ref().is_some_and(|hashes| hashes.contains(&hash("send", "0"))));
        txns.remember("send".to_owned(), "one more".to_owned(), event_id(0));
        assert_eq!(txns.hashes, None, "from here on the database is asked");
    }

    #[test]
    fn what_is_remembered_while_a_device_is_read_stays() {
        let stored = || vec![("send".to_owned(), "old".to_owned(), "$old".to_owned())];
        let mut txns = DeviceTxns::default();
        txns.remember("send".to_owned(), "new".to_owned(), event_id(1));
        txns.add_stored(stored());
        for txn in ["old", "new"] {
            assert!(txns.latest.by_txn.contains_key(&("send".to_owned(), txn.to_owned())), "{txn}");
            assert!(txns.hashes.as_ref().is_some_and(|hashes| hashes.contains(&hash("send", txn))), "{txn}");
        }
        let mut txns = DeviceTxns::default();
        for number in 0..=KEPT_PER_DEVICE {
            txns.remember("send".to_owned(), number.to_string(), event_id(number));
        }
        txns.add_stored(stored());
        assert_eq!(txns.hashes, None, "too many came for all to be known");
    }
}
