//! Logging in: exchanges a password or a login token for a session.

use std::{sync::Arc, time::Duration};

use zeroize::Zeroizing;

use super::{
    new_session::{Draft, SessionRefusal},
    tokens::{NewToken, TokenKind, hash_token},
};
use crate::{
    account::{
        Accounts, LocalDevice, NewSession, Session, TokenHash, millis, names::named_user, password::HashingBusy,
    },
    store::{
        self, Conn, Position, Transaction, UserNid, Write, accounts as rows,
        tokens::{self as token_rows, LoginTokenColumns},
    },
};

/// Lifetime of a login token: the time it takes to scan a code.
pub const LOGIN_TOKEN_LIFETIME: Duration = Duration::from_secs(2 * 60);

/// The credentials of a login.
pub enum Credentials {
    /// `user` is a localpart or a full user ID.
    Password { user: String, password: Zeroizing<String> },
    /// A token from [`Accounts::create_login_token`].
    Token(Zeroizing<String>),
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Does not say which of the two was wrong.
    #[error("the user name or the password is wrong")]
    Forbidden,
    #[error("the login token is unknown, has expired or was used")]
    Token,
    /// Shown only to users who have authenticated.
    #[error("this account was deactivated")]
    Deactivated,
    #[error(transparent)]
    Busy(#[from] HashingBusy),
    #[error("the session cannot be made")]
    Session(#[from] SessionRefusal),
    #[error("the session could not be stored")]
    Storage(#[from] store::Error),
}

/// The proof of a login, checked again in the commit that creates the session.
enum Proof {
    /// The password matched this hash. It may have been changed since.
    Password { hash: String },
    /// The token, which is used up also when the login fails.
    LoginToken(TokenHash),
}

struct OpenSession {
    user: UserNid,
    proof: Proof,
    session: Draft,
    now: i64,
}

impl Transaction for OpenSession {
    type Output = Result<(), LoginError>;
    const ESSENTIAL: bool = true;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, store::Error> {
        if let Proof::LoginToken(hash) = &self.proof {
            let taken = token_rows::take_login_token(conn, hash).await?;
            if !taken.is_some_and(|(user, expires_at)| user == self.user.0 && self.now < expires_at) {
                return Ok(Err(LoginError::Token));
            }
        }
        let Some(account) = rows::find_account(conn, self.user).await? else {
            return Ok(Err(LoginError::Forbidden));
        };
        if account.deactivated_at.is_some() {
            return Ok(Err(LoginError::Deactivated));
        }
        if let Proof::Password { hash } = &self.proof
            && account.password_hash.as_ref() != Some(hash)
        {
            return Ok(Err(LoginError::Forbidden));
        }
        match self.session.place(conn, self.user).await? {
            Ok(place) => Ok(Ok(self.session.store(conn, self.user, place).await?)),
            Err(refusal) => Ok(Err(refusal.into())),
        }
    }
}

impl Accounts {
    /// Logs a user in. An existing device with the requested ID is reused, and its old tokens stop working.
    ///
    /// # Errors
    /// After [`LoginError::Storage`] the session may exist, but nobody knows its tokens.
    pub async fn login(&self, credentials: Credentials, wanted: NewSession) -> Result<Session, LoginError> {
        let (user, proof) = match credentials {
            Credentials::Password { user, password } => self.check_password(&user, password).await?,
            Credentials::Token(token) => {
                let hash = hash_token(&token);
                let mut reader = self.db.read().await?;
                let owner = token_rows::find_login_token(&mut reader.conn(), &hash).await?;
                drop(reader);
                let owner = owner.ok_or(LoginError::Token)?;
                (self.db.user_by_nid(UserNid(owner)).await?, Proof::LoginToken(hash))
            }
        };
        let (draft, session) = self.draft_session(&user.user_id, wanted)??;
        let open = OpenSession { user: user.nid, proof, session: draft, now: self.clock.now_ms() };
        self.db.committer().transact(open).await??;
        Ok(session)
    }

    /// The canonical spelling of the account that a login names, whether or not it exists.
    pub fn canonical_name(&self, name: &str) -> String {
        named_user(name, &self.settings.server_name).map_or_else(|| name.to_owned(), Into::into)
    }

    async fn check_password(
        &self,
        name: &str,
        password: Zeroizing<String>,
    ) -> Result<(Arc<store::vocabulary::User>, Proof), LoginError> {
        let user = match named_user(name, &self.settings.server_name) {
            Some(user_id) => self.db.find_user(&user_id).await?,
            None => None,
        };
        let account = match &user {
            Some(user) => rows::find_account(&mut self.db.read().await?.conn(), user.nid).await?,
            None => None,
        };
        let hash = account.and_then(|account| account.password_hash);
        // An unknown user gets the same answer as a wrong password, after the same time. So does a deactivated user,
        // who has no password any more.
        let fits = self.verify_password(password, hash.as_deref()).await?;
        match (fits, user, hash) {
            (true, Some(user), Some(hash)) => Ok((user, Proof::Password { hash })),
            _ => Err(LoginError::Forbidden),
        }
    }

    /// Creates a token with which another device can log in as the caller, once.
    pub async fn create_login_token(&self, caller: &LocalDevice) -> Result<String, store::Error> {
        let token = NewToken::generate(TokenKind::Login);
        let expires_at = self.clock.now_ms() + millis(LOGIN_TOKEN_LIFETIME);
        let row = LoginTokenColumns { token_hash: token.hash.to_vec(), user_nid: caller.user.nid, expires_at }.row();
        self.db.committer().write(Write::new(vec![row])).await?;
        Ok(token.secret)
    }
}
