//! Sessions: from an access token to the device that holds it.

use std::{net::IpAddr, sync::Arc};

use axum::http::StatusCode;
use ruma::{
    OwnedDeviceId, UserId,
    api::error::{ErrorKind, UnknownTokenErrorData},
};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::Accounts;
use crate::{
    http::ApiError,
    store::{self, DeviceNid, accounts as rows, vocabulary::User},
};

/// How a token is stored and looked up.
pub type TokenHash = [u8; 32];

/// A device of a local user, known by its access token.
#[derive(Debug)]
pub struct LocalDevice {
    pub user: Arc<User>,
    pub device_nid: DeviceNid,
    pub device_id: OwnedDeviceId,
    pub admin: bool,
    /// When the token ends, in milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Cancelled when the token is revoked; parked requests end then.
    pub revoked: CancellationToken,
}

impl LocalDevice {
    pub fn user_id(&self) -> &UserId {
        &self.user.user_id
    }
}

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    #[error("the access token is unknown or was revoked")]
    Unknown,
    #[error("the access token has expired")]
    Expired,
    #[error("the token could not be looked up")]
    Storage(#[from] store::Error),
}

impl From<AuthenticateError> for ApiError {
    fn from(error: AuthenticateError) -> Self {
        let unknown_token = |soft_logout| {
            let mut data = UnknownTokenErrorData::new();
            data.soft_logout = soft_logout;
            Self::new(StatusCode::UNAUTHORIZED, ErrorKind::UnknownToken(data), error.to_string())
        };
        match error {
            AuthenticateError::Unknown => unknown_token(false),
            AuthenticateError::Expired => unknown_token(true),
            AuthenticateError::Storage(error) => error.into(),
        }
    }
}

/// The form in which a secret token is stored: it cannot be turned back.
pub fn hash_token(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

impl Accounts {
    /// The device that holds this access token.
    ///
    /// # Errors
    /// [`AuthenticateError::Unknown`] also for the token of a device that was logged out.
    pub async fn authenticate(
        &self,
        token: &str,
        address: Option<IpAddr>,
    ) -> Result<Arc<LocalDevice>, AuthenticateError> {
        // Where a device was last seen is written by a later sweep, never by the request.
        let _ = address;
        let hash = hash_token(token);
        let device = match self.sessions.get(&hash) {
            Some(device) => device,
            None => self.load_session(hash).await?,
        };
        if device.revoked.is_cancelled() {
            return Err(AuthenticateError::Unknown);
        }
        if device.expires_at.is_some_and(|at| at <= self.clock.now_ms()) {
            return Err(AuthenticateError::Expired);
        }
        Ok(device)
    }

    async fn load_session(&self, hash: TokenHash) -> Result<Arc<LocalDevice>, AuthenticateError> {
        let mut reader = self.db.read().await?;
        let row = rows::find_session(&mut reader.conn(), &hash).await?.ok_or(AuthenticateError::Unknown)?;
        drop(reader);
        let user = self.db.user_by_nid(store::UserNid(row.user_nid)).await?;
        let device = Arc::new(LocalDevice {
            user,
            device_nid: DeviceNid(row.device_nid),
            device_id: row.device_id.into(),
            admin: row.admin,
            expires_at: row.expires_at,
            revoked: CancellationToken::new(),
        });
        // Of two requests that load the same session, both must hold the one that a logout will cancel.
        match self.sessions.get_or_insert_with(&hash, || Ok::<_, std::convert::Infallible>(Arc::clone(&device))) {
            Ok(device) => Ok(device),
            Err(never) => match never {},
        }
    }
}
