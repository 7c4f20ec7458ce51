//! A new session: its device and its tokens.

use std::time::Duration;

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use super::tokens::{NewToken, TokenKind};
use crate::{
    account::{Accounts, TokenHash, millis},
    store::{
        self, Conn, DeviceNid, Row,
        devices::{self as device_rows, DeviceColumns},
        log::Touch,
        tokens::{self as token_rows, AccessTokenColumns, RefreshTokenColumns},
    },
};

/// Maximum length of a device ID from a client.
pub const MAX_DEVICE_ID_BYTES: usize = 255;

/// Maximum length of a device's name: more than any client shows.
pub const MAX_DEVICE_NAME_BYTES: usize = 512;

/// Checks the ID and the name of a device.
pub(in crate::account) fn check_device(id: Option<&DeviceId>, name: Option<&str>) -> Result<(), SessionRefusal> {
    if id.is_some_and(|id| !is_device_id(id.as_str())) {
        return Err(SessionRefusal::DeviceId);
    }
    if name.is_some_and(|name| !is_device_name(name)) {
        return Err(SessionRefusal::DeviceName);
    }
    Ok(())
}

/// Returns whether a device may have this ID.
pub(in crate::account) fn is_device_id(id: &str) -> bool {
    (1..=MAX_DEVICE_ID_BYTES).contains(&id.len()) && !id.chars().any(char::is_control)
}

/// Returns whether a device may have this name.
pub(in crate::account) fn is_device_name(name: &str) -> bool {
    name.len() <= MAX_DEVICE_NAME_BYTES && !name.chars().any(char::is_control)
}

/// The new session as the client requests it.
#[derive(Debug, Default)]
pub struct NewSession {
    /// The ID of an existing device to reuse, or a new ID of the client's choice.
    pub device_id: Option<OwnedDeviceId>,
    pub display_name: Option<String>,
    /// Whether the client can refresh its access token.
    pub refreshable: bool,
}

/// A session with its secrets, which only the client may see.
pub struct Session {
    pub user_id: OwnedUserId,
    pub device_id: OwnedDeviceId,
    pub secrets: Secrets,
}

/// Why a session was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefusal {
    #[error("a device ID has 1 to {MAX_DEVICE_ID_BYTES} bytes and no control characters")]
    DeviceId,
    #[error("the name of a device has at most {MAX_DEVICE_NAME_BYTES} bytes and no control characters")]
    DeviceName,
    #[error("this account has too many devices; sign one of them out first")]
    TooManyDevices,
}

/// A session that is about to be stored.
#[derive(Debug)]
pub(in crate::account) struct Draft {
    device_id: OwnedDeviceId,
    display_name: Option<String>,
    /// The short id to use if the device is new.
    new_nid: DeviceNid,
    tokens: TokenPair,
    now: i64,
    max_devices: i64,
}

/// The stored part of an access token and its refresh token.
#[derive(Debug, Clone, Copy)]
pub(in crate::account) struct TokenPair {
    access: TokenHash,
    refresh: Option<TokenHash>,
    expires_in: Option<Duration>,
    refresh_expires_in: Option<Duration>,
}

/// The tokens themselves, which only the client may see.
pub struct Secrets {
    pub access_token: String,
    pub refresh_token: Option<String>,
    pub expires_in: Option<Duration>,
}

impl TokenPair {
    /// The rows that store the pair for a device.
    pub fn rows(&self, user: store::UserNid, device: DeviceNid, now: i64) -> Vec<Row> {
        let at = |time: Option<Duration>| time.map(|time| now.saturating_add(millis(time)));
        let refresh_hash = self.refresh.map(|hash| hash.to_vec());
        let mut rows = vec![
            AccessTokenColumns {
                token_hash: self.access.to_vec(),
                user_nid: user,
                device_nid: device,
                created_at: now,
                expires_at: at(self.expires_in),
                refresh_hash: refresh_hash.clone(),
            }
            .row(),
        ];
        if let Some(hash) = refresh_hash {
            rows.push(
                RefreshTokenColumns {
                    token_hash: hash,
                    user_nid: user,
                    device_nid: device,
                    next_hash: None,
                    created_at: now,
                    expires_at: at(self.refresh_expires_in),
                }
                .row(),
            );
        }
        rows
    }

