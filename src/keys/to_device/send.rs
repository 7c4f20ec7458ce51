//! Sending messages to devices.
//!
//! A message to many devices goes out in several commits, in the order of the devices. The row of the transaction ID
//! stores how far it has come, and a repeated request continues there. So each device gets a message once, also after a
//! crash. Only one part of it is made at a time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    vec,
};

use ruma::{
    TransactionId, api::client::to_device::send_event_to_device::v3::Messages, to_device::DeviceIdOrAllDevices,
};

use crate::{
    account::LocalDevice,
    keys::{Keys, validate},
    store::{
        Conn, DeviceNid, Error, EventNid, Position, Row, Transaction, UserNid,
        committer::insert_rows,
        device_keys, devices,
        log::Touch,
        to_device::{ToDeviceColumns, ToDeviceSharedColumns, small},
        txn_ids::{TxnIdColumns, find_txn_id, set_txn_result},
    },
};

/// Maximum number of messages in one request, counting each device that `*` stands for, and of users that it names.
pub const MAX_MESSAGES: usize = 10_000;

/// Maximum size of one message: the spec's maximum size of an event.
pub const MAX_MESSAGE_BYTES: usize = 65_536;

/// Maximum length of an event type, as in the spec, and of a transaction ID.
pub const MAX_NAME_BYTES: usize = 255;

/// Messages in one commit, which all other writers wait for. A room of ordinary size is one commit.
const MESSAGES_PER_COMMIT: usize = 250;

/// The scope of our transaction IDs. The event type is part of the stored ID, because it is part of the endpoint's
/// path.
const TXN_SCOPE: &str = "to_device";

/// No event: short ids start at 1.
const NO_EVENT: EventNid = EventNid(0);

/// Why messages were not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendToDeviceError {
    #[error("at most {MAX_MESSAGES} messages, to as many users, can be sent at once")]
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

/// The body of messages.
#[derive(Debug, Clone)]
struct Body {
    json: Arc<str>,
    /// The same number for all devices that share the body; `None` for a body of one device.
    share: Option<i64>,
}

#[derive(Debug, Clone)]
struct Delivery {
    user: UserNid,
    device: DeviceNid,
    seq: i64,
    body: Body,
}

/// The commits of a request, at least one.
pub(in crate::keys) struct Commits {
    sender: UserNid,
    sender_device: DeviceNid,
    event_type: Arc<str>,
    txn: Arc<str>,
    now_ms: i64,
    /// The messages that are left, in the order of their devices.
    deliveries: vec::IntoIter<Delivery>,
    is_done: bool,
}

/// One commit of a request.
pub(in crate::keys) struct SendToDevice {
    sender: UserNid,
    sender_device: DeviceNid,
    event_type: Arc<str>,
    txn: Arc<str>,
    now_ms: i64,
    /// The messages in the order of their devices.
    deliveries: Vec<Delivery>,
    /// Whether no commit of the request follows.
    is_last: bool,
}

impl Keys {
    /// Sends messages to devices of local users, once per `txn_id` and type. Devices that do not exist are ignored.
    ///
    /// # Errors
    /// After [`SendToDeviceError::Storage`] some of the messages may be stored. Repeating the `txn_id` sends the
    /// others.
    pub async fn send_to_device(
        &self,
        caller: &LocalDevice,
        event_type: &str,
        txn_id: &TransactionId,
        messages: &Messages,
    ) -> Result<(), SendToDeviceError> {
        for part in self.prepare(caller, event_type, txn_id, messages).await? {
            for (device, wanted) in part.wanted() {
                self.make_room(device, wanted).await?;
            }
            self.db.committer().transact(part).await?;
        }
        Ok(())
    }

    /// Prepares everything before the commits: the devices that exist now, and their messages.
    pub(in crate::keys) async fn prepare(
        &self,
        caller: &LocalDevice,
        event_type: &str,
        txn_id: &TransactionId,
        messages: &Messages,
    ) -> Result<Commits, SendToDeviceError> {
        let is_name = |name: &str| name.len() <= MAX_NAME_BYTES && validate::is_plain(name);
        if !is_name(event_type) || !is_name(txn_id.as_str()) {
            return Err(SendToDeviceError::BadName);
        }
        check_contents(messages)?;
        Ok(Commits {
            sender: caller.user.nid,
            sender_device: caller.device_nid,
            event_type: event_type.into(),
            txn: format!("{event_type}/{txn_id}").into(),
            now_ms: self.clock.now_ms(),
            deliveries: self.deliveries(messages).await?.into_iter(),
            is_done: false,
        })
    }

    /// Finds the devices that each message goes to, in the order of the devices.
    async fn deliveries(&self, messages: &Messages) -> Result<Vec<Delivery>, SendToDeviceError> {
        let users = self.find_local(messages.keys()).await?;
        let nids: Vec<UserNid> = users.keys().copied().collect();
        let devices = device_keys::devices(&mut self.db.read().await?.conn(), &nids).await?;
        let mut deliveries = Vec::new();
        let mut to_all: HashMap<UserNid, Body> = HashMap::new();
        for (user, device, device_id) in devices {
            let Some(by_device) = users.get(&user).and_then(|user| messages.get(&user.user_id)) else {
                continue;
            };
            let named = by_device.get(&DeviceIdOrAllDevices::DeviceId(device_id.into()));
            let named = named.map(|content| Body { json: content.json().get().into(), share: None });
            let shared = by_device.get(&DeviceIdOrAllDevices::AllDevices).map(|content| {
                let new = || Body { json: content.json().get().into(), share: Some(user.0) };
                to_all.entry(user).or_insert_with(new).clone()
            });
            for (seq, body) in (0..).zip(named.into_iter().chain(shared)) {
                if deliveries.len() == MAX_MESSAGES {
                    return Err(SendToDeviceError::TooMany);
                }
                deliveries.push(Delivery { user, device, seq, body });
            }
        }
        deliveries.sort_by_key(|delivery| (delivery.device, delivery.seq));
        Ok(deliveries)
    }
}

