//! Messages from device to device.
//!
//! Promise: a message that was answered with 200 stays until its device presents a later sync token ([`acknowledged`]),
//! and is not delivered after that. A repeated transaction ID sends nothing again. A device that never fetches its
//! messages loses old ones when it has more than `limits.to_device_per_device` or [`MAX_INBOX_BYTES`]: those of the
//! senders with the most waiting messages ([`overflow`]). A full inbox never refuses a new message, because that would
//! stop a message to a whole room.
//!
//! Sending is in [`send`]. This module delivers and deletes the waiting messages.

mod acknowledged;
mod overflow;
mod send;

use std::{collections::HashMap, sync::Mutex};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use self::acknowledged::Acknowledged;
pub use self::send::{MAX_MESSAGE_BYTES, MAX_MESSAGES, MAX_NAME_BYTES, SendToDeviceError};
use super::Keys;
use crate::store::{
    DeviceNid, Error, Position,
    ids::lock,
    to_device::{self, MessageRow},
};

/// Maximum bytes of waiting messages of a device. A message counts fully for each device, although several devices
/// share one body. A room key takes one or two kilobytes, so this lasts for a long holiday in busy rooms.
pub const MAX_INBOX_BYTES: u64 = 32 * 1024 * 1024;

/// Maximum bytes of messages in one answer; the rest follows in the next one. An answer has at least one message.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// Messages deleted in one commit. Other writers wait for it.
const DELETED_PER_COMMIT: usize = 500;

/// The bounds of a device's waiting messages, as known in memory. They are never too low, but not always exact.
#[derive(Debug, Clone, Copy)]
pub(in crate::keys) struct Inbox {
    /// No message is before this one.
    oldest: Position,
    /// No message is after this one.
    pub(in crate::keys) newest: Position,
    /// At most this many messages wait.
    pub(in crate::keys) count: u64,
    /// At most this many bytes wait.
    pub(in crate::keys) bytes: u64,
}

const EMPTY: Inbox = Inbox { oldest: Position(i64::MAX), newest: Position::BEFORE_ALL, count: 0, bytes: 0 };

/// Maximum number of cached inboxes. When it is reached we clear the cache, which costs each device one query.
const MAX_CACHED: usize = 100_000;

#[derive(Debug, Clone, Copy)]
enum CachedInbox {
    /// A query is running. A change meanwhile makes its result outdated.
    Loading(u64),
    Known(Inbox),
}

/// The cached inboxes. The lock is held for single look-ups.
///
/// Every commit updates the cached inboxes, and removes those that are being loaded. So a cached inbox is never behind
/// the database. One that is not cached is read again.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    entries: Mutex<CachedInboxes>,
    acknowledged: Acknowledged,
}

#[derive(Debug, Default)]
struct CachedInboxes {
    by_device: HashMap<DeviceNid, CachedInbox>,
    loads: u64,
}

impl Inboxes {
    /// The cached inbox.
    fn find(&self, device: DeviceNid) -> Option<Inbox> {
        match lock(&self.entries).by_device.get(&device) {
            Some(CachedInbox::Known(inbox)) => Some(*inbox),
            Some(CachedInbox::Loading(_)) | None => None,
        }
    }

    /// The cached inbox, or else a number under which the caller may store the inbox that it reads.
    fn find_or_load(&self, device: DeviceNid) -> Result<Inbox, u64> {
        let mut entries = lock(&self.entries);
        if let Some(CachedInbox::Known(inbox)) = entries.by_device.get(&device) {
            return Ok(*inbox);
        }
        if entries.by_device.len() >= MAX_CACHED {
            entries.by_device.clear();
        }
        entries.loads += 1;
        let load = entries.loads;
        entries.by_device.insert(device, CachedInbox::Loading(load));
        Err(load)
    }

