//! Application services acting as users of this server ([spec]): they authenticate as a user, create accounts, log in
//! and create devices, all without a password.
//!
//! Promise: an application service acts only as users that its namespaces cover. The namespaces are in
//! [`crate::appservice`].
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#client-server-api-extensions

use std::{net::IpAddr, sync::Arc};

use ruma::{DeviceId, OwnedDeviceId};
use tokio_util::sync::CancellationToken;

use super::{
    Accounts, LocalDevice, NewSession, Session,
    names::named_user,
    register::{Permit, RegisterError, Registration},
    session::{
        login::LoginError,
        new_session::{Draft, SessionRefusal, check_device},
    },
};
use crate::{
    appservice::{Appservice, Exclusive},
    store::{
        self, Conn, DeviceNid, Position, Transaction, UserNid, accounts as account_rows,
        devices::{self as device_rows, DeviceColumns},
        log::Touch,
    },
};

/// The user as which an application service wants to act. By default its sender, without a device.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Asserted {
    pub user_id: Option<String>,
    #[serde(alias = "org.matrix.msc3202.device_id")]
    pub device_id: Option<OwnedDeviceId>,
}

/// Why an application service may not act as a user.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the application service may not act as this user")]
    NotCovered,
    #[error("the application service has not registered this user")]
    NotRegistered,
    #[error("this account was deactivated")]
    Deactivated,
    #[error("the user has no such device")]
    UnknownDevice,
    #[error("the user could not be looked up")]
    Storage(#[from] store::Error),
}

/// Why an application service did not log a user in.
#[derive(Debug, thiserror::Error)]
pub enum AppserviceLoginError {
    #[error(transparent)]
    Exclusive(#[from] Exclusive),
    #[error(transparent)]
    Login(#[from] LoginError),
}

/// A number that means no device of this user. Short ids of devices begin at 1, so it equals none of them.
fn no_device(user: UserNid) -> DeviceNid {
    DeviceNid(-user.0)
}

impl Accounts {
    /// Authenticates an application service as a user, and optionally as one of their devices.
    ///
    /// # Errors
    /// When the application service may not act as the user, or when the account or device does not exist.
    pub async fn act_as(
        &self,
        appservice: &Arc<Appservice>,
        asserted: Asserted,
        address: Option<IpAddr>,
    ) -> Result<Arc<LocalDevice>, IdentityError> {
        let user_id = match &asserted.user_id {
            Some(name) => named_user(name, &self.settings.server_name)
                .filter(|user_id| name.starts_with('@') && appservice.covers_user(user_id))
                .ok_or(IdentityError::NotCovered)?,
            None => appservice.sender.clone(),
        };
        let user = self.db.find_user(&user_id).await?.ok_or(IdentityError::NotRegistered)?;
        let mut reader = self.db.read().await?;
        let account = account_rows::find_account(&mut reader.conn(), user.nid).await?;
        let account = account.ok_or(IdentityError::NotRegistered)?;
        if account.deactivated_at.is_some() {
            return Err(IdentityError::Deactivated);
        }
        let mut device_nid = no_device(user.nid);
        if let Some(id) = &asserted.device_id {
            let found = device_rows::find_device(&mut reader.conn(), user.nid, id.as_str()).await?;
            device_nid = DeviceNid(found.ok_or(IdentityError::UnknownDevice)?.device_nid);
            self.last_seen.note(device_nid, self.clock.now_ms(), address);
        }
        drop(reader);
        Ok(Arc::new(LocalDevice {
            user,
            device_nid,
            device_id: asserted.device_id,
            admin: account.admin,
            expires_at: None,
            revoked: CancellationToken::new(),
            appservice: Some(Arc::clone(appservice)),
        }))
    }

    /// Logs in a user of an application service, without a password.
    ///
    /// # Errors
    /// [`AppserviceLoginError::Exclusive`] for a user that its namespaces do not cover. Otherwise as [`Self::login`].
    pub async fn login_for(
        &self,
        appservice: &Appservice,
        name: &str,
        wanted: NewSession,
    ) -> Result<Session, AppserviceLoginError> {
        let covered = named_user(name, &self.settings.server_name).filter(|user_id| appservice.covers_user(user_id));
        let user_id = covered.ok_or(Exclusive)?;
        let open = async {
            let user = self.db.find_user(&user_id).await?.ok_or(LoginError::Forbidden)?;
            let (draft, session) = self.draft_session(&user_id, wanted)??;
            let open = OpenSession { user: user.nid, session: draft };
            self.db.committer().transact(open).await??;
            Ok(session)
        };
        open.await.map_err(AppserviceLoginError::Login)
    }

    /// Creates a device without an access token, for use by its application service. Returns `false` if the device
    /// exists; it stays as it is.
    ///
    /// # Errors
    /// [`SessionRefusal`] for an invalid ID or name, or for too many devices.
    pub async fn create_device(
        &self,
        user: UserNid,
        id: &DeviceId,
        display_name: Option<String>,
    ) -> Result<Result<bool, SessionRefusal>, store::Error> {
        if let Err(refusal) = check_device(Some(id), display_name.as_deref()) {
            return Ok(Err(refusal));
        }
        let create = CreateDevice {
            nid: self.db.committer().ids().device()?,
            user,
            id: id.to_owned(),
            display_name,
            now: self.clock.now_ms(),
            max_devices: i64::from(self.settings.devices_per_user),
        };
        self.db.committer().transact(create).await
    }

    /// Creates the missing accounts of the application services' senders. Called at the start.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn register_senders(&self) -> Result<(), RegisterError> {
        for appservice in self.appservices.iter() {
            if self.find_account(&appservice.sender).await?.is_some() {
                continue;
            }
            self.register(Registration {
                username: Some(appservice.sender.localpart().to_owned()),
                password: None,
                admin: false,
                displayname: None,
                session: None,
                permit: Permit::Appservice(Arc::clone(appservice)),
            })
            .await?;
        }
        Ok(())
    }
}

struct OpenSession {
    user: UserNid,
    session: Draft,
}

impl Transaction for OpenSession {
    type Output = Result<(), LoginError>;
    const ESSENTIAL: bool = true;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, store::Error> {
        let Some(account) = account_rows::find_account(conn, self.user).await? else {
            return Ok(Err(LoginError::Forbidden));
        };
        if account.deactivated_at.is_some() {
            return Ok(Err(LoginError::Deactivated));
        }
        match self.session.place(conn, self.user).await? {
            Ok(place) => Ok(Ok(self.session.store(conn, self.user, place).await?)),
            Err(refusal) => Ok(Err(refusal.into())),
        }
    }
}

struct CreateDevice {
    nid: DeviceNid,
    user: UserNid,
    id: OwnedDeviceId,
    display_name: Option<String>,
    now: i64,
    max_devices: i64,
}

impl Transaction for CreateDevice {
    type Output = Result<bool, SessionRefusal>;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, store::Error> {
        if device_rows::find_device(conn, self.user, self.id.as_str()).await?.is_some() {
            return Ok(Ok(false));
        }
        if device_rows::count_devices(conn, self.user).await? >= self.max_devices {
            return Ok(Err(SessionRefusal::TooManyDevices));
        }
        let row = DeviceColumns {
            device_nid: self.nid,
            user_nid: self.user,
            device_id: self.id.as_str().into(),
            display_name: self.display_name.clone().map(Into::into),
            created_at: self.now,
            last_seen_at: None,
            last_seen_ip: None,
        }
        .row();
        conn.touch(Touch::Device { user: self.user, device: self.nid, gone: false });
        store::committer::insert_rows(conn, &[row]).await?;
        Ok(Ok(true))
    }
}
