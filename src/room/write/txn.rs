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

mod device;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use ruma::{EventId, OwnedEventId};

use self::device::{DEVICE_BYTES, Device, HASHES_PER_DEVICE, hash};
use crate::{
    memory::{
        budget::{Budget, Part},
        growing::GrowingCache,
    },
    store::{Database, DeviceNid, Error, Row, ids::lock, txn_ids as rows},
};

/// The key by which a request is remembered. The scope is its endpoint with all path parameters but the ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TxnKey {
    pub device: DeviceNid,
    pub scope: Arc<str>,
    pub txn: Arc<str>,
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
