//! Sending messages to devices.
//!
//! A message to many devices goes out in several commits ([`commits`](super::commits)), in the order of the devices.

use std::collections::{BTreeMap, HashMap};

use ruma::{
    TransactionId, api::client::to_device::send_event_to_device::v3::Messages, to_device::DeviceIdOrAllDevices,
};

use super::commits::{Body, Commits, Delivery};
use crate::{
    account::LocalDevice,
    keys::{Keys, validate},
    store::{Error, UserNid, device_keys},
};

/// Maximum number of messages in one request, counting each device that `*` stands for, and of users that it names.
pub const MAX_MESSAGES: usize = 10_000;

/// Maximum size of one message: the spec's maximum size of an event.
pub const MAX_MESSAGE_BYTES: usize = 65_536;

/// Maximum length of an event type, as in the spec, and of a transaction ID.
pub const MAX_NAME_BYTES: usize = 255;

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
        let txn = format!("{event_type}/{txn_id}");
        let deliveries = self.deliveries(messages).await?;
        Ok(Commits::new(caller, event_type, &txn, self.clock.now_ms(), deliveries))
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
