//! Messages from device to device.
//!
//! Promise: a message that was answered with 200 stays until its device presents a sync token from after it; a repeated
//! transaction ID sends nothing again. A device that never fetches its messages loses the oldest ones, over
//! `limits.to_device_per_device`: what comes in is never refused for it, because the newest are worth the most.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use ruma::{
    OwnedUserId, TransactionId, api::client::to_device::send_event_to_device::v3::Messages,
    to_device::DeviceIdOrAllDevices,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{Keys, validate};
use crate::{
    account::LocalDevice,
    bus::Bus,
    store::{
        Conn, DeviceNid, Error, Position, Row, Transaction, UserNid,
        committer::insert_rows,
        device_keys, devices,
        ids::lock,
        rooms::{TXN_ID, find_txn_id},
        to_device::{self, MessageRow, TO_DEVICE},
    },
};

/// Messages of one request, each device that is meant by `*` counted.
pub const MAX_MESSAGES: usize = 10_000;

/// Size of one message: the size of an event, which the spec gives.
pub const MAX_MESSAGE_BYTES: usize = 65_536;

/// Length of an event type and of a transaction ID; the spec has the first.
pub const MAX_NAME_BYTES: usize = 255;

/// The scope of our transaction IDs. The type is part of the ID itself: it is part of the endpoint's path.
const TXN_SCOPE: &str = "to_device";

/// Why messages were not sent. None of them was.
#[derive(Debug, thiserror::Error)]
pub enum SendToDeviceError {
    #[error("at most {MAX_MESSAGES} messages can be sent at once")]
    TooMany,
    #[error("a message can have at most {MAX_MESSAGE_BYTES} bytes")]
    TooLarge,
    #[error("the content of a message must be an object")]
    NotAnObject,
    #[error("event type and transaction ID can have at most {MAX_NAME_BYTES} bytes each, and no control characters")]
    BadName,
    #[error("could not store the messages")]
    Storage(#[from] Error),
}

/// What waits for a device, as far as memory knows: bounds that hold, not the exact truth.
#[derive(Debug, Clone, Copy)]
struct Inbox {
    /// No message is before this one.
    oldest: Position,
    /// No message is after this one.
    newest: Position,
    /// At most this many wait.
    count: u64,
}

const EMPTY: Inbox = Inbox { oldest: Position(i64::MAX), newest: Position::ZERO, count: 0 };

/// Devices whose inboxes are kept in memory. Over it we start afresh, which costs each device one look.
const MAX_CACHED: usize = 100_000;

#[derive(Debug, Clone, Copy)]
enum Entry {
    /// Somebody is reading it; a change in the meantime makes what they read outdated.
    Loading(u64),
    Known(Inbox),
}

/// The inboxes in memory. The lock guards a look-up.
///
/// Every commit brings those that are here up to date, and takes back what is being read just then. So an inbox that is
/// here is never behind the database; one that is not is read again.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_device: HashMap<DeviceNid, Entry>,
    loads: u64,
}

impl Inboxes {
    fn find(&self, device: DeviceNid) -> Option<Inbox> {
        match lock(&self.entries).by_device.get(&device) {
            Some(Entry::Known(inbox)) => Some(*inbox),
            Some(Entry::Loading(_)) | None => None,
        }
    }

    /// What is known, or a number under which what is read now may be stored.
    fn find_or_load(&self, device: DeviceNid) -> Result<Inbox, u64> {
        let mut entries = lock(&self.entries);
        if let Some(Entry::Known(inbox)) = entries.by_device.get(&device) {
            return Ok(*inbox);
        }
        if entries.by_device.len() >= MAX_CACHED {
            entries.by_device.clear();
        }
        entries.loads += 1;
        let load = entries.loads;
        entries.by_device.insert(device, Entry::Loading(load));
        Err(load)
    }

