//! Lazy loading: a client is sent the members whose events it sees, each once ([spec]).
//!
//! A member counts as sent only once the client returns with the token of that answer, so a lost answer is repeated
//! whole.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#lazy-loading-room-members

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::{
    memory::{
        budget::{Budget, Part},
        growing::GrowingCache,
    },
    store::{DeviceNid, EventNid, KeyNid, Position, RoomNid, ids::lock},
};

/// The memory of a pair of device and room without members, and of each member, in bytes. For pairs that do not fit into
/// the budget, members are sent again.
const PAIR_BYTES: u64 = 160;
const MEMBER_BYTES: u64 = 36;

/// The number of members cached for each pair.
const MEMBERS: usize = 2_000;

type Sent = HashMap<KeyNid, (EventNid, Position)>;

/// The members that each device knows.
pub struct LazyMembers {
    sent: Arc<GrowingCache<(DeviceNid, RoomNid), Mutex<Sent>>>,
}

impl LazyMembers {
    pub fn new(budget: &Budget) -> Self {
        Self { sent: budget.growing_cache(Part::LazyMembers) }
    }

    /// Returns whether the device, which has everything up to `since`, has this event for the key.
    pub fn knows(&self, device: DeviceNid, room: RoomNid, key: KeyNid, event: EventNid, since: Position) -> bool {
        let Some(sent) = self.sent.get(&(device, room)) else { return false };
        let sent = lock(&sent);
        sent.get(&key).is_some_and(|(known, sent_at)| *known == event && *sent_at <= since)
    }

    /// Records that the device is sent this event for the key, in an answer that ends at `upto`.
    pub fn send(&self, device: DeviceNid, room: RoomNid, key: KeyNid, event: EventNid, upto: Position) {
        let held = self.sent.get_or_default(&(device, room), PAIR_BYTES);
        let mut sent = lock(&held);
        let before = sent.capacity();
        if sent.len() >= MEMBERS {
            sent.clear();
        }
        sent.insert(key, (event, upto));
        let after = sent.capacity();
        drop(sent);
        if after != before {
            self.sent.has_grown(&(device, room), &held, PAIR_BYTES + after as u64 * MEMBER_BYTES);
        }
    }

    /// Records that the device has returned with the token of `since`, so no answer after it has arrived.
    pub fn rewind(&self, device: DeviceNid, room: RoomNid, since: Position) {
        if let Some(sent) = self.sent.get(&(device, room)) {
            // This also keeps a lost answer from counting once the device is past the end of that answer.
            lock(&sent).retain(|_, (_, sent_at)| *sent_at <= since);
        }
    }

    /// Forgets everything that was sent, because the device starts over.
    pub fn forget(&self, device: DeviceNid, room: RoomNid) {
        self.sent.remove(&(device, room));
    }
}
