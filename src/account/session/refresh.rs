//! Refreshing: a refresh token is exchanged for the next pair of tokens.
//!
//! A client may lose our answer. So a refresh token works until one of the tokens that replaced it is used ([spec]).
//! The exchange may be repeated, which deletes the unused pair.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens

use super::{
    new_session::{Secrets, TokenPair},
    tokens::{TokenKind, has_shape, hash_token},
};
use crate::{
    account::{Accounts, AuthenticateError, TokenHash},
    store::{self, Conn, DeviceNid, Position, Transaction, UserNid, tokens as rows},
};

/// Exchanges a refresh token for the next pair.
struct Rotate {
    hash: TokenHash,
    next: TokenPair,
    now: i64,
}

impl Transaction for Rotate {
    type Output = Result<(), AuthenticateError>;
    const ESSENTIAL: bool = true;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, store::Error> {
        let current = rows::find_refresh(conn, &self.hash).await?;
        let current = match check(current.as_ref(), self.now) {
            Ok(current) => current,
            Err(refused) => return Ok(Err(refused)),
        };
        // This token is in use, so the one before it is no longer needed.
        if let Some(predecessor) = rows::find_predecessor(conn, &self.hash).await? {
            rows::delete_refresh(conn, &predecessor).await?;
        }
        // The token was exchanged before, but the answer did not arrive.
        if let Some(unused) = &current.next_hash {
            rows::delete_refresh(conn, unused).await?;
        }
        let (user, device) = (UserNid(current.user_nid), DeviceNid(current.device_nid));
        store::committer::insert_rows(conn, &self.next.rows(user, device, self.now)).await?;
        if let Some(next) = self.next.refresh_hash() {
            rows::set_successor(conn, &self.hash, next).await?;
        }
        Ok(Ok(()))
    }
}

/// Returns the token if it is known and has not expired.
fn check(found: Option<&rows::RefreshRow>, now: i64) -> Result<&rows::RefreshRow, AuthenticateError> {
    let current = found.ok_or(AuthenticateError::Unknown)?;
    if current.expires_at.is_some_and(|at| at <= now) {
        return Err(AuthenticateError::Expired);
    }
    Ok(current)
}

/// Deletes a refresh token whose successor is in use, with its access tokens.
struct Retire(Vec<u8>);

impl Transaction for Retire {
    type Output = ();
    const ESSENTIAL: bool = true;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, store::Error> {
        rows::delete_refresh(conn, &self.0).await
    }
}

/// Tokens of each kind deleted in one commit. All other writers wait for it.
const SWEPT_AT_ONCE: i64 = 100;

/// Deletes expired tokens.
struct Sweep(rows::Expired);

impl Transaction for Sweep {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), store::Error> {
        rows::delete_expired(conn, &self.0).await
    }
}

/// The time for which an expired token is kept, so that its client gets the right error.
const KEEP_EXPIRED_MS: i64 = 24 * 60 * 60 * 1000;

impl Accounts {
    /// Creates the next access token and refresh token of a session.
    ///
    /// # Errors
    /// [`AuthenticateError::Unknown`] also for a token whose successor has been used.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Secrets, AuthenticateError> {
        if !has_shape(TokenKind::Refresh, refresh_token) {
            return Err(AuthenticateError::Unknown);
        }
        let hash = hash_token(refresh_token);
        let now = self.clock.now_ms();
        // An unknown token must not keep the only writer busy. The transaction checks again.
        let mut reader = self.db.read().await?;
        let current = rows::find_refresh(&mut reader.conn(), &hash).await?;
        drop(reader);
        check(current.as_ref(), now)?;
        let (next, secrets) = self.new_tokens(true);
        let rotate = Rotate { hash, next, now };
        self.db.committer().transact(rotate).await??;
        Ok(secrets)
    }

    /// Retires a refresh token, because its successor is in use.
    pub(in crate::account) async fn retire_refresh_token(&self, hash: Vec<u8>) -> Result<(), store::Error> {
        self.db.committer().transact(Retire(hash)).await
    }

    /// Deletes tokens that expired more than a day ago. Called regularly.
    pub async fn sweep_tokens(&self) -> Result<(), store::Error> {
        let before = self.clock.now_ms() - KEEP_EXPIRED_MS;
        loop {
            let expired = rows::find_expired(&mut self.db.read().await?.conn(), before, SWEPT_AT_ONCE).await?;
            if expired.is_empty() {
                return Ok(());
            }
            for kind in expired {
                self.db.committer().transact(Sweep(kind)).await?;
            }
        }
    }
}
