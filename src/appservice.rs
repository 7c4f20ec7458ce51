//! Application services ([spec]): programs, such as bridges, that the operator allows to act for many users of this
//! server.
//!
//! Promises: the permissions of an `as_token` come from the registration file alone, which is read once, at the start.
//! Only its application service may use a name or alias in an exclusive namespace. The tokens are stored hashed.
//!
//! This version serves the requests of application services. It sends them no events, and does not ask them about users
//! and aliases. [`crate::account::appservice`] lets them act as users.
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/

pub mod registration;

use std::{collections::HashMap, fs, io::Read as _, path::PathBuf, sync::Arc};

use ruma::{OwnedUserId, RoomAliasId, ServerName, UserId};
use sha2::{Digest as _, Sha256};

use registration::{BadRegistration, Namespace, Registration};

/// Maximum size of a registration file. A real one has a page.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// An application service.
#[derive(Debug)]
pub struct Appservice {
    pub id: String,
    /// The user it acts as when a request names none.
    pub sender: OwnedUserId,
    /// Whether its other users are subject to rate limits.
    pub rate_limited: bool,
    users: Vec<Namespace>,
    aliases: Vec<Namespace>,
}

impl Appservice {
    /// Returns whether it may act as this user of this server, and create the account.
    pub fn covers_user(&self, user_id: &UserId) -> bool {
        self.is_sender(user_id) || matches(&self.users, user_id.as_str(), false)
    }

    pub fn is_sender(&self, user_id: &UserId) -> bool {
        self.sender == user_id
    }

    /// Returns whether it may create this alias.
    pub fn covers_alias(&self, alias: &RoomAliasId) -> bool {
        matches(&self.aliases, alias.as_str(), false)
    }
}

fn matches(namespaces: &[Namespace], id: &str, only_exclusive: bool) -> bool {
    namespaces.iter().any(|namespace| (namespace.exclusive || !only_exclusive) && namespace.regex.is_match(id))
}

/// The name is not available: it is reserved for an application service, or outside the namespaces of the one that
/// asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this name is reserved for an application service, or outside the namespaces of the one that asks")]
pub struct Exclusive;

/// All application services of the configuration.
#[derive(Debug, Default)]
pub struct Appservices {
    list: Vec<Arc<Appservice>>,
    /// The application services by the SHA-256 of their `as_token`.
    by_token: HashMap<[u8; 32], Arc<Appservice>>,
}

/// Why a registration file was refused.
#[derive(Debug, thiserror::Error)]
#[error("the application service in {} cannot be used: {cause}", path.display())]
pub struct LoadError {
    pub path: PathBuf,
    pub cause: BadRegistration,
}

impl Appservices {
    /// Reads the registration files.
    ///
    /// # Errors
    /// The first file that cannot be used. Each error is one line for the operator, without any token.
    pub fn load(files: &[PathBuf], server_name: &ServerName) -> Result<Self, LoadError> {
        let mut all = Self::default();
        for path in files {
            let add = || {
                let mut text = String::new();
                fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
                if text.len() as u64 > MAX_FILE_BYTES {
                    return Err(BadRegistration::TooLarge(MAX_FILE_BYTES));
                }
                registration::parse(&text, server_name)
            };
            let added = add().and_then(|registration| all.add(registration));
            added.map_err(|cause| LoadError { path: path.clone(), cause })?;
        }
        Ok(all)
    }

    fn add(&mut self, registration: Registration) -> Result<(), BadRegistration> {
        let Registration { id, as_token, sender, rate_limited, users, aliases } = registration;
        let token_hash: [u8; 32] = Sha256::digest(as_token.as_bytes()).into();
        let duplicate = if self.list.iter().any(|other| other.id == id) {
            Some("id")
        } else if self.by_token.contains_key(&token_hash) {
            Some("as_token")
        } else if self.list.iter().any(|other| other.sender == sender) {
            Some("sender_localpart")
        } else {
            None
        };
        if let Some(key) = duplicate {
            return Err(BadRegistration::Duplicate(key));
        }
        let appservice = Arc::new(Appservice { id, sender, rate_limited, users, aliases });
        self.by_token.insert(token_hash, Arc::clone(&appservice));
        self.list.push(appservice);
        Ok(())
    }

