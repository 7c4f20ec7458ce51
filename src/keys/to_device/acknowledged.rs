//! Messages that devices have acknowledged and that are not deleted yet.
//!
//! A `/sync` acknowledges the messages from before its token. We only keep that in memory, so a sync writes nothing and
//! also works while the disk is full. Acknowledged messages are not delivered again. A background job deletes them, for
//! many devices at a time. After a crash the client's token acknowledges them once more.

use std::{collections::BTreeMap, sync::Mutex};

use super::DELETED_PER_COMMIT;
use crate::{
    keys::Keys,
    store::{
        Conn, DeviceNid, Error, Position, Transaction,
        ids::lock,
        to_device::{self, Removed},
    },
};

/// Maximum number of devices with a stored acknowledgement, 24 bytes each. More devices acknowledge again with their
/// next tokens.
const MAX_DEVICES: usize = 100_000;

/// Devices whose messages are deleted in one transaction. Every other writer waits for it.
const DEVICES_AT_ONCE: usize = 32;

/// Messages of one device that are deleted in one transaction.
const PER_DEVICE: usize = DELETED_PER_COMMIT / DEVICES_AT_ONCE;

/// The position up to which each device has acknowledged its messages. The lock is held for single look-ups.
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

    /// The next device after `after`.
    fn next(&self, after: DeviceNid) -> Option<(DeviceNid, Position)> {
        lock(&self.0).range(DeviceNid(after.0 + 1)..).next().map(|(device, upto)| (*device, *upto))
    }

    /// Removes the device if everything that it has acknowledged is deleted up to `upto`.
    pub(super) fn deleted(&self, device: DeviceNid, upto: Position) {
        let mut devices = lock(&self.0);
        if devices.get(&device).is_some_and(|known| *known <= upto) {
            devices.remove(&device);
        }
    }
}

/// Deletes acknowledged messages of devices, up to a number of messages each.
struct Delete {
    /// The devices, each with the position up to which to delete.
    devices: Vec<(DeviceNid, Position)>,
    per_device: usize,
}

impl Transaction for Delete {
    /// For each device, the deleted messages, and the position up to which none are left.
    type Output = Vec<(Removed, Position)>;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, Error> {
        let mut deleted = Vec::with_capacity(self.devices.len());
        for (device, upto) in &self.devices {
            let (removed, all_to) = to_device::delete_upto(conn, *device, *upto, self.per_device).await?;
            conn.touch(removed.touch(*device, all_to));
            deleted.push((removed, all_to));
        }
        Ok(deleted)
    }
}

impl Keys {
    /// As [`Self::acknowledge_to_device`], if memory knows the messages of the device. Returns whether it does.
    pub fn acknowledge_in_memory(&self, device: DeviceNid, since: Position) -> bool {
        let Some(inbox) = self.memory.inboxes.find(device) else { return false };
        if inbox.oldest <= since {
            self.memory.inboxes.acknowledged.note(device, since);
        }
        true
    }

    /// Acknowledges the messages from before `since`, because the device has presented a token of that position. Writes
    /// nothing, and needs no query while no messages wait.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn acknowledge_to_device(&self, device: DeviceNid, since: Position) -> Result<(), Error> {
        if self.inbox(device).await?.oldest <= since {
            self.memory.inboxes.acknowledged.note(device, since);
        }
        Ok(())
    }

    /// Deletes the acknowledged messages. Called regularly, and at a clean stop.
    ///
    /// # Errors
    /// When the database fails. The next call deletes the rest.
    pub async fn delete_acknowledged(&self) -> Result<(), Error> {
        let mut after = DeviceNid(0);
        loop {
            let mut devices = Vec::with_capacity(DEVICES_AT_ONCE);
            while devices.len() < DEVICES_AT_ONCE
                && let Some((device, upto)) = self.memory.inboxes.acknowledged.next(after)
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

    /// Deletes the acknowledged messages of one device.
    pub(super) async fn delete_acknowledged_of(&self, device: DeviceNid) -> Result<(), Error> {
        while let Some(upto) = self.memory.inboxes.acknowledged.find(device) {
            self.delete(vec![(device, upto)], DELETED_PER_COMMIT).await?;
        }
        Ok(())
    }

    async fn delete(
        &self,
        devices: Vec<(DeviceNid, Position)>,
        per_device: usize,
    ) -> Result<Vec<(Removed, Position)>, Error> {
        self.db.committer().transact(Delete { devices, per_device }).await
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
