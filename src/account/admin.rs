//! Admins of the server: giving an account admin rights, and removing them.
//!
//! Promise: cached sessions have the new rights right after the commit, and stay signed in.

use std::sync::Arc;

use ruma::UserId;

use super::{Accounts, session_cache::SessionCache};
use crate::store::{self, Conn, Position, Transaction, UserNid, accounts as rows};

struct SetAdmin {
    user: UserNid,
    admin: bool,
    sessions: Arc<SessionCache>,
}

impl Transaction for SetAdmin {
    type Output = bool;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<bool, store::Error> {
        rows::set_admin(conn, self.user, self.admin).await
    }

    fn committed(&self, found: &bool, _: Position) {
        if *found {
            self.sessions.set_admin(self.user, self.admin);
        }
    }
}

impl Accounts {
    /// Makes an account an admin, or an ordinary account. Returns `Ok(false)` if there is no such active account.
    pub async fn set_admin(&self, user_id: &UserId, admin: bool) -> Result<bool, store::Error> {
        let Some(user) = self.db.find_user(user_id).await? else {
            return Ok(false);
        };
        let set = SetAdmin { user: user.nid, admin, sessions: Arc::clone(&self.sessions) };
        let found = self.db.committer().transact(set).await?;
        if found {
            tracing::info!(%user_id, admin, "rights of an account changed");
        }
        Ok(found)
    }
}
