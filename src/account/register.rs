//! Registration: creates an account with its first data, in one commit.

use std::sync::Arc;

use ruma::OwnedUserId;
use zeroize::Zeroizing;

use super::{
    Accounts, NewSession, Session, TokenHash,
    names::{NameError, new_appservice_user_id, new_user_id, random_localpart},
    password::{HashingBusy, NewPasswordError, WeakPassword},
    registration_tokens::is_usable,
    session::new_session::{Draft, SessionRefusal},
};
use crate::{
    appservice::{Appservice, Exclusive},
    store::{
        self, Conn, Position, ServerNid, Transaction,
        accounts::{self as rows, AccountColumns},
        log::Touch,
        profiles::ProfileColumns,
        vocabulary::{User, UserColumns},
    },
};

/// The reason why a registration is allowed. Checked again, and used up, in the commit that creates the account.
#[derive(Clone)]
pub enum Permit {
    /// Registration is open, or the operator creates the account.
    Free,
    /// A registration token; this takes one of its uses.
    RegistrationToken(String),
    /// The setup secret, which creates the first administrator.
    SetupSecret(TokenHash),
    /// An application service, for a user that its namespaces cover.
    Appservice(Arc<Appservice>),
}

/// Why an account was not created.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("the user name cannot be used")]
    Name(#[from] NameError),
    #[error(transparent)]
    Exclusive(#[from] Exclusive),
    #[error("the user name is taken, or was taken once")]
    InUse,
    #[error("the password cannot be used")]
    WeakPassword(#[from] WeakPassword),
    #[error(transparent)]
    Busy(#[from] HashingBusy),
    #[error("the registration token is unknown, has expired or is used up")]
    TokenUsedUp,
    #[error("the setup secret is unknown, has expired or was used")]
    SetupSecret,
    #[error("the session cannot be made")]
    Session(#[from] SessionRefusal),
    #[error("the account could not be stored")]
    Storage(#[from] store::Error),
}

impl From<NewPasswordError> for RegisterError {
    fn from(error: NewPasswordError) -> Self {
        match error {
            NewPasswordError::Weak(error) => error.into(),
            NewPasswordError::Busy(error) => error.into(),
        }
    }
}

/// The account to register.
pub struct Registration {
    /// The localpart. Without one, the server chooses.
    pub username: Option<String>,
    /// Without a password nobody can log in, until the operator sets one.
    pub password: Option<Zeroizing<String>>,
    pub admin: bool,
    /// The display name in the profile. Without one, the localpart.
    pub displayname: Option<String>,
    /// The first session, if the account starts with one.
    pub session: Option<NewSession>,
    pub permit: Permit,
}

/// The account and its tokens. The transaction checks and stores them in one commit, with no other write in between.
struct CreateAccount {
    user: Arc<User>,
    password_hash: Option<String>,
    admin: bool,
    displayname: Option<String>,
    now: i64,
    session: Option<Draft>,
    permit: Permit,
}

impl Transaction for CreateAccount {
    type Output = Result<(), RegisterError>;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, store::Error> {
        // All checks come before the first row, so a refused registration stores nothing.
        if rows::find_account(conn, self.user.nid).await?.is_some() {
            return Ok(Err(RegisterError::InUse));
        }
        match &self.permit {
            Permit::Free | Permit::Appservice(_) => {}
            Permit::RegistrationToken(token) => {
                let found = rows::find_registration_token(conn, token).await?;
                if !found.is_some_and(|row| is_usable(&row, self.now)) {
                    return Ok(Err(RegisterError::TokenUsedUp));
                }
                rows::count_registration(conn, token).await?;
            }
            Permit::SetupSecret(hash) => {
                let expires_at = rows::find_setup_secret(conn, hash).await?;
                if expires_at.is_none_or(|at| at <= self.now) || rows::any_admin(conn).await? {
                    return Ok(Err(RegisterError::SetupSecret));
                }
                rows::delete_setup_secrets(conn).await?;
            }
        }
        let user = &self.user;
        for touch in [user.touch(), Touch::Account { user: user.nid }, Touch::Profile { user: user.nid }] {
            conn.touch(touch);
        }
        let displayname = self.displayname.as_deref().unwrap_or(user.user_id.localpart());
        let displayname = serde_json::Value::from(displayname).to_string();
        let mut rows = vec![
            UserColumns { user_nid: user.nid, user_id: user.user_id.as_str().into(), server_nid: ServerNid::OURS }
                .row(),
            AccountColumns {
                user_nid: user.nid,
                password_hash: self.password_hash.clone().map(Into::into),
                admin: self.admin,
                created_at: self.now,
                deactivated_at: None,
            }
            .row(),
            ProfileColumns { user_nid: user.nid, field: "displayname".into(), json: displayname.into() }.row(),
        ];
        if let Some(session) = &self.session {
            conn.touch(session.touch(user.nid));
            rows.extend(session.rows(user.nid));
        }
        store::committer::insert_rows(conn, &rows).await?;
        Ok(Ok(()))
    }
}

impl Accounts {
    /// Checks whether a name could be registered now.
    ///
    /// # Errors
    /// [`RegisterError::Name`], [`RegisterError::Exclusive`] or [`RegisterError::InUse`] if not.
    pub async fn check_available(&self, username: &str) -> Result<OwnedUserId, RegisterError> {
        self.check_available_to(None, username).await
    }

    /// Checks a name as [`Self::check_available`] does, for an application service or anyone else.
    async fn check_available_to(&self, by: Option<&Appservice>, username: &str) -> Result<OwnedUserId, RegisterError> {
        let new_user_id = if by.is_some() { new_appservice_user_id } else { new_user_id };
        let user_id = new_user_id(username, &self.settings.server_name)?;
        self.appservices.check_user(&user_id, by)?;
        if self.find_account(&user_id).await?.is_some() {
            return Err(RegisterError::InUse);
        }
        Ok(user_id)
    }

    /// Creates an account, and its first session if requested.
    ///
    /// # Errors
    /// After [`RegisterError::Storage`] the account may exist.
    pub async fn register(&self, registration: Registration) -> Result<(OwnedUserId, Option<Session>), RegisterError> {
        let username = registration.username.unwrap_or_else(random_localpart);
        let by = match &registration.permit {
            Permit::Appservice(appservice) => Some(&**appservice),
            Permit::Free | Permit::RegistrationToken(_) | Permit::SetupSecret(_) => None,
        };
        let user_id = self.check_available_to(by, &username).await?;
        let password_hash = match registration.password {
            Some(password) => Some(self.hash_new_password(password).await?),
            None => None,
        };
        let (draft, session) = match registration.session {
            Some(wanted) => {
                self.draft_session(&user_id, wanted)?.map(|(draft, session)| (Some(draft), Some(session)))?
            }
            None => (None, None),
        };
        let user = self.db.user(&user_id, true).await?;
        let create = CreateAccount {
            user,
            password_hash,
            admin: registration.admin,
            displayname: registration.displayname,
            now: self.clock.now_ms(),
            session: draft,
            permit: registration.permit,
        };
        self.db.committer().transact(create).await??;
        tracing::info!(%user_id, admin = registration.admin, "account created");
        Ok((user_id, session))
    }

    /// Creates an account for the operator, in any registration mode. Without a password nobody can log in to it.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn create_user(
        &self,
        localpart: &str,
        password: Option<Zeroizing<String>>,
        admin: bool,
    ) -> Result<OwnedUserId, RegisterError> {
        let registration = Registration {
            username: Some(localpart.to_owned()),
            password,
            admin,
            displayname: None,
            session: None,
            permit: Permit::Free,
        };
        Ok(self.register(registration).await?.0)
    }
}
