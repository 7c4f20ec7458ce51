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

use std::{pin::Pin, sync::Arc};

use ruma::{OwnedServerName, UserId};

pub use self::{
    changes::{DeviceChange, SharedRooms},
    counts::KeyCounts,
};
use crate::{
    account::{devices::DeviceChangeListener, turns::Turns},
    bus::Bus,
    clock::Clock,
    config::Config,
    store::{Database, Error, Position, RoomNid, UserNid},
};

/// The service of keys and to-device messages.
pub struct Keys {
    db: Arc<Database>,
    bus: Arc<Bus>,
    clock: Clock,
    server_name: OwnedServerName,
    /// The limit on one-time keys of a device.
    one_time_keys_per_device: usize,
    /// The limit on messages waiting for a device.
    to_device_per_device: usize,
    /// The limit on bytes of messages waiting for a device.
    to_device_bytes: u64,
    changes: Arc<changes::Changes>,
    counts: Arc<counts::Counts>,
    inboxes: Arc<to_device::Inboxes>,
    /// Held by the request that evicts messages from a full inbox, also across commits.
    overflow: tokio::sync::Mutex<()>,
    /// Locks for uploads of keys and changes of backups: their writes depend on what they have read before.
    turns: Turns,
}

impl Keys {
    pub fn new(db: Arc<Database>, bus: Arc<Bus>, clock: Clock, config: &Config) -> Self {
        let published = db.committer().published();
        Self {
            changes: Arc::new(changes::Changes::new(Arc::clone(&bus), published)),
            counts: Arc::default(),
            inboxes: Arc::default(),
            overflow: tokio::sync::Mutex::default(),
            turns: Turns::default(),
            db,
            bus,
            clock,
            server_name: config.server_name.clone(),
            one_time_keys_per_device: config.limits.one_time_keys_per_device as usize,
            to_device_per_device: config.limits.to_device_per_device as usize,
            to_device_bytes: to_device::MAX_INBOX_BYTES,
        }
    }

    /// A change of the user's device list. Its rows must be stored with what changed. `rooms` are the user's joined
    /// rooms.
    pub fn device_change(&self, user: UserNid, rooms: Vec<RoomNid>) -> DeviceChange {
        DeviceChange::new(Arc::clone(&self.changes), user, rooms)
    }

    /// The listener for changes of device lists that come from accounts: devices that are deleted or renamed. `prepare`
    /// loads the user's rooms into memory. `mark_members` marks the users who share one of them.
    pub fn device_change_listener(
        &self,
        prepare: impl Fn(UserNid) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> + Send + Sync + 'static,
        mark_members: impl Fn(UserNid, Position) + Send + Sync + 'static,
    ) -> DeviceChangeListener {
        let changes = Arc::clone(&self.changes);
        DeviceChangeListener {
            prepare: Box::new(prepare),
            committed: Box::new(move |user, position| {
                changes.add(position, &[user]);
                mark_members(user, position);
            }),
        }
    }

    fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.server_name
    }
}
