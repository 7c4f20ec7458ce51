//! The operations that an operator can run from the command line. A running server carries them out (see
//! [`crate::server::control`]), or else the command itself, after it has opened the database. Both run the same code.

use ruma::OwnedUserId;
use sabha_federation::{KeyFileError, key_file};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    account::{deactivate::SetPasswordError, names::named_user, register::RegisterError},
    app::App,
    remote::signing_key::{RotateError, SigningKeys, StoredKey},
    store,
    use_cases::deactivation,
};

/// Entries that one read of a listing returns. To read on, pass the last entry as `after`.
pub const PAGE: u32 = 500;

/// An operation that the operator asks for. `name` is the part before the colon, or a whole user ID of this server.
#[derive(Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// `{user_id, admin}`
    CreateUser { name: String, password: Zeroizing<String>, admin: bool },
    /// A list of `{user_id, admin, created_at, deactivated_at}`, by user ID.
    ListUsers { after: Option<OwnedUserId> },
    /// `{user_id}`
    ResetPassword { name: String, password: Zeroizing<String> },
    /// `{user_id, admin}`
    SetAdmin { name: String, admin: bool },
    /// `{user_id}`
    DeactivateUser { name: String },
    /// `{token, uses_allowed, expires_at, registration}`, where `registration` is the mode of the server that made it.
    NewToken { uses: Option<u32>, lifetime_ms: Option<i64> },
    /// A list of `{token, uses_allowed, used, expires_at, created_at}`, by token.
    ListTokens { after: Option<String> },
    /// `{token}`
    RevokeToken { token: String },
    /// A list of `{key_id, public_key, created_at, expired_at}`, oldest first. The one in use has no end.
    ListKeys,
    /// `{key_id, file, backup_needed}`
    RotateKey,
    /// `{key_id, file, backup_needed}`. `file` has the form that we write ([`key_file`]).
    ImportKeys { file: Zeroizing<String> },
}

/// The reason why an operation failed, as a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    #[error("{0} is not a name of this server; write the part before the colon, such as alice")]
    NotOurs(String),
    #[error("there is no active account {0}")]
    NoAccount(OwnedUserId),
    #[error("there is no token {0}")]
    NoToken(String),
    #[error("the account was not made")]
    NotRegistered(#[source] RegisterError),
    #[error("the password was not set")]
    NotSet(#[source] SetPasswordError),
    #[error("the file holds no signing key that can be used")]
    NoKey(#[from] KeyFileError),
    #[error("the signing key was not changed")]
    NotRotated(#[from] RotateError),
    #[error("the database failed")]
    Storage(#[from] store::Error),
}

/// Carries out the operation and returns its result, in the form that each [`Operation`] documents.
///
/// # Errors
/// After an error nothing has changed, except after a database failure, when something may have.
pub async fn carry_out(app: &App, operation: Operation) -> Result<Value, OperationError> {
    match operation {
        Operation::CreateUser { name, password, admin } => {
            let name = if name.starts_with('@') { our_user(app, name)?.localpart().to_owned() } else { name };
            let created = app.accounts.create_user(&name, Some(password), admin).await;
            let user_id = created.map_err(OperationError::NotRegistered)?;
            Ok(json!({ "user_id": user_id, "admin": admin }))
        }
        Operation::ListUsers { after } => {
            let users = app.accounts.list_users(after.as_deref(), PAGE).await?;
            let entry = |user: crate::account::directory::ListedAccount| {
                json!({
                    "user_id": user.user_id,
                    "admin": user.account.admin,
                    "created_at": user.account.created_at,
                    "deactivated_at": user.account.deactivated_at,
                })
            };
            Ok(users.into_iter().map(entry).collect())
        }
        Operation::ResetPassword { name, password } => {
            let user_id = our_user(app, name)?;
            match app.accounts.reset_password(&user_id, password).await {
                Ok(()) => Ok(json!({ "user_id": user_id })),
                Err(SetPasswordError::NoAccount) => Err(OperationError::NoAccount(user_id)),
                Err(error) => Err(OperationError::NotSet(error)),
            }
        }
        Operation::SetAdmin { name, admin } => {
            let user_id = our_user(app, name)?;
            if !app.accounts.set_admin(&user_id, admin).await? {
                return Err(OperationError::NoAccount(user_id));
            }
            Ok(json!({ "user_id": user_id, "admin": admin }))
        }
        Operation::DeactivateUser { name } => {
            let user_id = our_user(app, name)?;
            if !deactivation::deactivate(app, &user_id).await? {
                return Err(OperationError::NoAccount(user_id));
            }
            Ok(json!({ "user_id": user_id }))
        }
        Operation::NewToken { uses, lifetime_ms } => {
            let expires_at = lifetime_ms.map(|lifetime| app.clock.now_ms().saturating_add(lifetime));
            let token = app.accounts.new_registration_token(uses, expires_at).await?;
            let registration = app.config.registration.mode.to_string();
            Ok(json!({ "token": token, "uses_allowed": uses, "expires_at": expires_at, "registration": registration }))
        }
        Operation::ListTokens { after } => {
            let tokens = app.accounts.list_registration_tokens(after.as_deref(), PAGE).await?;
            let entry = |token: crate::account::registration_tokens::RegistrationToken| {
                json!({
                    "token": token.token,
                    "uses_allowed": token.uses_allowed,
                    "used": token.used,
                    "expires_at": token.expires_at,
                    "created_at": token.created_at,
                })
            };
            Ok(tokens.into_iter().map(entry).collect())
        }
        Operation::RevokeToken { token } => {
            if !app.accounts.revoke_registration_token(&token).await? {
                return Err(OperationError::NoToken(token));
            }
            Ok(json!({ "token": token }))
        }
        Operation::ListKeys => {
            let entry = |key: StoredKey| {
                json!({
                    "key_id": key.key_id,
                    "public_key": key.key.to_base64(),
                    "created_at": key.created_at,
                    "expired_at": key.expired_at,
                })
            };
            Ok(app.signing_keys.list().await?.into_iter().map(entry).collect())
        }
        Operation::RotateKey => change_key(app, async |keys| keys.rotate().await).await,
        Operation::ImportKeys { file } => {
            let imported = key_file::read(file.as_bytes())?;
            change_key(app, async |keys| keys.import(imported).await).await
        }
    }
}

async fn change_key(
    app: &App,
    change: impl AsyncFnOnce(&SigningKeys) -> Result<(), RotateError>,
) -> Result<Value, OperationError> {
    let before = app.signer.key_id();
    change(&app.signing_keys).await?;
    let key_id = app.signer.key_id();
    Ok(json!({ "key_id": key_id, "file": app.signing_keys.file(), "backup_needed": key_id != before }))
}

fn our_user(app: &App, name: String) -> Result<OwnedUserId, OperationError> {
    named_user(&name, &app.config.server_name).ok_or(OperationError::NotOurs(name))
}