    fn loaded(&self, device: DeviceNid, load: u64, inbox: Inbox) {
        if let Some(entry) = lock(&self.entries).by_device.get_mut(&device)
            && matches!(entry, Entry::Loading(number) if *number == load)
        {
            *entry = Entry::Known(inbox);
        }
    }

    fn update(&self, device: DeviceNid, update: impl FnOnce(&mut Inbox)) {
        let mut entries = lock(&self.entries);
        match entries.by_device.get_mut(&device) {
            Some(Entry::Known(inbox)) => update(inbox),
            Some(Entry::Loading(_)) => _ = entries.by_device.remove(&device),
            None => {}
        }
    }
}

struct Delivery {
    user: UserNid,
    device: DeviceNid,
    seq: i64,
    json: Arc<str>,
}

pub(super) struct SendToDevice {
    sender: UserNid,
    sender_device: DeviceNid,
    event_type: Arc<str>,
    txn: Arc<str>,
    now_ms: i64,
    deliveries: Vec<Delivery>,
    limit: usize,
    inboxes: Arc<Inboxes>,
    bus: Arc<Bus>,
}

/// What was stored.
pub(super) enum Sent {
    Now {
        /// How many of the oldest messages of a device made room.
        dropped: Vec<(DeviceNid, u64)>,
        /// How many wait for a device, where that was looked up.
        counted: Vec<(DeviceNid, u64)>,
    },
    Before,
}

struct Acknowledge {
    device: DeviceNid,
    upto: Position,
    inboxes: Arc<Inboxes>,
}

#[derive(Serialize)]
struct Event<'a> {
    sender: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    content: &'a RawValue,
}

impl Keys {
    /// Sends messages to devices of local users, once per `txn_id` and type. Devices that do not exist are ignored.
    ///
    /// # Errors
    /// After [`SendToDeviceError::Storage`] the messages may be stored; repeating the `txn_id` settles it.
    pub async fn send_to_device(
        &self,
        caller: &LocalDevice,
        event_type: &str,
        txn_id: &TransactionId,
        messages: &Messages,
    ) -> Result<(), SendToDeviceError> {
        let transaction = self.prepare(caller, event_type, txn_id, messages).await?;
        if let Sent::Now { dropped, .. } = self.db.committer().transact(transaction).await? {
            for (device, messages) in dropped {
                tracing::warn!(
                    device_nid = device.0,
                    messages,
                    "dropped the oldest messages of a device that fetches none"
                );
            }
        }
        Ok(())
    }

    /// All that can be done before the commit: whom the messages go to, as things stand.
    pub(super) async fn prepare(
        &self,
        caller: &LocalDevice,
        event_type: &str,
        txn_id: &TransactionId,
        messages: &Messages,
    ) -> Result<SendToDevice, SendToDeviceError> {
        let is_name = |name: &str| name.len() <= MAX_NAME_BYTES && validate::is_plain(name);
        if !is_name(event_type) || !is_name(txn_id.as_str()) {
            return Err(SendToDeviceError::BadName);
        }
        check_contents(messages)?;
        let deliveries = self.deliveries(messages).await?;
        Ok(SendToDevice {
            sender: caller.user.nid,
            sender_device: caller.device_nid,
            event_type: event_type.into(),
            txn: format!("{event_type}/{txn_id}").into(),
            now_ms: self.clock.now_ms(),
            deliveries,
            limit: self.to_device_per_device,
            inboxes: Arc::clone(&self.inboxes),
            bus: Arc::clone(&self.bus),
        })
    }

