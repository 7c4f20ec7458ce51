//! Setup: the one-time secret shown to the operator of an empty server, and the administrator that it creates.

use ruma::OwnedUserId;
use zeroize::Zeroizing;

use super::{
    Accounts,
    register::{Permit, RegisterError, Registration},
    session::tokens::{NewToken, TokenKind, hash_token},
};
use crate::store::{
    self, Conn, Position, Transaction,
    accounts::{self as rows, SetupSecretColumns},
};

/// Lifetime of a setup secret, which is visible in a terminal or a log.
const LIFETIME_MS: i64 = 60 * 60 * 1000;

struct Replace {
    hash: super::TokenHash,
    expires_at: i64,
}

impl Transaction for Replace {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), store::Error> {
        rows::delete_setup_secrets(conn).await?;
        let row = SetupSecretColumns { secret_hash: self.hash.to_vec(), expires_at: self.expires_at }.row();
        store::committer::insert_rows(conn, &[row]).await
    }
}

impl Accounts {
    /// Creates a setup secret for the next hour. Earlier ones stop working.
    pub async fn create_setup_secret(&self) -> Result<String, store::Error> {
        let token = NewToken::generate(TokenKind::Setup);
        let expires_at = self.clock.now_ms() + LIFETIME_MS;
        self.db.committer().transact(Replace { hash: token.hash, expires_at }).await?;
        Ok(token.secret)
    }

    /// Creates the first administrator and uses up the secret, in one commit.
    ///
    /// # Errors
    /// [`RegisterError::SetupSecret`] for a wrong, used or expired secret, and when there is an administrator already.
    pub async fn use_setup_secret(
        &self,
        secret: &str,
        localpart: &str,
        password: Zeroizing<String>,
    ) -> Result<OwnedUserId, RegisterError> {
        let hash = hash_token(secret);
        // Checked first, so that without the secret nobody learns which names exist or makes us hash a password. The
        // commit checks it again and uses it up.
        let mut reader = self.db.read().await?;
        let expires_at = rows::find_setup_secret(&mut reader.conn(), &hash).await?;
        drop(reader);
        if expires_at.is_none_or(|at| at <= self.clock.now_ms()) {
            return Err(RegisterError::SetupSecret);
        }
        let registration = Registration {
            username: Some(localpart.to_owned()),
            password: Some(password),
            admin: true,
            displayname: None,
            session: None,
            permit: Permit::SetupSecret(hash),
        };
        Ok(self.register(registration).await?.0)
    }

    /// Returns whether any account has a password. Users of application services have none.
    pub async fn has_any_account(&self) -> Result<bool, store::Error> {
        let mut reader = self.db.read().await?;
        rows::any_account(&mut reader.conn()).await
    }
}
