//! User-Interactive Authentication ([spec]): stages to pass before an operation that cannot be undone.
//!
//! Promises: a stage counts only for the user and the operation for which its session was begun. A password is always
//! compared with the caller's own. A session is used up when its last stage is passed. Sessions are kept in memory, so
//! after a restart the client must authenticate again.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api

mod sessions;

use std::{net::IpAddr, sync::Arc};

use ruma::{
    OwnedUserId,
    api::{
        client::uiaa::{AuthData, AuthFlow, AuthType, UiaaInfo, UserIdentifier},
        error::{ErrorKind, StandardErrorBody},
    },
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use sessions::Progress;
pub use sessions::{Flow, InteractiveAuth, Passed, Stage};

use super::{Accounts, LocalDevice, names::named_user, password::HashingBusy};
use crate::store::{self, accounts as rows, vocabulary::User};

/// The only flow for operations of an account's owner.
pub const PASSWORD: &[Flow] = &[&[Stage::Password]];

/// Why an operation must wait for the authentication.
#[derive(Debug, thiserror::Error)]
pub enum InteractiveAuthError {
    /// The remaining stages, to be sent to the client.
    #[error("stages of the authentication are left")]
    Incomplete(Box<UiaaInfo>),
    /// The client is not asked to retry, because retrying as another user cannot succeed.
    #[error("the authentication is that of another user")]
    OtherUser,
    #[error(transparent)]
    Busy(#[from] HashingBusy),
    #[error("the authentication could not be checked")]
    Storage(#[from] store::Error),
}

/// Why a stage was not passed in a browser.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("there is no such session, or it has expired")]
    NoSession,
    #[error("the password or the token is wrong")]
    Refused,
    #[error(transparent)]
    Busy(#[from] HashingBusy),
    #[error("the proof could not be checked")]
    Storage(#[from] store::Error),
}

impl Accounts {
    /// The user who began the session, if it is alive and was begun by a user.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn owner_of_session(&self, session: &str) -> Result<Option<Arc<User>>, store::Error> {
        match self.interactive_auth.owner(session, self.clock.now_ms()).flatten() {
            Some(owner) => self.db.user_by_nid(owner).await.map(Some),
            None => Ok(None),
        }
    }

    /// Passes a stage of a session outside the original request, which the client then repeats. `proof` is a password
    /// or a token.
    ///
    /// # Errors
    /// [`StageError`]. The session is unchanged then.
    pub async fn pass_stage(&self, session: &str, stage: Stage, proof: Zeroizing<String>) -> Result<(), StageError> {
        let owner = self.interactive_auth.owner(session, self.clock.now_ms()).ok_or(StageError::NoSession)?;
        let mut registration_token = None;
        let is_right = match stage {
            Stage::Password => {
                let account = match owner {
                    Some(owner) => rows::find_account(&mut self.db.read().await?.conn(), owner).await?,
                    None => None,
                };
                let hash = account.and_then(|account| account.password_hash);
                self.verify_password(proof, hash.as_deref()).await?
            }
            Stage::Dummy => true,
            Stage::RegistrationToken => {
                registration_token = Some(proof.to_string());
                self.is_registration_token_valid(&proof).await?
            }
            Stage::Unsupported => false,
        };
        if !is_right {
            return Err(StageError::Refused);
        }
        self.interactive_auth.remember(session, stage, registration_token);
        Ok(())
    }

    /// Checks that the caller knows their password. `operation` names the operation, for instance `DELETE devices/ABC`.
    /// A stage passed for one operation does not count for another.
    ///
    /// # Errors
    /// [`InteractiveAuthError::Incomplete`] until the caller has authenticated.
    pub async fn require_password(
        &self,
        caller: &LocalDevice,
        operation: &str,
        auth: Option<&AuthData>,
    ) -> Result<(), InteractiveAuthError> {
        self.authenticate_interactively(Some(caller), operation, PASSWORD, auth, None).await.map(drop)
    }

    /// Processes one stage, and succeeds when all stages of one of the `flows` are passed. Sessions of strangers are
    /// counted by the `network` of their requests.
    ///
    /// # Errors
    /// [`InteractiveAuthError::Incomplete`] while stages are missing or when the stage failed.
    pub async fn authenticate_interactively(
        &self,
        caller: Option<&LocalDevice>,
        operation: &str,
        flows: &[Flow],
        auth: Option<&AuthData>,
        network: Option<IpAddr>,
    ) -> Result<Passed, InteractiveAuthError> {
        let owner = caller.map(|caller| caller.user.nid);
        let now = self.clock.now_ms();
        let sessions = &self.interactive_auth;
        let ask = |session: String, error: Option<(ErrorKind, &str)>| {
            let completed = sessions.completed(&session);
            Err(InteractiveAuthError::Incomplete(Box::new(challenge(flows, completed, session, error))))
        };
        let begin = || sessions.begin(owner, network, operation, now);
        let Some(auth) = auth else {
            return ask(begin(), None);
        };
        let session = match auth.session() {
            Some(session) if sessions.is_open(session, owner, operation, now) => session.to_owned(),
            Some(_) => {
                return ask(begin(), Some((ErrorKind::Unknown, "The session is unknown or has expired. Try again.")));
            }
            None => begin(),
        };
        let Some(stage) = stage(auth) else {
            // Without a type, the client asks whether a stage that it passed elsewhere was enough.
            return match sessions.look(&session, flows) {
                Progress::Passed(passed) => Ok(passed),
                Progress::Open => ask(session, None),
            };
        };
        if !flows.iter().any(|flow| flow.contains(&stage)) {
            return ask(session, Some((ErrorKind::Unrecognized, "This is no stage of the authentication.")));
        }
        let mut registration_token = None;
        match auth {
            AuthData::Password(password) => {
                let fits = match caller {
                    Some(caller) if self.names_another(caller, password) => {
                        return Err(InteractiveAuthError::OtherUser);
                    }
                    Some(caller) => self.is_password_of(caller, password).await?,
                    None => false,
                };
                if !fits {
                    return ask(session, Some((ErrorKind::Forbidden, "Wrong user name or password.")));
                }
            }
            AuthData::RegistrationToken(token) => {
                if !self.is_registration_token_valid(&token.token).await? {
                    return ask(session, Some((ErrorKind::Unauthorized, "The registration token is not valid.")));
                }
                registration_token = Some(token.token.clone());
            }
            // The only other stage here is the dummy, which needs no check.
            _ => {}
        }
        match sessions.pass(&session, stage, registration_token, flows) {
            Progress::Passed(passed) => Ok(passed),
            Progress::Open => ask(session, None),
        }
    }

    fn named(&self, auth: &ruma::api::client::uiaa::Password) -> Option<OwnedUserId> {
        match &auth.identifier {
            UserIdentifier::Matrix(identifier) => named_user(&identifier.user, &self.settings.server_name),
            _ => None,
        }
    }

    fn names_another(&self, caller: &LocalDevice, auth: &ruma::api::client::uiaa::Password) -> bool {
        self.named(auth).is_some_and(|named| named != caller.user_id())
    }

    async fn is_password_of(
        &self,
        caller: &LocalDevice,
        auth: &ruma::api::client::uiaa::Password,
    ) -> Result<bool, InteractiveAuthError> {
        let named = self.named(auth);
        let account = rows::find_account(&mut self.db.read().await?.conn(), caller.user.nid).await?;
        let hash = account.filter(|_| named.as_deref() == Some(caller.user_id())).and_then(|row| row.password_hash);
        Ok(self.verify_password(Zeroizing::new(auth.password.clone()), hash.as_deref()).await?)
    }
}

/// The stage that the client tries to pass; `None` if it only asks.
fn stage(auth: &AuthData) -> Option<Stage> {
    match auth {
        AuthData::Password(_) => Some(Stage::Password),
        AuthData::Dummy(_) => Some(Stage::Dummy),
        AuthData::RegistrationToken(_) => Some(Stage::RegistrationToken),
        AuthData::FallbackAcknowledgement(_) => None,
        _ => Some(Stage::Unsupported),
    }
}

fn auth_type(stage: Stage) -> Option<AuthType> {
    match stage {
        Stage::Password => Some(AuthType::Password),
        Stage::Dummy => Some(AuthType::Dummy),
        Stage::RegistrationToken => Some(AuthType::RegistrationToken),
        Stage::Unsupported => None,
    }
}

fn challenge(flows: &[Flow], completed: Vec<Stage>, session: String, error: Option<(ErrorKind, &str)>) -> UiaaInfo {
    let flows = flows.iter().map(|flow| AuthFlow::new(flow.iter().copied().filter_map(auth_type).collect()));
    let mut info = UiaaInfo::new(flows.collect());
    info.completed = completed.into_iter().filter_map(auth_type).collect();
    // None of our stages has parameters, but clients expect the object.
    info.params = RawValue::from_string("{}".to_owned()).ok();
    info.session = Some(session);
    info.auth_error = error.map(|(kind, message)| Box::new(StandardErrorBody::new(kind, message.to_owned())));
    info
}
