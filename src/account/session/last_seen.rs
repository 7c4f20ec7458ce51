//! The time and address of each device's last request: recorded in memory by each request, and written later by a
//! sweep.

use std::{collections::HashMap, net::IpAddr, sync::Mutex};

use crate::{
    account::Accounts,
    store::{self, Conn, DeviceNid, Position, Transaction, devices as rows, ids::lock},
};

/// Maximum number of devices recorded between two sweeps. With more, a device is recorded after the next sweep.
const MAX_NOTED: usize = 100_000;

/// Maximum number of devices in one write, so that other writers do not wait long.
const DEVICES_PER_WRITE: usize = 256;

/// Time in milliseconds since 1970, and address.
pub type Sight = (i64, Option<IpAddr>);

/// The requests recorded since the last sweep.
#[derive(Debug, Default)]
pub struct LastSeen {
    noted: Mutex<HashMap<DeviceNid, Sight>>,
}

impl LastSeen {
    /// Records a request.
    pub fn note(&self, device: DeviceNid, at: i64, address: Option<IpAddr>) {
        let mut noted = lock(&self.noted);
        if noted.len() < MAX_NOTED || noted.contains_key(&device) {
            noted.insert(device, (at, address));
        }
    }

    /// The recorded request of a device, if it is not written yet.
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
    /// Writes the recorded requests. Called every few minutes and when the server stops. A crash loses only when
    /// devices were last seen.
    pub async fn flush_last_seen(&self) -> Result<(), store::Error> {
        let noted: Vec<_> = std::mem::take(&mut *lock(&self.last_seen.noted)).into_iter().collect();
        for devices in noted.chunks(DEVICES_PER_WRITE) {
            self.db.committer().transact(Flush(devices.to_vec())).await?;
        }
        Ok(())
    }
}
