//! Changing passwords, and deactivating accounts permanently.

use ruma::UserId;
use zeroize::Zeroizing;

use super::{
    Accounts, LocalDevice,
    password::{HashingBusy, NewPasswordError, WeakPassword},
    session::devices::{Also, Which},
};
use crate::store::{self, UserNid};

/// Why a password was not set.
#[derive(Debug, thiserror::Error)]
pub enum SetPasswordError {
    #[error("the password cannot be used")]
    WeakPassword(#[from] WeakPassword),
    #[error(transparent)]
    Busy(#[from] HashingBusy),
    #[error("there is no active account with this name")]
    NoAccount,
    #[error("the password could not be stored")]
    Storage(#[from] store::Error),
}

impl From<NewPasswordError> for SetPasswordError {
    fn from(error: NewPasswordError) -> Self {
        match error {
            NewPasswordError::Weak(error) => error.into(),
            NewPasswordError::Busy(error) => error.into(),
        }
    }
}

impl Accounts {
    /// Changes the caller's password. With `logout_devices`, this signs out all devices except the caller's.
    ///
    /// # Errors
    /// After [`SetPasswordError::Storage`] the old or the new password is valid.
    pub async fn change_password(
        &self,
        caller: &LocalDevice,
        password: Zeroizing<String>,
        logout_devices: bool,
    ) -> Result<(), SetPasswordError> {
        let which = logout_devices.then_some(Which::AllBut(caller.device_nid));
        self.set_password(caller.user.nid, password, which).await
    }

    /// Changes a user's password and signs out all devices, for the operator.
    ///
    /// # Errors
    /// As [`Self::change_password`].
    pub async fn reset_password(&self, user_id: &UserId, password: Zeroizing<String>) -> Result<(), SetPasswordError> {
        let user = self.db.find_user(user_id).await?.ok_or(SetPasswordError::NoAccount)?;
        self.set_password(user.nid, password, Some(Which::All)).await
    }

    async fn set_password(
        &self,
        user: UserNid,
        password: Zeroizing<String>,
        which: Option<Which>,
    ) -> Result<(), SetPasswordError> {
        let hash = self.hash_new_password(password).await?;
        let ended = self.end_devices(user, which, Also::Password(hash)).await?;
        if ended.account_found { Ok(()) } else { Err(SetPasswordError::NoAccount) }
    }

    /// Deactivates an account: deletes its devices, password, profile, account data and keys. The name is never given
    /// out again. Returns `Ok(false)` if there is no such active account.
    ///
    /// Does not leave the user's rooms: `room` does that before, while the user can still send.
    pub async fn deactivate(&self, user_id: &UserId) -> Result<bool, store::Error> {
        let Some(user) = self.db.find_user(user_id).await? else {
            return Ok(false);
        };
        let also = Also::Deactivate(self.clock.now_ms());
        let ended = self.end_devices(user.nid, Some(Which::All), also).await?;
        if ended.account_found {
            tracing::info!(%user_id, "account deactivated");
        }
        Ok(ended.account_found)
    }
}