fn check_contents(messages: &Messages) -> Result<(), SendToDeviceError> {
    let number = messages.values().map(BTreeMap::len).sum::<usize>();
    // A user may be named without a message.
    if number.max(messages.len()) > MAX_MESSAGES {
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

/// The size of a message in the inbox: about its size in the database.
fn size_bytes(event_type: &str, json: &str) -> u64 {
    const ROW: u64 = 64;
    ROW + event_type.len() as u64 + json.len() as u64
}

impl Iterator for Commits {
    type Item = SendToDevice;

    fn next(&mut self) -> Option<SendToDevice> {
        // The transaction ID is stored even if there is no message.
        if self.is_done {
            return None;
        }
        let deliveries = self.deliveries.by_ref().take(MESSAGES_PER_COMMIT).collect();
        self.is_done = self.deliveries.as_slice().is_empty();
        Some(SendToDevice {
            sender: self.sender,
            sender_device: self.sender_device,
            event_type: Arc::clone(&self.event_type),
            txn: Arc::clone(&self.txn),
            now_ms: self.now_ms,
            deliveries,
            is_last: self.is_done,
        })
    }
}

impl SendToDevice {
    /// The number of messages and bytes for each device.
    fn wanted(&self) -> BTreeMap<DeviceNid, (u64, u64)> {
        let mut wanted: BTreeMap<DeviceNid, (u64, u64)> = BTreeMap::new();
        for delivery in &self.deliveries {
            let (messages, bytes) = wanted.entry(delivery.device).or_default();
            *messages += 1;
            *bytes += size_bytes(&self.event_type, &delivery.body.json);
        }
        wanted
    }

    /// The place at which an interrupted request continues: after this device and its message.
    fn mark(&self) -> String {
        match self.deliveries.last() {
            Some(last) if !self.is_last => format!("{}/{}", last.device.0, last.seq),
            _ => String::new(),
        }
    }
}

/// Reads a mark that [`SendToDevice::mark`] wrote. `None` means that everything was sent.
fn parse_mark(mark: &str) -> Option<(i64, i64)> {
    let (device, seq) = mark.split_once('/')?;
    Some((device.parse().ok()?, seq.parse().ok()?))
}

impl Transaction for SendToDevice {
    type Output = ();

    fn rows(&self) -> usize {
        self.deliveries.len()
    }

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<Self::Output, Error> {
        let mark = find_txn_id(conn, self.sender_device, TXN_SCOPE, &self.txn).await?;
        let sent_upto = mark.as_deref().map(parse_mark);
        if sent_upto == Some(None) {
            return Ok(());
        }
        let sent_upto = sent_upto.flatten().unwrap_or((0, 0));
        let is_left = |delivery: &Delivery| mark.is_none() || (delivery.device.0, delivery.seq) > sent_upto;
        // A device may have been signed out since we looked. A message stored for it now would stay for ever.
        let mut devices: Vec<DeviceNid> = self.deliveries.iter().map(|delivery| delivery.device).collect();
        devices.push(self.sender_device);
        devices.sort_unstable();
        devices.dedup();
        let existing = devices::existing(conn, &devices).await?;
        let mut rows: Vec<Row> = Vec::with_capacity(self.deliveries.len() + 1);
        let mut shared: BTreeMap<i64, &Arc<str>> = BTreeMap::new();
        for delivery in &self.deliveries {
            if !existing.contains(&delivery.device) || !is_left(delivery) {
                continue;
            }
            let Body { json, share } = &delivery.body;
            shared.extend(share.map(|share| (share, json)));
            let bytes = size_bytes(&self.event_type, json);
            conn.touch(Touch::ToDevice {
                user: delivery.user,
                device: delivery.device,
                messages: 1,
                bytes: small(bytes),
            });
            rows.push(
                ToDeviceColumns {
                    device_nid: delivery.device,
                    pos: position,
                    seq: delivery.seq,
                    sender_nid: self.sender,
                    r#type: Arc::clone(&self.event_type),
                    bytes: bytes.cast_signed(),
                    share: *share,
                    json: share.is_none().then(|| Arc::clone(json)),
                }
                .row(),
            );
        }
        rows.extend(
            shared
                .into_iter()
                .map(|(share, json)| ToDeviceSharedColumns { pos: position, share, json: Arc::clone(json) }.row()),
        );
        // A part that an earlier request has sent, and which got further than this one, must not set the mark back.
        let moves_mark = self.is_last || self.deliveries.last().is_some_and(is_left);
        if moves_mark && existing.contains(&self.sender_device) {
            if mark.is_some() {
                set_txn_result(conn, self.sender_device, TXN_SCOPE, &self.txn, &self.mark()).await?;
            } else {
                conn.touch(Touch::Txn { device: self.sender_device, event: NO_EVENT });
                rows.push(
                    TxnIdColumns {
                        device_nid: self.sender_device,
                        scope: TXN_SCOPE.into(),
                        txn: Arc::clone(&self.txn),
                        event_id: self.mark().into(),
                        created_at: self.now_ms,
                    }
                    .row(),
                );
            }
        }
        insert_rows(conn, &rows).await
    }
}