    /// Whom each message goes to.
    async fn deliveries(&self, messages: &Messages) -> Result<Vec<Delivery>, SendToDeviceError> {
        let mut users: HashMap<UserNid, &OwnedUserId> = HashMap::new();
        for user_id in messages.keys().filter(|user_id| self.is_local(user_id)) {
            if let Some(user) = self.db.find_user(user_id).await? {
                users.insert(user.nid, user_id);
            }
        }
        let nids: Vec<UserNid> = users.keys().copied().collect();
        let devices = device_keys::devices(&mut self.db.read().await?.conn(), &nids).await?;
        let mut deliveries = Vec::new();
        // One copy of a text that goes to all devices of a user.
        let mut texts_to_all: HashMap<UserNid, Arc<str>> = HashMap::new();
        for (user, device, device_id) in devices {
            let Some(by_device) = users.get(&user).and_then(|user_id| messages.get(*user_id)) else {
                continue;
            };
            let named = by_device.get(&DeviceIdOrAllDevices::DeviceId(device_id.into()));
            let named = named.map(|content| Arc::<str>::from(content.json().get()));
            let to_all = by_device.get(&DeviceIdOrAllDevices::AllDevices);
            let to_all = to_all
                .map(|content| Arc::clone(texts_to_all.entry(user).or_insert_with(|| content.json().get().into())));
            for (seq, json) in (0..).zip(named.into_iter().chain(to_all)) {
                if deliveries.len() == MAX_MESSAGES {
                    return Err(SendToDeviceError::TooMany);
                }
                deliveries.push(Delivery { user, device, seq, json });
            }
        }
        Ok(deliveries)
    }

    /// What waits for the device; read from the database when it is not in memory.
    async fn inbox(&self, device: DeviceNid) -> Result<Inbox, Error> {
        let load = match self.inboxes.find_or_load(device) {
            Ok(inbox) => return Ok(inbox),
            Err(load) => load,
        };
        let (oldest, newest, count) = to_device::waiting(&mut self.db.read().await?.conn(), device).await?;
        let inbox = Inbox {
            oldest: oldest.unwrap_or(EMPTY.oldest),
            newest: newest.unwrap_or(EMPTY.newest),
            count: count.unsigned_abs(),
        };
        self.inboxes.loaded(device, load, inbox);
        Ok(inbox)
    }

    /// The messages for the device in (`since`, `upto`], oldest first, as complete events, at most about `limit`. The second
    /// value is the position up to which these are all: `upto`, or an earlier one if there are more. Asks the database
    /// nothing while nothing waits.
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
        if self.inbox(device).await?.newest <= since {
            return Ok((Vec::new(), upto));
        }
        let limit = limit.max(1);
        let mut reader = self.db.read().await?;
        let mut rows = to_device::messages(&mut reader.conn(), device, since, upto, limit + 1).await?;
        let mut next = upto;
        if rows.len() > limit
            && let (Some(first), Some(last)) = (rows.first().map(|row| row.pos), rows.pop().map(|row| row.pos))
        {
            // A token stands between positions, so the messages of one position go out together.
            if first == last {
                next = Position(last);
                rows = to_device::messages_at(&mut reader.conn(), device, next).await?;
            } else {
                rows.retain(|row| row.pos < last);
                next = Position(last - 1);
            }
        }
        Ok((rows.iter().map(render).collect::<Result<_, _>>()?, next))
    }

    /// The device has presented a token of `since`: what was before it has arrived and is deleted. Asks the database
    /// nothing while nothing waits.
    ///
    /// # Errors
    /// When the database fails; the messages are then deleted with a later token.
    pub async fn acknowledge_to_device(&self, device: DeviceNid, since: Position) -> Result<(), Error> {
        if self.inbox(device).await?.oldest > since {
            return Ok(());
        }
        let transaction = Acknowledge { device, upto: since, inboxes: Arc::clone(&self.inboxes) };
        self.db.committer().transact(transaction).await.map(drop)
    }
}

fn check_contents(messages: &Messages) -> Result<(), SendToDeviceError> {
    if messages.values().map(BTreeMap::len).sum::<usize>() > MAX_MESSAGES {
        return Err(SendToDeviceError::TooMany);
    }
    for content in messages.values().flat_map(BTreeMap::values) {
        let json = content.json().get();
        if json.len() > MAX_MESSAGE_BYTES {
            return Err(SendToDeviceError::TooLarge);
        }
        if !json.starts_with('{') {
            return Err(SendToDeviceError::NotAnObject);
        }
    }
    Ok(())
}

