//! The commits of a request that sends messages to devices.
//!
//! The row of the transaction ID stores how far the request has come, and a repeated request continues there. So each device
//! gets a message once, also after a crash. Only one part of the request is made at a time.

use std::{collections::BTreeMap, sync::Arc, vec};

use crate::{
    account::LocalDevice,
    store::{
        Conn, DeviceNid, Error, EventNid, Position, Row, Transaction, UserNid,
        committer::insert_rows,
        devices,
        log::Touch,
        to_device::{ToDeviceColumns, ToDeviceSharedColumns, small},
        txn_ids::{TxnIdColumns, find_txn_id, set_txn_result},
    },
};

/// Messages in one commit, which all other writers wait for. A room of ordinary size is one commit.
const MESSAGES_PER_COMMIT: usize = 250;

/// The scope of our transaction IDs. The event type is part of the stored ID, because it is part of the endpoint's
/// path.
const TXN_SCOPE: &str = "to_device";

/// No event: short ids start at 1.
const NO_EVENT: EventNid = EventNid(0);

/// The body of messages.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) json: Arc<str>,
    /// One number for all devices that share the body; `None` for a body of one device.
    pub(super) share: Option<i64>,
}

/// A message to one device.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) user: UserNid,
    pub(super) device: DeviceNid,
    /// The message's place among those to the device.
    pub(super) seq: i64,
    pub(super) body: Body,
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

/// The size of a message in the inbox: about its size in the database.
fn size_bytes(event_type: &str, json: &str) -> u64 {
    const ROW: u64 = 64;
    ROW + event_type.len() as u64 + json.len() as u64
}

impl Commits {
    /// The commits of the request with this transaction ID, which has the event type in it. The messages are in the order of
    /// their devices.
    pub(super) fn new(
        caller: &LocalDevice,
        event_type: &str,
        txn: &str,
        now_ms: i64,
        deliveries: Vec<Delivery>,
    ) -> Self {
        Self {
            sender: caller.user.nid,
            sender_device: caller.device_nid,
            event_type: event_type.into(),
            txn: txn.into(),
            now_ms,
            deliveries: deliveries.into_iter(),
            is_done: false,
        }
    }
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
    pub(super) fn wanted(&self) -> BTreeMap<DeviceNid, (u64, u64)> {
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
