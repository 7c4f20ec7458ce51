//! Keys: the keys that devices publish for end-to-end encryption, the messages that they send each other, and their key
//! backups.
//!
//! Promises:
//!
//! - A one-time key is handed out at most once, in the order of upload, also when the server crashes or requests race.
//! - Nothing is stored before it was checked. A signature is stored only if it is valid.
//! - A message to a device that was answered with 200 reaches the device at least once. It stays until the device has
//!   acknowledged it.
//!
//! Reading order: [`validate`] checks what a key looks like. [`upload`], [`claim`] and [`query`] are the life of a
//! device's keys. [`cross_signing`] and [`signatures`] are a user's own keys. [`changes`] notifies others of changed
//! keys. `/sync` asks [`counts`] and [`to_device`]. [`backup`] stores room keys.

pub mod validate;

pub mod upload;

pub mod claim;

pub mod query;

pub mod cross_signing;

pub mod signatures;

pub mod changes;

pub mod counts;

pub mod to_device;

pub mod backup;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{OwnedServerName, OwnedUserId, UserId};

pub use self::{changes::SharedRooms, counts::KeyCounts};
use crate::{
    account::turns::Turns,
    clock::Clock,
    config::Config,
    memory::budget::Budget,
    store::{
        Database, Error, Position, UserNid,
        log::{LogEntry, Memory, Touch},
        vocabulary::User,
    },
};

/// The service of keys and to-device messages.
pub struct Keys {
    db: Arc<Database>,
    clock: Clock,
    server_name: OwnedServerName,
    /// The limit on one-time keys of a device.
    one_time_keys_per_device: usize,
    /// The limit on messages waiting for a device.
    to_device_per_device: usize,
    /// The limit on bytes of messages waiting for a device.
    to_device_bytes: u64,
    /// The limit on bytes of the keys in one answer.
    queried_bytes: usize,
    memory: Arc<KeysMemory>,
    /// Held by the request that evicts messages from a full inbox, also across commits.
    overflow: tokio::sync::Mutex<()>,
    /// Locks for uploads of keys and changes of backups: their writes depend on what they have read before.
    turns: Turns,
}

/// The part of the service in memory, which follows the commits.
struct KeysMemory {
    changes: changes::Changes,
    counts: counts::Counts,
    inboxes: to_device::Inboxes,
}

impl KeysMemory {
    /// Empty memory, which follows the commits after `started_at`.
    fn new(started_at: Position, budget: &Budget) -> Self {
        let changes = changes::Changes::new(started_at);
        Self { changes, counts: counts::Counts::new(started_at, budget), inboxes: to_device::Inboxes::new(budget) }
    }
}

impl Memory for KeysMemory {
    fn apply(&self, entry: &LogEntry) {
        for (at, touch) in &entry.touches {
            match *touch {
                Touch::DeviceList { user } => self.changes.add(*at, user),
                Touch::KeyCounts { device, .. } => self.counts.changed(device, *at),
                Touch::ToDevice { device, messages, bytes, .. } => self.inboxes.added(device, *at, (messages, bytes)),
                Touch::ToDeviceGone { device, upto, messages, bytes } => {
                    self.inboxes.removed(device, (*at, upto), (messages, bytes));
                }
                _ => {}
            }
        }
    }

    /// Evicts the inboxes, whose numbers only the process that writes keeps up to date.
    fn follow(&self, entry: &LogEntry) {
        for (at, touch) in &entry.touches {
            match *touch {
                Touch::DeviceList { user } => self.changes.add(*at, user),
                Touch::KeyCounts { device, .. } => self.counts.changed(device, *at),
                Touch::ToDevice { device, .. } => self.inboxes.evict(device),
                Touch::ToDeviceGone { device, upto, .. } => self.inboxes.removed_elsewhere(device, upto),
                _ => {}
            }
        }
    }

    fn forget(&self, upto: Position) {
        self.changes.restart(upto);
        self.counts.restart(upto);
        self.inboxes.evict_all();
    }
}

impl Keys {
    pub fn new(db: Arc<Database>, clock: Clock, config: &Config, budget: &Budget) -> Self {
        let memory = Arc::new(KeysMemory::new(db.committer().published(), budget));
        db.committer().remember(Arc::<KeysMemory>::clone(&memory));
        Self {
            memory,
            overflow: tokio::sync::Mutex::default(),
            turns: Turns::default(),
            db,
            clock,
            server_name: config.server_name.clone(),
            one_time_keys_per_device: config.limits.one_time_keys_per_device as usize,
            to_device_per_device: config.limits.to_device_per_device as usize,
            to_device_bytes: to_device::MAX_INBOX_BYTES,
            queried_bytes: query::MAX_QUERIED_BYTES,
        }
    }

    /// The local users among these, by their short ids. Unknown ones are left out.
    async fn find_local<'a>(
        &self,
        user_ids: impl Iterator<Item = &'a OwnedUserId>,
    ) -> Result<HashMap<UserNid, Arc<User>>, Error> {
        let users = self.db.find_users(user_ids.filter(|user_id| self.is_local(user_id))).await?;
        Ok(users.into_iter().map(|user| (user.nid, user)).collect())
    }

    /// The servers of the users who are not local.
    fn other_servers<'a>(&self, user_ids: impl Iterator<Item = &'a OwnedUserId>) -> BTreeSet<OwnedServerName> {
        let mut servers = BTreeSet::new();
        for user_id in user_ids.filter(|user_id| !self.is_local(user_id)) {
            if !servers.contains(user_id.server_name()) {
                servers.insert(user_id.server_name().to_owned());
            }
        }
        servers
    }

    fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.server_name
    }
}