fn render(row: &MessageRow) -> Result<Box<RawValue>, Error> {
    let damaged = |error| Error::damaged("to-device message", error);
    let content = serde_json::from_str(&row.json).map_err(damaged)?;
    to_raw_value(&Event { sender: &row.user_id, event_type: &row.event_type, content }).map_err(damaged)
}

impl Transaction for SendToDevice {
    type Output = Sent;

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<Self::Output, Error> {
        if find_txn_id(conn, self.sender_device, TXN_SCOPE, &self.txn).await?.is_some() {
            return Ok(Sent::Before);
        }
        // A device may have been signed out since we looked; what is stored for it now would stay for ever.
        let mut devices: Vec<DeviceNid> = self.deliveries.iter().map(|delivery| delivery.device).collect();
        devices.push(self.sender_device);
        devices.sort_unstable();
        devices.dedup();
        let existing = devices::existing(conn, &devices).await?;
        let mut rows: Vec<Row> = Vec::with_capacity(self.deliveries.len() + 1);
        let mut added: BTreeMap<DeviceNid, u64> = BTreeMap::new();
        for delivery in self.deliveries.iter().filter(|delivery| existing.contains(&delivery.device)) {
            *added.entry(delivery.device).or_default() += 1;
            rows.push(TO_DEVICE.row([
                delivery.device.into(),
                position.into(),
                delivery.seq.into(),
                self.sender.into(),
                self.event_type.clone().into(),
                delivery.json.clone().into(),
            ]));
        }
        if existing.contains(&self.sender_device) {
            rows.push(TXN_ID.row([
                self.sender_device.into(),
                TXN_SCOPE.into(),
                self.txn.clone().into(),
                "".into(),
                self.now_ms.into(),
            ]));
        }
        insert_rows(conn, &rows).await?;
        let limit = self.limit as u64;
        let (mut dropped, mut counted) = (Vec::new(), Vec::new());
        for (device, added) in added {
            if self.inboxes.find(device).is_some_and(|inbox| inbox.count.saturating_add(added) <= limit) {
                continue;
            }
            // What memory knows is a bound: nothing is dropped for it that does not have to go. The rows of this batch are
            // among those that wait.
            let mut waiting = to_device::waiting(conn, device).await?.2.unsigned_abs();
            if waiting > limit {
                // A little more than needed goes, or every further message would have to make room again.
                let keep = self.limit - self.limit / 16;
                let messages = to_device::delete_oldest(conn, device, keep).await?;
                waiting = waiting.saturating_sub(messages);
                dropped.push((device, messages));
            }
            counted.push((device, waiting));
        }
        Ok(Sent::Now { dropped, counted })
    }

    fn committed(&self, output: &Self::Output, position: Position) {
        let Sent::Now { counted, .. } = output else {
            return;
        };
        for delivery in &self.deliveries {
            self.inboxes.update(delivery.device, |inbox| {
                inbox.oldest = inbox.oldest.min(position);
                inbox.newest = inbox.newest.max(position);
                inbox.count += 1;
            });
        }
        for (device, waiting) in counted {
            self.inboxes.update(*device, |inbox| inbox.count = *waiting);
        }
        for delivery in &self.deliveries {
            self.bus.mark_user(delivery.user, position);
        }
    }
}

impl Transaction for Acknowledge {
    /// How many messages went.
    type Output = u64;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<u64, Error> {
        to_device::delete_upto(conn, self.device, self.upto).await
    }

    fn committed(&self, messages: &u64, _: Position) {
        self.inboxes.update(self.device, |inbox| {
            if inbox.newest <= self.upto {
                *inbox = EMPTY;
            } else {
                inbox.oldest = inbox.oldest.max(Position(self.upto.0 + 1));
                inbox.count = inbox.count.saturating_sub(*messages);
            }
        });
    }
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
}
