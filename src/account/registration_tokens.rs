//! Registration tokens: each allows a number of registrations.

use super::{Accounts, session::tokens::random_text};
use crate::store::{
    self, Conn, Position, Transaction, Write,
    accounts::{self as rows, RegistrationTokenColumns, RegistrationTokenRow},
};

/// Length of a token: 24 characters of base 62 cannot be guessed, and can still be typed.
const LENGTH: usize = 24;

/// Maximum length of a token that is looked up, as in the specification.
const MAX_TOKEN_BYTES: usize = 64;

/// A registration token, as the operator sees it.
pub type RegistrationToken = RegistrationTokenRow;

/// Returns whether the token allows one more registration now.
pub(super) fn is_usable(token: &RegistrationTokenRow, now: i64) -> bool {
    token.expires_at.is_none_or(|at| now < at) && token.uses_allowed.is_none_or(|allowed| token.used < allowed)
}

struct Revoke(String);

impl Transaction for Revoke {
    type Output = bool;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<bool, store::Error> {
        rows::revoke_registration_token(conn, &self.0).await
    }
}

impl Accounts {
    /// Creates a token for `uses` accounts (`None`: any number), valid until `expires_at`, in milliseconds since 1970
    /// (`None`: until it is revoked).
    pub async fn new_registration_token(
        &self,
        uses: Option<u32>,
        expires_at: Option<i64>,
    ) -> Result<String, store::Error> {
        let token = random_text(LENGTH);
        let row = RegistrationTokenColumns {
            token: token.as_str().into(),
            uses_allowed: uses.map(i64::from),
            used: 0,
            expires_at,
            created_at: self.clock.now_ms(),
        }
        .row();
        self.db.committer().write(Write::new(vec![row])).await?;
        Ok(token)
    }

    /// At most `limit` tokens in their order, starting after `after`.
    pub async fn list_registration_tokens(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<RegistrationToken>, store::Error> {
        let mut reader = self.db.read().await?;
        rows::list_registration_tokens(&mut reader.conn(), after.unwrap_or_default(), i64::from(limit)).await
    }

    /// Revokes a token. Returns whether it existed.
    pub async fn revoke_registration_token(&self, token: &str) -> Result<bool, store::Error> {
        self.db.committer().transact(Revoke(token.to_owned())).await
    }

    /// Returns whether the token allows a registration now.
    pub async fn is_registration_token_valid(&self, token: &str) -> Result<bool, store::Error> {
        if token.len() > MAX_TOKEN_BYTES || token.contains('\0') {
            return Ok(false);
        }
        let mut reader = self.db.read().await?;
        let row = rows::find_registration_token(&mut reader.conn(), token).await?;
        Ok(row.is_some_and(|row| is_usable(&row, self.clock.now_ms())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_works_until_it_is_used_up_or_expires() {
        let check = |uses_allowed, used, expires_at, expected| {
            let row = RegistrationTokenRow { token: String::new(), uses_allowed, used, expires_at, created_at: 0 };
            assert_eq!(is_usable(&row, 1000), expected, "{used} of {uses_allowed:?}, until {expires_at:?}");
        };
        check(None, 0, None, true);
        check(None, 99, None, true);
        check(Some(2), 1, None, true);
        check(Some(2), 2, None, false);
        check(Some(0), 0, None, false);
        check(None, 0, Some(1001), true);
        check(None, 0, Some(1000), false);
        check(Some(2), 1, Some(999), false);
    }
}
