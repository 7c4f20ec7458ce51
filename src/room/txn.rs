//! Transaction IDs: a request that is repeated is not done twice.
//!
//! Of a device's latest requests it is in memory what they did; of all others, loaded once, a hash of the ID, so that a new
//! ID is known to be new without asking the database. The row that remembers an ID is committed together with what the
//! request did.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash as _, Hasher as _},
    sync::{Arc, Mutex},
};

use quick_cache::sync::Cache;
use ruma::{EventId, OwnedEventId};

use crate::store::{Database, DeviceNid, Error, Row, ids::lock, rooms as rows};

/// Of how many requests of a device, and at most twice as many, it is in memory what they did. A client repeats only what it has just sent.
const KEPT_PER_DEVICE: usize = 512;

/// How many hashes of a device are kept in memory, eight bytes each: more than a thousand requests a day for a week. A device
/// that sends more pays a look into the database for each.
const HASHES_PER_DEVICE: usize = 8_192;

/// How many devices' IDs are kept in memory: a few hundred MB if every one of them sends without a pause.
const KEPT_DEVICES: usize = 2_000;

/// What a request is remembered by. The scope is its endpoint with all path parameters but the ID.
#[derive(Debug, Clone)]
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
    /// Those before. Forgotten when `latest` is full, so the last [`KEPT_PER_DEVICE`] are always there: also those on
    /// their way to the database, where nobody would find them.
    previous: Done,
    /// Hashes of all IDs in the database, unless there are too many.
    hashes: Option<HashSet<u64>>,
}

pub(crate) struct TransactionIds {
    db: Arc<Database>,
    devices: Cache<DeviceNid, Arc<Mutex<DeviceTxns>>>,
}

impl TransactionIds {
    pub(super) fn new(db: Arc<Database>) -> Self {
        Self { db, devices: Cache::new(KEPT_DEVICES) }
    }

    async fn device(&self, device: DeviceNid) -> Result<Arc<Mutex<DeviceTxns>>, Error> {
        let load = async {
            let mut reader = self.db.read().await?;
            let rows = rows::recent_txn_ids(&mut reader.conn(), device, HASHES_PER_DEVICE).await?;
            let hashes = rows.iter().map(|(scope, txn, _)| hash(scope, txn)).collect();
            let all = rows.len() < HASHES_PER_DEVICE;
            let mut txns = DeviceTxns { hashes: all.then_some(hashes), ..DeviceTxns::default() };
            for (scope, txn, event_id) in rows.into_iter().take(KEPT_PER_DEVICE / 2) {
                if let Ok(event_id) = EventId::parse(&event_id) {
                    txns.remember(scope, txn, event_id);
                }
            }
            Ok(Arc::new(Mutex::new(txns)))
        };
        self.devices.get_or_insert_async(&device, load).await
    }

    /// What the request with this key did.
    pub(super) async fn find(&self, key: &TxnKey) -> Result<Option<OwnedEventId>, Error> {
        let device = self.device(key.device).await?;
        {
            let txns = lock(&device);
            let id = (key.scope.clone(), key.txn.clone());
            if let Some(event_id) = txns.latest.by_txn.get(&id).or_else(|| txns.previous.by_txn.get(&id)) {
                return Ok(Some(event_id.clone()));
            }
            if txns.hashes.as_ref().is_some_and(|hashes| !hashes.contains(&hash(&key.scope, &key.txn))) {
                return Ok(None);
            }
        }
        let mut reader = self.db.read().await?;
        let found = rows::find_txn_id(&mut reader.conn(), key.device, &key.scope, &key.txn).await?;
        found.map(|event_id| EventId::parse(&event_id).map_err(|error| Error::damaged("event ID", error))).transpose()
    }

    /// Remembers what is about to be committed.
    pub(super) fn remember(&self, key: &TxnKey, event_id: &EventId) {
        if let Some(device) = self.devices.get(&key.device) {
            lock(&device).remember(key.scope.clone(), key.txn.clone(), event_id.to_owned());
        }
    }

    /// Forgets what was not committed after all.
    pub(super) fn forget(&self, key: &TxnKey) {
        self.devices.remove(&key.device);
    }

    /// The transaction ID with which this device sent the event, if it did lately.
    pub(crate) async fn of_event(&self, device: DeviceNid, event_id: &EventId) -> Result<Option<String>, Error> {
        let device = self.device(device).await?;
        let txns = lock(&device);
        Ok(txns.latest.by_event.get(event_id).or_else(|| txns.previous.by_event.get(event_id)).cloned())
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
}
