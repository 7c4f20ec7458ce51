//! Messages that devices have acknowledged and that are not deleted yet.
//!
//! A `/sync` acknowledges what is before its token. That is only remembered here, so a sync writes nothing and goes on while
//! the disk is full. What is acknowledged is not delivered again; a job deletes it, many devices at a time. After a crash the
//! client's token says the same once more.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::{DELETED_PER_COMMIT, EMPTY, Inboxes};
use crate::{
    keys::Keys,
    store::{
        Conn, DeviceNid, Error, Position, Transaction,
        ids::lock,
        to_device::{self, Removed},
    },
};

/// Devices whose acknowledgement is remembered, 24 bytes each. Those of more devices come again with their next tokens.
const MAX_DEVICES: usize = 100_000;

/// Devices whose messages are deleted in one transaction. Every other writer waits for it.
const DEVICES_AT_ONCE: usize = 32;

/// Messages of one device that are deleted in one transaction.
const PER_DEVICE: usize = DELETED_PER_COMMIT / DEVICES_AT_ONCE;

/// Up to where each device has acknowledged its messages. The lock guards a look-up.
#[derive(Debug, Default)]
pub(super) struct Acknowledged(Mutex<BTreeMap<DeviceNid, Position>>);

impl Acknowledged {
    pub(super) fn find(&self, device: DeviceNid) -> Option<Position> {
        lock(&self.0).get(&device).copied()
    }

    fn note(&self, device: DeviceNid, upto: Position) {
        let mut devices = lock(&self.0);
        if devices.len() < MAX_DEVICES || devices.contains_key(&device) {
            let known = devices.entry(device).or_insert(upto);
            *known = upto.max(*known);
        }
    }

    /// The next device after this one.
    fn next(&self, after: DeviceNid) -> Option<(DeviceNid, Position)> {
        lock(&self.0).range(DeviceNid(after.0 + 1)..).next().map(|(device, upto)| (*device, *upto))
    }

    /// Everything up to here is deleted.
    fn deleted(&self, device: DeviceNid, upto: Position) {
        let mut devices = lock(&self.0);
        if devices.get(&device).is_some_and(|known| *known <= upto) {
            devices.remove(&device);
        }
    }
}

/// Deletes what devices have acknowledged, up to a number of messages each.
struct Delete {
    /// Up to where, for each device.
    devices: Vec<(DeviceNid, Position)>,
    per_device: usize,
    inboxes: Arc<Inboxes>,
}

impl Transaction for Delete {
    /// The messages that went, for each device, and up to where all are gone.
    type Output = Vec<(Removed, Position)>;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, Error> {
        let mut deleted = Vec::with_capacity(self.devices.len());
        for (device, upto) in &self.devices {
            deleted.push(to_device::delete_upto(conn, *device, *upto, self.per_device).await?);
        }
        Ok(deleted)
    }

    fn committed(&self, deleted: &Self::Output, _: Position) {
        for ((device, _), (removed, upto)) in self.devices.iter().zip(deleted) {
            self.inboxes.update(*device, |inbox| {
                if inbox.newest <= *upto {
                    *inbox = EMPTY;
                } else {
                    inbox.oldest = inbox.oldest.max(Position(upto.0 + 1));
                    inbox.removed(*removed);
                }
            });
            self.inboxes.acknowledged.deleted(*device, *upto);
        }
    }
}

impl Keys {
    /// The device has presented a token of `since`: what was before it has arrived. Writes nothing, and asks the database
    /// nothing while nothing waits.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn acknowledge_to_device(&self, device: DeviceNid, since: Position) -> Result<(), Error> {
        if self.inbox(device).await?.oldest <= since {
            self.inboxes.acknowledged.note(device, since);
        }
        Ok(())
    }

    /// Deletes what has been acknowledged so far. Called now and then, and at a clean stop.
    ///
    /// # Errors
    /// When the database fails. What was not deleted then goes with the next call.
    pub async fn delete_acknowledged(&self) -> Result<(), Error> {
        let mut after = DeviceNid(0);
        loop {
            let mut devices = Vec::with_capacity(DEVICES_AT_ONCE);
            while devices.len() < DEVICES_AT_ONCE
                && let Some((device, upto)) = self.inboxes.acknowledged.next(after)
            {
                devices.push((device, upto));
                after = device;
            }
            if devices.is_empty() {
                return Ok(());
            }
            let wanted = devices.clone();
            let deleted = self.delete(devices, PER_DEVICE).await?;
            for ((device, upto), (_, all_to)) in wanted.into_iter().zip(deleted) {
                if all_to < upto {
                    self.delete_acknowledged_of(device).await?;
                }
            }
        }
    }

    /// Deletes what one device has acknowledged.
    pub(super) async fn delete_acknowledged_of(&self, device: DeviceNid) -> Result<(), Error> {
        while let Some(upto) = self.inboxes.acknowledged.find(device) {
            self.delete(vec![(device, upto)], DELETED_PER_COMMIT).await?;
        }
        Ok(())
    }

    async fn delete(
        &self,
        devices: Vec<(DeviceNid, Position)>,
        per_device: usize,
    ) -> Result<Vec<(Removed, Position)>, Error> {
        let delete = Delete { devices, per_device, inboxes: Arc::clone(&self.inboxes) };
        self.db.committer().transact(delete).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_acknowledgement_counts_until_it_is_deleted() {
        let acknowledged = Acknowledged::default();
        let device = DeviceNid(7);
        acknowledged.note(device, Position(5));
        acknowledged.note(device, Position(9));
        acknowledged.note(device, Position(6));
        assert_eq!(acknowledged.find(device), Some(Position(9)));
        acknowledged.deleted(device, Position(6));
        assert_eq!(acknowledged.next(DeviceNid(0)), Some((device, Position(9))));
        acknowledged.deleted(device, Position(9));
        assert_eq!(acknowledged.find(device), None);
        assert_eq!(acknowledged.next(DeviceNid(0)), None);
    }
}
