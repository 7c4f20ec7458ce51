//! Sessions: authenticates an access token and finds its device.

pub(super) mod cache;
pub mod devices;
pub mod last_seen;
pub mod login;
pub mod new_session;
pub mod refresh;
pub mod tokens;

use std::{net::IpAddr, sync::Arc};

use ruma::{OwnedDeviceId, UserId};
use tokio_util::sync::CancellationToken;

use self::tokens::{TokenKind, has_shape, hash_token};
use super::{Accounts, TokenHash};
use crate::{
    appservice::Appservice,
    store::{self, DeviceNid, tokens as rows, vocabulary::User},
};

/// A device of a local user, authenticated by its access token.
#[derive(Debug, Clone)]
pub struct LocalDevice {
    pub user: Arc<User>,
    pub device_nid: DeviceNid,
    /// `None` for an application service that acts as a user without a device.
    pub device_id: Option<OwnedDeviceId>,
    pub admin: bool,
    /// The time when the token expires, in milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Cancelled when the token is revoked, which ends parked requests.
    pub revoked: CancellationToken,
    /// The application service that acts as this user.
    pub appservice: Option<Arc<Appservice>>,
}

impl LocalDevice {
    pub fn user_id(&self) -> &UserId {
        &self.user.user_id
    }

    /// Returns whether the device is exempt from rate limits: it acts for an application service that is not
    /// rate-limited, or as the service's sender.
    pub fn is_exempt_from_rate_limits(&self) -> bool {
        let is_exempt = |appservice: &Appservice| !appservice.rate_limited || appservice.is_sender(self.user_id());
        self.appservice.as_deref().is_some_and(is_exempt)
    }
}

/// Why a token was rejected.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    #[error("the access token is unknown or was revoked")]
    Unknown,
    #[error("the access token has expired")]
    Expired,
    #[error("the token could not be looked up")]
    Storage(#[from] store::Error),
}

impl Accounts {
    /// Authenticates an access token from the cache, without a query. Returns `None` if it is not cached or no longer
    /// works.
    pub fn authenticate_from_memory(&self, token: &str, address: Option<IpAddr>) -> Option<Arc<LocalDevice>> {
        let device = self.sessions.get(&hash_token(token))?;
        let now = self.clock.now_ms();
        if device.revoked.is_cancelled() || device.expires_at.is_some_and(|at| at <= now) {
            return None;
        }
        self.last_seen.note(device.device_nid, now, address);
        Some(device)
    }

    /// Authenticates an access token.
    ///
    /// # Errors
    /// [`AuthenticateError::Unknown`] also for the token of a device that was logged out.
    pub async fn authenticate(
        &self,
        token: &str,
        address: Option<IpAddr>,
    ) -> Result<Arc<LocalDevice>, AuthenticateError> {
        if !has_shape(TokenKind::Access, token) {
            return Err(AuthenticateError::Unknown);
        }
        let hash = hash_token(token);
        let device = match self.sessions.get(&hash) {
            Some(device) => device,
            None => self.load_session(hash).await?,
        };
        if device.revoked.is_cancelled() {
            return Err(AuthenticateError::Unknown);
        }
        let now = self.clock.now_ms();
        if device.expires_at.is_some_and(|at| at <= now) {
            return Err(AuthenticateError::Expired);
        }
        self.last_seen.note(device.device_nid, now, address);
        Ok(device)
    }

    async fn load_session(&self, hash: TokenHash) -> Result<Arc<LocalDevice>, AuthenticateError> {
        loop {
            let revocations = self.sessions.revocations();
            let read_at = self.db.committer().published();
            let mut reader = self.db.read().await?;
            let Some(row) = rows::find_session(&mut reader.conn(), &hash).await? else {
                // The previous iteration may have cached it before it was revoked.
                self.sessions.remove(&hash);
                return Err(AuthenticateError::Unknown);
            };
            let predecessor = match &row.refresh_hash {
                Some(refresh) => rows::find_predecessor(&mut reader.conn(), refresh).await?,
                None => None,
            };
            drop(reader);
            if let Some(predecessor) = predecessor
                && row.expires_at.is_none_or(|at| at > self.clock.now_ms())
            {
                self.retire_refresh_token(predecessor).await?;
                continue;
            }
            let device = Arc::new(LocalDevice {
                user: self.db.user_by_nid(store::UserNid(row.user_nid)).await?,
                device_nid: DeviceNid(row.device_nid),
                device_id: Some(row.device_id.into()),
                admin: row.admin,
                expires_at: row.expires_at,
                revoked: CancellationToken::new(),
                appservice: None,
            });
            let device = self.sessions.keep(hash, device, read_at);
            if self.sessions.revocations() == revocations {
                return Ok(device);
            }
        }
    }
}
