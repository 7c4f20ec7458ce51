//! Devices: listing, naming and ending them.
//!
//! Promise: a device goes with its tokens and published keys in one commit, which also marks the user's device list as
//! changed. Its sessions in memory end right after that commit, parked requests with them. What nobody sees any more then,
//! such as messages to it, is deleted later ([`crate::store::leftovers`]).

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
};

use ruma::{DeviceId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, UInt, api::client::device::Device};

use super::{
    Accounts,
    new_session::{SessionRefusal, is_device_id, is_device_name},
    session_cache::SessionCache,
};
use crate::{
    bus::Bus,
    store::{
        self, Conn, DeviceNid, Position, Transaction, UserNid, accounts as account_rows,
        devices::{self as rows, DEVICE_CHANGE, DeviceRow},
        profiles as profile_rows, tokens as token_rows,
    },
};

/// Told whose device list changed and where.
pub struct DeviceChangeListener {
    /// Called before a change is queued: the time to read what `committed` needs in memory.
    pub prepare: Box<dyn Fn(UserNid) -> Prepared + Send + Sync>,
    /// Called after the commit and before its position is visible, so that whoever looks from then on sees the change. It
    /// must be short and must not block. The user's own requests are marked without it.
    pub committed: Box<dyn Fn(UserNid, Position) + Send + Sync>,
}

type Prepared = Pin<Box<dyn Future<Output = Result<(), store::Error>> + Send>>;

/// Devices that are named and end in one commit, which all other writers wait for.
const NAMED_PER_COMMIT: usize = 20;

/// Ids start at 1.
const NO_DEVICE: DeviceNid = DeviceNid(0);

/// Which devices of a user end.
#[derive(Debug, Clone)]
pub(super) enum Which {
    These(Vec<OwnedDeviceId>),
    All,
    AllBut(DeviceNid),
}

/// What changes together with the devices.
pub(super) enum Also {
    Nothing,
    /// The password, to the one with this hash.
    Password(String),
    /// The account is deactivated at this time.
    Deactivate(i64),
}

/// Ends devices.
pub(super) struct EndDevices {
    pub user: UserNid,
    /// `None`: all devices stay.
    pub which: Option<Which>,
    pub also: Also,
    sessions: Arc<SessionCache>,
    changes: Changes,
}

/// Who is told that a user's device list changed.
struct Changes {
    bus: Arc<Bus>,
    listener: Arc<OnceLock<DeviceChangeListener>>,
}

impl Changes {
    async fn prepare(&self, user: UserNid) -> Result<(), store::Error> {
        match self.listener.get() {
            Some(listener) => (listener.prepare)(user).await,
            None => Ok(()),
        }
    }

    fn committed(&self, user: UserNid, position: Position) {
        self.bus.mark_user(user, position);
        if let Some(listener) = self.listener.get() {
            (listener.committed)(user, position);
        }
    }
}

/// What [`EndDevices`] did.
pub(super) struct Ended {
    /// `false`: there is no such active account, and nothing happened.
    pub account_found: bool,
    devices: u64,
    revoked: token_rows::Deleted,
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
        let mut ended = Ended { account_found, devices: 0, revoked: Vec::new() };
        if !account_found {
            return Ok(ended);
        }
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
                        ended.revoked.extend(rows::delete_device(conn, self.user, nid, &device.device_id).await?);
                        ended.devices += 1;
                    }
                }
            }
            Some(Which::All) => {
                (ended.devices, ended.revoked) = rows::delete_devices(conn, self.user, NO_DEVICE).await?
            }
            Some(Which::AllBut(kept)) => {
                (ended.devices, ended.revoked) = rows::delete_devices(conn, self.user, *kept).await?;
            }
        }
        if ended.devices > 0 || matches!(self.also, Also::Deactivate(_)) {
            store::committer::insert_rows(conn, &[DEVICE_CHANGE.row([self.user.into(), position.into()])]).await?;
        }
        Ok(ended)
    }

    fn committed(&self, ended: &Ended, position: Position) {
        self.sessions.revoke(&ended.revoked);
        if ended.devices > 0 || matches!(self.also, Also::Deactivate(_)) {
            self.changes.committed(self.user, position);
        }
    }
}

struct Rename {
    user: UserNid,
    device_id: OwnedDeviceId,
    name: Option<String>,
    changes: Changes,
}

impl Transaction for Rename {
    type Output = bool;

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<bool, store::Error> {
        let found = rows::rename_device(conn, self.user, self.device_id.as_str(), self.name.as_deref()).await?;
        if found {
            // Others see the name with the device's keys.
            store::committer::insert_rows(conn, &[DEVICE_CHANGE.row([self.user.into(), position.into()])]).await?;
        }
        Ok(found)
    }

    fn committed(&self, found: &bool, position: Position) {
        if *found {
            self.changes.committed(self.user, position);
        }
    }
}

impl Accounts {
    /// Sets who is told of changed device lists, besides the user. Only the first call counts.
    pub fn on_device_change(&self, listener: DeviceChangeListener) {
        if self.on_device_change.set(listener).is_err() {
            tracing::error!("a second listener for changed device lists was ignored");
        }
    }

    fn changes(&self) -> Changes {
        Changes { bus: Arc::clone(&self.bus), listener: Arc::clone(&self.on_device_change) }
    }

    pub(super) async fn end_devices(
        &self,
        user: UserNid,
        which: Option<Which>,
        also: Also,
    ) -> Result<Ended, store::Error> {
        let changes = self.changes();
        changes.prepare(user).await?;
        let end = EndDevices { user, which, also, sessions: Arc::clone(&self.sessions), changes };
        self.db.committer().transact(end).await
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

    /// Names a device. `Ok(false)`: there is no such device.
    ///
    /// # Errors
    /// The inner one for a name that is too long or has control characters.
    pub async fn rename_device(
        &self,
        user: UserNid,
        id: &DeviceId,
        name: Option<String>,
    ) -> Result<Result<bool, SessionRefusal>, store::Error> {
        if name.as_ref().is_some_and(|name| !is_device_name(name)) {
            return Ok(Err(SessionRefusal::DeviceName));
        }
        let changes = self.changes();
        changes.prepare(user).await?;
        let rename = Rename { user, device_id: id.to_owned(), name, changes };
        Ok(Ok(self.db.committer().transact(rename).await?))
    }

    /// Signs devices out and deletes them. Devices that do not exist are no failure.
    ///
    /// # Errors
    /// When the database fails; some of the devices may be gone then.
    pub async fn delete_devices(&self, user: UserNid, ids: &[OwnedDeviceId]) -> Result<(), store::Error> {
        // Others cannot exist, and a database may refuse to look for them.
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