    fn loaded(&self, device: DeviceNid, load: u64, inbox: Inbox) {
        if let Some(entry) = lock(&self.entries).by_device.get_mut(&device)
            && matches!(entry, CachedInbox::Loading(number) if *number == load)
        {
            *entry = CachedInbox::Known(inbox);
        }
    }

    /// Adds a message, or several of one position, to the cached inbox.
    pub(super) fn added(&self, device: DeviceNid, at: Position, (messages, bytes): (u32, u32)) {
        self.update(device, |inbox| {
            inbox.oldest = inbox.oldest.min(at);
            inbox.newest = inbox.newest.max(at);
            inbox.count += u64::from(messages);
            inbox.bytes += u64::from(bytes);
        });
    }

    /// Removes messages from the cached inbox. None is left up to `upto`.
    pub(super) fn removed(&self, device: DeviceNid, upto: Position, (messages, bytes): (u32, u32)) {
        self.update(device, |inbox| {
            if inbox.newest <= upto {
                *inbox = EMPTY;
            } else {
                inbox.oldest = inbox.oldest.max(Position(upto.0 + 1));
                inbox.count = inbox.count.saturating_sub(u64::from(messages));
                inbox.bytes = inbox.bytes.saturating_sub(u64::from(bytes));
            }
        });
        self.acknowledged.deleted(device, upto);
    }

    /// Evicts the inbox of a device, or keeps the one that is being loaded from being cached.
    pub(super) fn evict(&self, device: DeviceNid) {
        lock(&self.entries).by_device.remove(&device);
    }

    pub(super) fn evict_all(&self) {
        lock(&self.entries).by_device.clear();
    }

    /// Evicts the inbox of a device from which another process has deleted. No message is left up to `upto`.
    pub(super) fn removed_elsewhere(&self, device: DeviceNid, upto: Position) {
        self.evict(device);
        self.acknowledged.deleted(device, upto);
    }

    fn update(&self, device: DeviceNid, update: impl FnOnce(&mut Inbox)) {
        let mut entries = lock(&self.entries);
        match entries.by_device.get_mut(&device) {
            Some(CachedInbox::Known(inbox)) => update(inbox),
            Some(CachedInbox::Loading(_)) => _ = entries.by_device.remove(&device),
            None => {}
        }
    }
}

#[derive(Serialize)]
struct Event<'a> {
    sender: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    content: &'a RawValue,
}

impl Keys {
    /// The bounds of the device's waiting messages; read from the database when not cached.
    pub(in crate::keys) async fn inbox(&self, device: DeviceNid) -> Result<Inbox, Error> {
        let load = match self.memory.inboxes.find_or_load(device) {
            Ok(inbox) => return Ok(inbox),
            Err(load) => load,
        };
        let waiting = to_device::waiting(&mut self.db.read().await?.conn(), device).await?;
        let inbox = Inbox {
            oldest: waiting.oldest.unwrap_or(EMPTY.oldest),
            newest: waiting.newest.unwrap_or(EMPTY.newest),
            count: waiting.messages,
            bytes: waiting.bytes,
        };
        self.memory.inboxes.loaded(device, load, inbox);
        Ok(inbox)
    }

    /// Returns whether no message waits that the device has not acknowledged, as far as memory knows. `since` is the
    /// position up to which it has its messages.
    pub fn has_no_messages(&self, device: DeviceNid, since: Position) -> bool {
        let inboxes = &self.memory.inboxes;
        let is_told = |inbox: Inbox| {
            inbox.newest <= since || inboxes.acknowledged.find(device).is_some_and(|upto| inbox.newest <= upto)
        };
        inboxes.find(device).is_some_and(is_told)
    }

