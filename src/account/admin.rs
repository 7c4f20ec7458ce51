//! Admins of the server: giving an account admin rights, and removing them.
//!
//! Promise: cached sessions are read again after the commit, so they have the new rights. They stay signed in.

use ruma::UserId;

use super::Accounts;
use crate::store::{self, Conn, Position, Transaction, UserNid, accounts as rows};

struct SetAdmin {
    user: UserNid,
    admin: bool,
}

impl Transaction for SetAdmin {
    type Output = bool;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<bool, store::Error> {
        rows::set_admin(conn, self.user, self.admin).await
    }
}

impl Accounts {
    /// Makes an account an admin, or an ordinary account. Returns `Ok(false)` if there is no such active account.
    pub async fn set_admin(&self, user_id: &UserId, admin: bool) -> Result<bool, store::Error> {
        let Some(user) = self.db.find_user(user_id).await? else {
            return Ok(false);
        };
        let found = self.db.committer().transact(SetAdmin { user: user.nid, admin }).await?;
        if found {
            tracing::info!(%user_id, admin, "rights of an account changed");
        }
        Ok(found)
    }
}
