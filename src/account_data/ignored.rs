//! Ignored users ([spec]): users whose events an account does not want to see.
//!
//! The list is the account data `m.ignored_user_list`. Promise: from the commit of a changed list on, every answer uses
//! it. The events that it hides are defined where events are read:
//! [`StoredEvent::is_hidden_by`](crate::room::event::StoredEvent).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#ignoring-users

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ACCOUNT, AccountData, IGNORED_USER_LIST};
use crate::{
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    store::{self, Conn, Position, UserNid, account_data as rows, vocabulary::User},
};

/// Approximate memory of a list without users; most are empty. Each user takes [`USER_BYTES`] more, and the ID.
const LIST_BYTES: usize = 120;
const USER_BYTES: usize = 32;

/// The users that one account ignores. Nobody ignores themselves.
#[derive(Debug)]
pub struct Ignored {
    /// The ignored users, sorted.
    users: Vec<OwnedUserId>,
    version: Position,
}

impl Default for Ignored {
    fn default() -> Self {
        Self { users: Vec::new(), version: Position::BEFORE_ALL }
    }
}

impl HasBytes for Ignored {
    fn bytes(&self) -> u64 {
        let users: usize = self.users.iter().map(|user_id| USER_BYTES + user_id.as_str().len()).sum();
        (LIST_BYTES + users) as u64
    }
}

impl Ignored {
    /// Returns whether the account ignores nobody.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub fn contains(&self, user_id: &UserId) -> bool {
        self.names(user_id.as_str())
    }

    /// As [`Self::contains`], for a user ID that is only text.
    pub(crate) fn names(&self, user_id: &str) -> bool {
        self.users.binary_search_by(|other| other.as_str().cmp(user_id)).is_ok()
    }

    /// Reads the stored list, for a question that somebody else asks. That is no reason to keep it in memory.
    pub(crate) async fn find(conn: &mut Conn<'_>, owner: &User) -> Result<Self, store::Error> {
        let Some((json, version)) = rows::find_data(conn, owner.nid, ACCOUNT, IGNORED_USER_LIST).await? else {
            return Ok(Self::default());
        };
        let content = RawValue::from_string(json).map_err(|error| store::Error::damaged("account data", error))?;
        Ok(Self { version, ..Self::read(&owner.user_id, &content) })
    }

    /// The version of the account's list: the position of its last change, or zero if there never was one. Lists that
    /// were read at different times are the same if their versions are equal.
    pub fn version(&self) -> Position {
        self.version
    }

    /// Reads the list in the content of `m.ignored_user_list`. A client may write anything there; malformed content
    /// ignores nobody.
    fn read(owner: &UserId, content: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Content {
            ignored_users: HashMap<String, serde::de::IgnoredAny>,
        }
        let content = serde_json::from_str::<Content>(content.get()).ok();
        let names = content.map(|content| content.ignored_users).unwrap_or_default();
        let mut users: Vec<OwnedUserId> =
            names.into_keys().filter_map(|name| UserId::parse(name).ok()).filter(|user_id| user_id != owner).collect();
        users.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        Self { users, version: Position::BEFORE_ALL }
    }
}

/// The cached lists of active accounts.
pub(crate) struct IgnoredLists(Arc<ByteCache<UserNid, Arc<Ignored>>>);

impl IgnoredLists {
    pub(super) fn new(budget: &Budget) -> Self {
        Self(budget.cache(Part::IgnoredUsers))
    }

    /// Evicts the list after a change.
    pub(crate) fn remove(&self, user: UserNid) {
        self.0.remove(&user);
    }

    pub(crate) fn clear(&self) {
        self.0.clear();
    }
}

impl AccountData {
    /// The users that the account ignores, if they are cached.
    pub(crate) fn ignored_in_memory(&self, user: UserNid) -> Option<Arc<Ignored>> {
        self.memory.ignored.0.get(&user)
    }

    /// The users that the account ignores. Cached after the first call.
    pub async fn ignored(&self, user: &User) -> Result<Arc<Ignored>, store::Error> {
        let lists = &self.memory.ignored.0;
        if let Some(ignored) = self.ignored_in_memory(user.nid) {
            return Ok(ignored);
        }
        // One reader at a time, and after a change that is on its way.
        let _turn = self.turn_always(user.nid).await;
        if let Some(ignored) = self.ignored_in_memory(user.nid) {
            return Ok(ignored);
        }
        let read_at = self.published();
        let ignored = Arc::new(Ignored::find(&mut self.db.read().await?.conn(), user).await?);
        self.keep_if_unchanged(user.nid, read_at, || lists.insert(user.nid, Arc::clone(&ignored)));
        Ok(ignored)
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    #[test]
    fn a_list_names_users_and_nothing_else_ignores_anyone() {
        let check = |content: &str, expected: &[&str]| {
            let content = RawValue::from_string(content.to_owned()).unwrap();
            let ignored = Ignored::read(user_id!("@alice:example.org"), &content);
            assert_eq!(ignored.users.iter().map(|user_id| user_id.as_str()).collect::<Vec<_>>(), expected, "{content}");
            assert_eq!(ignored.is_empty(), expected.is_empty());
        };
        check(
            r#"{"ignored_users":{"@eve:example.org":{},"@bob:example.org":{}}}"#,
            &["@bob:example.org", "@eve:example.org"],
        );
        check(
            r#"{"ignored_users":{"@alice:example.org":{},"nobody":{},"@bob:example.org":{"x":1}}}"#,
            &["@bob:example.org"],
        );
        check(r#"{"ignored_users":["@bob:example.org"]}"#, &[]);
        check(r#"{}"#, &[]);
        check(r#"[]"#, &[]);
        assert!(Ignored::default().is_empty());
    }

    #[test]
    fn those_on_the_list_are_ignored() {
        let content = RawValue::from_string(r#"{"ignored_users":{"@bob:example.org":{}}}"#.to_owned()).unwrap();
        let ignored = Ignored::read(user_id!("@alice:example.org"), &content);
        assert!(ignored.contains(user_id!("@bob:example.org")));
        assert!(!ignored.contains(user_id!("@bobby:example.org")));
    }
}
