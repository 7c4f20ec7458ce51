//! Looking up accounts.

use ruma::{OwnedUserId, UserId};

use super::Accounts;
use crate::store::{self, UserNid, accounts as rows};

/// An account, with the facts that others may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub admin: bool,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The time of deactivation, in milliseconds since 1970. A deactivated account stays so for ever.
    pub deactivated_at: Option<i64>,
}

/// An account in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedAccount {
    pub user_id: OwnedUserId,
    pub account: Account,
}

impl Account {
    pub fn is_active(&self) -> bool {
        self.deactivated_at.is_none()
    }
}

impl Accounts {
    /// Looks up the account of a user of this server, also a deactivated one.
    pub async fn find_account(&self, user_id: &UserId) -> Result<Option<Account>, store::Error> {
        match self.db.find_user(user_id).await? {
            Some(user) => self.find_account_by_nid(user.nid).await,
            None => Ok(None),
        }
    }

    /// Looks up an account by short id, also a deactivated one.
    pub async fn find_account_by_nid(&self, user: UserNid) -> Result<Option<Account>, store::Error> {
        let mut reader = self.db.read().await?;
        let row = rows::find_account(&mut reader.conn(), user).await?;
        Ok(row.map(|row| Account { admin: row.admin, created_at: row.created_at, deactivated_at: row.deactivated_at }))
    }

    /// Returns whether this is an active user of this server.
    pub async fn exists(&self, user_id: &UserId) -> Result<bool, store::Error> {
        Ok(self.find_account(user_id).await?.is_some_and(|account| account.is_active()))
    }

    /// At most `limit` accounts ordered by user ID, starting after `after`.
    pub async fn list_users(&self, after: Option<&UserId>, limit: u32) -> Result<Vec<ListedAccount>, store::Error> {
        let mut reader = self.db.read().await?;
        let after = after.map_or("", UserId::as_str);
        let rows = rows::list_accounts(&mut reader.conn(), after, i64::from(limit)).await?;
        rows.into_iter()
            .map(|row| {
                let user_id = UserId::parse(&row.user_id).map_err(|error| store::Error::damaged("user ID", error))?;
                let account =
                    Account { admin: row.admin, created_at: row.created_at, deactivated_at: row.deactivated_at };
                Ok(ListedAccount { user_id, account })
            })
            .collect()
    }
}