    /// The messages for the device in (`since`, `upto`], oldest first, as complete events, at most about `limit`. The
    /// second value is the position up to which the list is complete: `upto`, or an earlier one if there are more.
    /// Needs no query while no messages wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn to_device_messages(
        &self,
        device: DeviceNid,
        since: Position,
        upto: Position,
        limit: usize,
    ) -> Result<(Vec<Box<RawValue>>, Position), Error> {
        // An earlier request has acknowledged these, so they count as deleted.
        let since = self.memory.inboxes.acknowledged.find(device).map_or(since, |acknowledged| acknowledged.max(since));
        if self.inbox(device).await?.newest <= since {
            return Ok((Vec::new(), upto));
        }
        let limit = limit.max(1);
        let mut reader = self.db.read().await?;
        let sizes = to_device::sizes(&mut reader.conn(), device, since, upto, limit + 1).await?;
        let next = answer_upto(&sizes, limit).unwrap_or(upto);
        // One request sent all messages of one position, so `MAX_MESSAGES` bounds them.
        let rows = to_device::messages(&mut reader.conn(), device, since, next, limit + MAX_MESSAGES).await?;
        Ok((rows.iter().map(render).collect::<Result<_, _>>()?, next))
    }
}

/// The position at which the answer ends, if not all messages fit. A sync token stands between positions, so the
/// messages of one position go out together.
fn answer_upto(sizes: &[(Position, u64)], limit: usize) -> Option<Position> {
    let (first, _) = *sizes.first()?;
    let mut bytes = 0;
    let too_many = sizes.iter().enumerate().find(|(index, (_, size))| {
        bytes += size;
        *index == limit || (*index > 0 && bytes > MAX_ANSWER_BYTES)
    });
    let (_, (position, _)) = too_many?;
    Some(if *position == first { first } else { Position(position.0 - 1) })
}

fn render(row: &MessageRow) -> Result<Box<RawValue>, Error> {
    let damaged = |error| Error::damaged("to-device message", error);
    let content = serde_json::from_str(&row.json).map_err(damaged)?;
    to_raw_value(&Event { sender: &row.user_id, event_type: &row.event_type, content }).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceNid = DeviceNid(1);

    fn load(inboxes: &Inboxes) -> u64 {
        inboxes.find_or_load(DEVICE).expect_err("it is not in memory")
    }

    #[test]
    fn what_is_read_while_something_is_committed_is_not_kept() {
        let inboxes = Inboxes::default();
        let outdated = load(&inboxes);
        inboxes.update(DEVICE, |inbox| inbox.count += 1);
        inboxes.loaded(DEVICE, outdated, EMPTY);
        assert!(inboxes.find(DEVICE).is_none());

        let slow = load(&inboxes);
        let read = load(&inboxes);
        inboxes.loaded(DEVICE, slow, EMPTY);
        assert!(inboxes.find(DEVICE).is_none(), "somebody reads it again");
        inboxes.loaded(DEVICE, read, Inbox { newest: Position(5), count: 1, ..EMPTY });
        inboxes.update(DEVICE, |inbox| inbox.count += 1);
        assert_eq!(inboxes.find(DEVICE).map(|inbox| (inbox.newest, inbox.count)), Some((Position(5), 2)));
    }

    #[test]
    fn an_answer_is_bounded_in_messages_and_bytes_and_ends_between_positions() {
        let check = |sizes: &[(i64, u64)], limit: usize, expected: Option<i64>| {
            let placed: Vec<_> = sizes.iter().map(|(position, bytes)| (Position(*position), *bytes)).collect();
            assert_eq!(answer_upto(&placed, limit), expected.map(Position), "{sizes:?}, {limit}");
        };
        let half = MAX_ANSWER_BYTES / 2;
        check(&[], 2, None);
        check(&[(3, 1), (5, 1)], 2, None);
        check(&[(3, 1), (5, 1), (9, 1)], 2, Some(8));
        check(&[(3, 1), (5, 1), (5, 1)], 2, Some(4));
        check(&[(5, 1), (5, 1)], 1, Some(5));
        check(&[(3, half), (5, half)], 9, None);
        check(&[(3, half), (5, half), (7, 1)], 9, Some(6));
        check(&[(3, 3 * half), (5, 1)], 9, Some(4));
        check(&[(3, 3 * half)], 9, None);
    }
}
