//! Devices: listing, renaming and deleting them.
//!
//! Promise: one commit deletes a device with its tokens and published keys, and marks the user's device list as
//! changed. Right after it, the device's cached sessions and parked requests end. Data that nobody can see any more,
//! such as messages to the device, is deleted later ([`crate::store::leftovers`]).

use std::pin::Pin;

use ruma::{DeviceId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, UInt, api::client::device::Device};

use super::new_session::{SessionRefusal, is_device_id, is_device_name};
use crate::{
    account::Accounts,
    store::{
        self, Conn, DeviceNid, Position, Transaction, UserNid, accounts as account_rows,
        devices::{self as rows, DeviceRow},
        profiles as profile_rows, tokens as token_rows,
    },
};

/// A function that runs before a change of a user's device list is queued. It loads the rooms of the user into memory, so
/// that the commit marks those who share one.
pub type BeforeDeviceChange = Box<dyn Fn(UserNid) -> Prepared + Send + Sync>;

type Prepared = Pin<Box<dyn Future<Output = Result<(), store::Error>> + Send>>;

/// Devices deleted by ID in one commit. All other writers wait for it.
const NAMED_PER_COMMIT: usize = 20;

/// No device: short ids start at 1.
const NO_DEVICE: DeviceNid = DeviceNid(0);

/// The devices of a user to delete.
#[derive(Debug, Clone)]
pub(in crate::account) enum Which {
    These(Vec<OwnedDeviceId>),
    All,
    AllBut(DeviceNid),
}

/// A change of the account in the same commit.
pub(in crate::account) enum Also {
    Nothing,
    /// The password is changed to the one with this hash.
    Password(String),
    /// The account is deactivated at this time, in milliseconds since 1970.
    Deactivate(i64),
}

/// Deletes devices.
pub(in crate::account) struct EndDevices {
    pub user: UserNid,
    /// `None` keeps all devices.
    pub which: Option<Which>,
    pub also: Also,
}

/// The result of [`EndDevices`].
pub(in crate::account) struct Ended {
    /// `false` if there is no such active account. Then nothing was changed.
    pub account_found: bool,
}

impl Transaction for EndDevices {
    type Output = Ended;
    const ESSENTIAL: bool = true;

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<Ended, store::Error> {
        let account_found = match &self.also {
            Also::Nothing => true,
            Also::Password(hash) => account_rows::set_password(conn, self.user, hash).await?,
            Also::Deactivate(at) => account_rows::deactivate(conn, self.user, *at).await?,
        };
        if !account_found {
            return Ok(Ended { account_found });
        }
        let mut devices = 0;
        if !matches!(self.also, Also::Nothing) {
            token_rows::delete_login_tokens(conn, self.user).await?;
        }
        if matches!(self.also, Also::Deactivate(_)) {
            profile_rows::delete_belongings(conn, self.user).await?;
        }
        match &self.which {
            None => {}
            Some(Which::These(ids)) => {
                for id in ids {
                    if let Some(device) = rows::find_device(conn, self.user, id.as_str()).await? {
                        let nid = DeviceNid(device.device_nid);
                        rows::delete_device(conn, self.user, nid, &device.device_id).await?;
                        devices += 1;
                    }
                }
            }
            Some(Which::All) => devices = rows::delete_devices(conn, self.user, NO_DEVICE).await?,
            Some(Which::AllBut(kept)) => devices = rows::delete_devices(conn, self.user, *kept).await?,
        }
        if devices > 0 || matches!(self.also, Also::Deactivate(_)) {
            rows::change_list(conn, self.user, position).await?;
        }
        Ok(Ended { account_found })
    }
}

struct Rename {
    user: UserNid,
    device_id: OwnedDeviceId,
    name: Option<String>,
}

impl Transaction for Rename {
    type Output = bool;

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<bool, store::Error> {
        let found = rows::rename_device(conn, self.user, self.device_id.as_str(), self.name.as_deref()).await?;
        if found {
            // Other users see the name with the device's keys.
            rows::change_list(conn, self.user, position).await?;
        }
        Ok(found)
    }
}

impl Accounts {
    /// Sets the function that runs before each change of a device list. Only the first call has an effect.
    pub fn before_device_change(&self, prepare: BeforeDeviceChange) {
        if self.before_device_change.set(prepare).is_err() {
            tracing::error!("a second function before changes of device lists was ignored");
        }
    }

    async fn prepare_change(&self, user: UserNid) -> Result<(), store::Error> {
        match self.before_device_change.get() {
            Some(prepare) => prepare(user).await,
            None => Ok(()),
        }
    }

    pub(in crate::account) async fn end_devices(
        &self,
        user: UserNid,
        which: Option<Which>,
        also: Also,
    ) -> Result<Ended, store::Error> {
        self.prepare_change(user).await?;
        self.db.committer().transact(EndDevices { user, which, also }).await
    }

    /// All devices of a user, oldest first.
    pub async fn list_devices(&self, user: UserNid) -> Result<Vec<Device>, store::Error> {
        let rows = rows::list_devices(&mut self.db.read().await?.conn(), user).await?;
        Ok(rows.into_iter().map(|row| self.device(row)).collect())
    }

    /// One device of a user.
    pub async fn find_device(&self, user: UserNid, id: &DeviceId) -> Result<Option<Device>, store::Error> {
        let row = rows::find_device(&mut self.db.read().await?.conn(), user, id.as_str()).await?;
        Ok(row.map(|row| self.device(row)))
    }

    fn device(&self, row: DeviceRow) -> Device {
        let noted = self.last_seen.get(DeviceNid(row.device_nid));
        let mut device = Device::new(row.device_id.into());
        device.display_name = row.display_name;
        device.last_seen_ip = match noted {
            Some((_, address)) => address.map(|address| address.to_string()),
            None => row.last_seen_ip,
        };
        device.last_seen_ts = noted
            .map(|(at, _)| at)
            .or(row.last_seen_at)
            .and_then(|at| UInt::try_from(at).ok())
            .map(MilliSecondsSinceUnixEpoch);
        device
    }

    /// Renames a device. Returns `Ok(false)` if there is no such device.
    ///
    /// # Errors
    /// The inner error for a name that is too long or has control characters.
    pub async fn rename_device(
        &self,
        user: UserNid,
        id: &DeviceId,
        name: Option<String>,
    ) -> Result<Result<bool, SessionRefusal>, store::Error> {
        if name.as_ref().is_some_and(|name| !is_device_name(name)) {
            return Ok(Err(SessionRefusal::DeviceName));
        }
        self.prepare_change(user).await?;
        let rename = Rename { user, device_id: id.to_owned(), name };
        Ok(Ok(self.db.committer().transact(rename).await?))
    }

    /// Signs devices out and deletes them. Unknown devices are ignored.
    ///
    /// # Errors
    /// When the database fails. Some of the devices may be deleted then.
    pub async fn delete_devices(&self, user: UserNid, ids: &[OwnedDeviceId]) -> Result<(), store::Error> {
        // A device with an invalid ID cannot exist, and a database may refuse to look it up.
        let ids: Vec<OwnedDeviceId> = ids.iter().filter(|id| is_device_id(id.as_str())).cloned().collect();
        for ids in ids.chunks(NAMED_PER_COMMIT) {
            self.end_devices(user, Some(Which::These(ids.to_vec())), Also::Nothing).await?;
        }
        Ok(())
    }

    /// Signs all devices of a user out and deletes them.
    pub async fn delete_all_devices(&self, user: UserNid) -> Result<(), store::Error> {
        self.end_devices(user, Some(Which::All), Also::Nothing).await.map(drop)
    }
}
