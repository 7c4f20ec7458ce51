//! Keys: what devices publish for end-to-end encryption, what they send each other, and their key backups.
//!
//! Promises: a one-time key is handed out at most once, in the order of upload, whatever crashes or races; nothing is
//! stored that was not checked first; a signature is stored only if it is valid; a message to a device that was answered
//! with 200 reaches the device at least once, and stays until the device has acknowledged it.
//!
//! Reading order: [`validate`] says what a key looks like; [`upload`], [`claim`] and [`query`] are the life of a device's
//! keys; [`cross_signing`] and [`signatures`] are a user's own keys; [`changes`] tells others that keys changed;
//! [`counts`] and [`to_device`] are what `/sync` asks for; [`backup`] keeps room keys.

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
    /// One-time keys held for a device.
    one_time_keys_per_device: usize,
    /// Messages held for a device.
    to_device_per_device: usize,
    /// Bytes of messages held for a device.
    to_device_bytes: u64,
    changes: Arc<changes::Changes>,
    counts: Arc<counts::Counts>,
    inboxes: Arc<to_device::Inboxes>,
    /// Whoever makes room in an inbox. It lives across commits.
    overflow: tokio::sync::Mutex<()>,
    /// Whoever uploads keys, or changes a backup: what they write depends on what they have read before.
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

    /// A change of the user's device list: its rows are to be stored with what changed. `rooms` are those that the user
    /// has joined.
    pub fn device_change(&self, user: UserNid, rooms: Vec<RoomNid>) -> DeviceChange {
        DeviceChange::new(Arc::clone(&self.changes), user, rooms)
    }

    /// Hears of changes of device lists that come from accounts: devices that end or get another name. `prepare` brings
    /// the user's rooms into memory, and `mark_rooms` marks those who share one of them.
    pub fn device_change_listener(
        &self,
        prepare: impl Fn(UserNid) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> + Send + Sync + 'static,
        mark_rooms: impl Fn(UserNid, Position) + Send + Sync + 'static,
    ) -> DeviceChangeListener {
        let changes = Arc::clone(&self.changes);
        DeviceChangeListener {
            prepare: Box::new(prepare),
            committed: Box::new(move |user, position| {
                changes.add(position, &[user]);
                mark_rooms(user, position);
            }),
        }
    }

    fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.server_name
    }
}
