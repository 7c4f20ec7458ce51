//! Where and when devices were last seen: noted in memory by each request, written by a later sweep.

use std::{collections::HashMap, net::IpAddr, sync::Mutex};

use super::Accounts;
use crate::store::{self, Conn, DeviceNid, Position, Transaction, devices as rows, ids::lock};

/// The most devices that are noted between two sweeps. Over it, a device is noted after the next sweep.
const MAX_NOTED: usize = 100_000;

/// The most devices in one write, so that others do not wait long for the database.
const DEVICES_PER_WRITE: usize = 256;

/// When, in milliseconds since 1970, and from which address.
pub type Sight = (i64, Option<IpAddr>);

/// What was noted since the last sweep.
#[derive(Debug, Default)]
pub struct LastSeen {
    noted: Mutex<HashMap<DeviceNid, Sight>>,
}

impl LastSeen {
    /// Notes a request.
    pub fn note(&self, device: DeviceNid, at: i64, address: Option<IpAddr>) {
        let mut noted = lock(&self.noted);
        if noted.len() < MAX_NOTED || noted.contains_key(&device) {
            noted.insert(device, (at, address));
        }
    }

    /// What was noted of a device and is not yet written.
    pub fn get(&self, device: DeviceNid) -> Option<Sight> {
        lock(&self.noted).get(&device).copied()
    }
}

struct Flush(Vec<(DeviceNid, Sight)>);

impl Transaction for Flush {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), store::Error> {
        for (device, (at, address)) in &self.0 {
            let address = address.map(|address| address.to_string());
            rows::set_last_seen(conn, *device, *at, address.as_deref()).await?;
        }
        Ok(())
    }
}

impl Accounts {
    /// Writes what was noted. To be called every few minutes and when the server stops; what is lost in a crash is only
    /// when a device was last seen.
    pub async fn flush_last_seen(&self) -> Result<(), store::Error> {
        let noted: Vec<_> = std::mem::take(&mut *lock(&self.last_seen.noted)).into_iter().collect();
        for devices in noted.chunks(DEVICES_PER_WRITE) {
            self.db.committer().transact(Flush(devices.to_vec())).await?;
        }
        Ok(())
    }
}
