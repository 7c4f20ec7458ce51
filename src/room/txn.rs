//! Transaction IDs: a request that is repeated is not done twice.
//!
//! The IDs of a device's latest requests are in memory, loaded once; older ones are looked up. The row that remembers an
//! ID is committed together with what the request did.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use quick_cache::sync::Cache;
use ruma::{EventId, OwnedEventId};

use crate::store::{Database, DeviceNid, Error, Row, ids::lock, rooms as rows};

/// How many IDs of a device are kept in memory. A client repeats only what it has just sent.
const KEPT_PER_DEVICE: usize = 512;

/// How many devices' IDs are kept in memory.
const KEPT_DEVICES: usize = 20_000;

/// What a request is remembered by. The scope is its endpoint with all path parameters but the ID.
#[derive(Debug, Clone)]
pub struct TxnKey {
    pub device: DeviceNid,
    pub scope: String,
    pub txn: String,
}

#[derive(Debug, Default)]
struct DeviceTxns {
    by_txn: HashMap<(String, String), OwnedEventId>,
    by_event: HashMap<OwnedEventId, String>,
    /// Whether there are older IDs in the database.
    older: bool,
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
            let rows = rows::recent_txn_ids(&mut reader.conn(), device, KEPT_PER_DEVICE).await?;
            let mut txns = DeviceTxns { older: rows.len() == KEPT_PER_DEVICE, ..DeviceTxns::default() };
            for (scope, txn, event_id) in rows {
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
            if let Some(event_id) = txns.by_txn.get(&(key.scope.clone(), key.txn.clone())) {
                return Ok(Some(event_id.clone()));
            }
            if !txns.older {
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
            let mut txns = lock(&device);
            if txns.by_txn.len() >= KEPT_PER_DEVICE {
                // All at once: a client that still repeats one of these is answered from the database.
                *txns = DeviceTxns { older: true, ..DeviceTxns::default() };
            }
            txns.remember(key.scope.clone(), key.txn.clone(), event_id.to_owned());
        }
    }

    /// Forgets what was not committed after all.
    pub(super) fn forget(&self, key: &TxnKey) {
        self.devices.remove(&key.device);
    }

    /// The transaction ID with which this device sent the event, if it did lately.
    pub(crate) async fn of_event(&self, device: DeviceNid, event_id: &EventId) -> Result<Option<String>, Error> {
        let device = self.device(device).await?;
        let txn = lock(&device).by_event.get(event_id).cloned();
        Ok(txn)
    }
}

impl DeviceTxns {
    fn remember(&mut self, scope: String, txn: String, event_id: OwnedEventId) {
        self.by_event.insert(event_id.clone(), txn.clone());
        self.by_txn.insert((scope, txn), event_id);
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