    /// Finds the application service with this `as_token`.
    pub fn by_token(&self, token: &str) -> Option<&Arc<Appservice>> {
        if self.list.is_empty() {
            return None;
        }
        // Looked up by its hash, so that the time it takes reveals nothing about the token.
        self.by_token.get(&<[u8; 32]>::from(Sha256::digest(token.as_bytes())))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Appservice>> {
        self.list.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Checks whether an account with this ID may be created: by an application service, or by anyone else.
    ///
    /// # Errors
    /// [`Exclusive`] if it may not be created.
    pub fn check_user(&self, user_id: &UserId, by: Option<&Appservice>) -> Result<(), Exclusive> {
        let taken = |other: &Appservice| other.is_sender(user_id) || matches(&other.users, user_id.as_str(), true);
        self.check(by, by.is_none_or(|by| by.covers_user(user_id)), taken)
    }

    /// Checks whether this alias may be created: by a user of an application service, or by anyone else.
    ///
    /// # Errors
    /// [`Exclusive`] if it may not be created.
    pub fn check_alias(&self, alias: &RoomAliasId, by: Option<&Appservice>) -> Result<(), Exclusive> {
        let taken = |other: &Appservice| matches(&other.aliases, alias.as_str(), true);
        self.check(by, by.is_none_or(|by| by.covers_alias(alias)), taken)
    }

    fn check(
        &self,
        by: Option<&Appservice>,
        covered: bool,
        taken: impl Fn(&Appservice) -> bool,
    ) -> Result<(), Exclusive> {
        let is_other = |other: &Appservice| by.is_none_or(|by| by.id != other.id);
        if covered && !self.list.iter().any(|other| is_other(other) && taken(other)) { Ok(()) } else { Err(Exclusive) }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{room_alias_id, server_name, user_id};

    use super::*;

    fn services(files: &[&str]) -> Result<Appservices, LoadError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let paths: Vec<PathBuf> = (0..files.len()).map(|n| dir.path().join(format!("{n}.yaml"))).collect();
        for (path, text) in paths.iter().zip(files) {
            fs::write(path, text).expect("writable");
        }
        Appservices::load(&paths, server_name!("example.org"))
    }

    fn file(id: &str, also: &str) -> String {
        format!("id: {id}\nurl: null\nas_token: as_{id}\nhs_token: hs_{id}\nsender_localpart: _{id}_bot\n{also}")
    }

    const IRC: &str = "namespaces:
  users: [{ exclusive: true, regex: '@_irc_.*' }, { exclusive: false, regex: '@shared_.*' }]
  aliases: [{ exclusive: true, regex: '#_irc_.*' }, { exclusive: false, regex: '#shared_.*' }]
  rooms: []";

    #[test]
    fn an_exclusive_namespace_is_for_its_own_application_service() {
        let other = "namespaces: { users: [{ exclusive: false, regex: '@.*' }], aliases: [], rooms: [] }";
        let all = services(&[&file("irc", IRC), &file("xmpp", other)]).expect("good");
        let irc = all.by_token("as_irc").expect("there");
        let xmpp = all.by_token("as_xmpp").expect("there");
        let user = |id: &UserId, expected: [bool; 3]| {
            let found = [None, Some(&**irc), Some(&**xmpp)].map(|by| all.check_user(id, by).is_ok());
            assert_eq!(found, expected, "{id}: anyone, irc, xmpp");
        };
        user(user_id!("@alice:example.org"), [true, false, true]);
        user(user_id!("@_irc_bob:example.org"), [false, true, false]);
        user(user_id!("@shared_bob:example.org"), [true, true, true]);
        // The sender belongs to its application service also outside of its namespaces.
        user(user_id!("@_irc_bot:example.org"), [false, true, false]);
        user(user_id!("@_xmpp_bot:example.org"), [false, false, true]);
        let alias = |alias: &RoomAliasId, expected: [bool; 3]| {
            let found = [None, Some(&**irc), Some(&**xmpp)].map(|by| all.check_alias(alias, by).is_ok());
            assert_eq!(found, expected, "{alias}: anyone, irc, xmpp");
        };
        alias(room_alias_id!("#tea:example.org"), [true, false, false]);
        alias(room_alias_id!("#_irc_tea:example.org"), [false, true, false]);
        alias(room_alias_id!("#shared_tea:example.org"), [true, true, false]);
        assert!(all.by_token("as_other").is_none() && all.by_token("").is_none());
        assert!(Appservices::default().is_empty() && !all.is_empty());
    }

    #[test]
    fn two_with_the_same_name_are_refused_without_a_token_in_the_message() {
        let check = |second: &str, expected: &str| {
            let error = services(&[&file("irc", ""), second]).expect_err("refused");
            assert!(error.to_string().contains("1.yaml"), "{error}");
            assert_eq!(error.cause.to_string(), expected);
            assert!(!expected.contains("as_irc"));
        };
        check(&file("irc", ""), "its id is another one's too");
        check(&file("irc2", "").replace("as_irc2", "as_irc"), "its as_token is another one's too");
        check(&file("irc2", "").replace("_irc2_bot", "_irc_bot"), "its sender_localpart is another one's too");
    }

    #[test]
    fn a_file_that_is_missing_or_huge_is_refused() {
        let path = PathBuf::from("/does/not/exist.yaml");
        let error = Appservices::load(&[path], server_name!("example.org")).expect_err("missing");
        assert!(error.to_string().contains("/does/not/exist.yaml"), "{error}");
        let huge = file("irc", &format!("comment: {}", "x".repeat(300_000)));
        let error = services(&[&huge]).expect_err("huge");
        assert!(matches!(error.cause, BadRegistration::TooLarge(_)), "{error:?}");
    }
}