    /// The hash of the refresh token, if the pair has one.
    pub fn refresh_hash(&self) -> Option<&TokenHash> {
        self.refresh.as_ref()
    }
}

/// The device of a draft: a new or an existing one.
#[derive(Debug, Clone, Copy)]
pub(in crate::account) enum SessionDevice {
    New,
    Known(DeviceNid),
}

impl Draft {
    /// Finds the device that the draft logs in. An existing one is reused.
    pub async fn place(
        &self,
        conn: &mut Conn<'_>,
        user: store::UserNid,
    ) -> Result<Result<SessionDevice, SessionRefusal>, store::Error> {
        if let Some(device) = device_rows::find_device(conn, user, self.device_id.as_str()).await? {
            return Ok(Ok(SessionDevice::Known(DeviceNid(device.device_nid))));
        }
        if device_rows::count_devices(conn, user).await? >= self.max_devices {
            return Ok(Err(SessionRefusal::TooManyDevices));
        }
        Ok(Ok(SessionDevice::New))
    }

    /// Stores the session, and deletes the tokens that it replaces.
    pub async fn store(
        &self,
        conn: &mut Conn<'_>,
        user: store::UserNid,
        place: SessionDevice,
    ) -> Result<(), store::Error> {
        let rows = match place {
            SessionDevice::New => {
                conn.touch(self.touch(user));
                self.rows(user)
            }
            SessionDevice::Known(device) => {
                token_rows::delete_of_device(conn, device).await?;
                self.tokens.rows(user, device, self.now)
            }
        };
        store::committer::insert_rows(conn, &rows).await
    }

    /// The touch of a session on a new device.
    pub fn touch(&self, user: store::UserNid) -> Touch {
        Touch::Device { user, device: self.new_nid, gone: false }
    }

    /// The rows of a session on a new device.
    pub fn rows(&self, user: store::UserNid) -> Vec<Row> {
        let mut rows = vec![
            DeviceColumns {
                device_nid: self.new_nid,
                user_nid: user,
                device_id: self.device_id.as_str().into(),
                display_name: self.display_name.clone().map(Into::into),
                created_at: self.now,
                last_seen_at: None,
                last_seen_ip: None,
            }
            .row(),
        ];
        rows.extend(self.tokens.rows(user, self.new_nid, self.now));
        rows
    }
}

impl Accounts {
    /// Creates a session to be stored, and the secrets for the client once it is stored.
    pub(in crate::account) fn draft_session(
        &self,
        user_id: &UserId,
        wanted: NewSession,
    ) -> Result<Result<(Draft, Session), SessionRefusal>, store::Error> {
        if let Err(refusal) = check_device(wanted.device_id.as_deref(), wanted.display_name.as_deref()) {
            return Ok(Err(refusal));
        }
        let device_id = wanted.device_id.unwrap_or_else(DeviceId::new);
        let (tokens, secrets) = self.new_tokens(wanted.refreshable);
        let draft = Draft {
            device_id: device_id.clone(),
            display_name: wanted.display_name,
            new_nid: self.db.committer().ids().device()?,
            tokens,
            now: self.clock.now_ms(),
            max_devices: i64::from(self.settings.devices_per_user),
        };
        Ok(Ok((draft, Session { user_id: user_id.to_owned(), device_id, secrets })))
    }

    /// Creates tokens with the configured lifetimes.
    pub(in crate::account) fn new_tokens(&self, refreshable: bool) -> (TokenPair, Secrets) {
        let access = NewToken::generate(TokenKind::Access);
        let refresh = refreshable.then(|| NewToken::generate(TokenKind::Refresh));
        let expires_in = if refreshable {
            Some(self.settings.refreshable_access_token_lifetime)
        } else {
            self.settings.access_token_lifetime
        };
        let pair = TokenPair {
            access: access.hash,
            refresh: refresh.as_ref().map(|token| token.hash),
            expires_in,
            refresh_expires_in: self.settings.refresh_token_lifetime,
        };
        let refresh_token = refresh.map(|token| token.secret);
        (pair, Secrets { access_token: access.secret, refresh_token, expires_in })
    }
}
