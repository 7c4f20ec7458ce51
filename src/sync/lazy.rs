//! Lazy loading: a client is sent the members whose events it sees, each once ([spec]).
//!
//! What was sent counts only when the client comes back with the token of that answer, so a lost answer is repeated whole.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use quick_cache::sync::Cache;

use crate::store::{DeviceNid, EventNid, KeyNid, Position, RoomNid, ids::lock};

/// For how many pairs of device and room it is remembered what was sent. For the others members are sent again.
const REMEMBERED: usize = 50_000;

/// How many members are remembered for each of them.
const MEMBERS: usize = 2_000;

type Sent = HashMap<KeyNid, (EventNid, Position)>;

/// Which members each device knows.
pub struct LazyMembers {
    sent: Cache<(DeviceNid, RoomNid), Arc<Mutex<Sent>>>,
}

impl Default for LazyMembers {
    fn default() -> Self {
        Self { sent: Cache::new(REMEMBERED) }
    }
}

impl LazyMembers {
    /// Whether the device, which has everything up to `since`, has this event for the key.
    pub fn knows(&self, device: DeviceNid, room: RoomNid, key: KeyNid, event: EventNid, since: Position) -> bool {
        let Some(sent) = self.sent.get(&(device, room)) else { return false };
        let sent = lock(&sent);
        sent.get(&key).is_some_and(|(known, sent_at)| *known == event && *sent_at <= since)
    }

    /// The device is sent this event for the key, in an answer that ends at `upto`.
    pub fn send(&self, device: DeviceNid, room: RoomNid, key: KeyNid, event: EventNid, upto: Position) {
        let made = self.sent.get_or_insert_with(&(device, room), || Ok::<_, std::convert::Infallible>(Arc::default()));
        let Ok(sent) = made;
        let mut sent = lock(&sent);
        if sent.len() >= MEMBERS {
            sent.clear();
        }
        sent.insert(key, (event, upto));
    }

    /// The device has come back with the token of `since`: of answers after it, none has arrived.
    pub fn rewind(&self, device: DeviceNid, room: RoomNid, since: Position) {
        if let Some(sent) = self.sent.get(&(device, room)) {
            // Also so that a lost answer does not count once the device is past the place where that one ended.
            lock(&sent).retain(|_, (_, sent_at)| *sent_at <= since);
        }
    }

    /// The device starts afresh.
    pub fn forget(&self, device: DeviceNid, room: RoomNid) {
        self.sent.remove(&(device, room));
    }
}
