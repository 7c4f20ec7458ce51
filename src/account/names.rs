//! Names of users of this server: the rules for new ones, and the forms that a login accepts.

use rand::RngExt as _;
use ruma::{OwnedUserId, ServerName, UserId};

/// Names that people would mistake for the server itself.
const RESERVED: [&str; 4] = ["matrix", "notices", "sabha", "server"];

/// Length of a random name: enough that two are never equal.
const RANDOM_LENGTH: usize = 16;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a user name consists of a-z, 0-9 and ._=-/+ and does not begin with _")]
    Characters,
    #[error("the user ID would be longer than 255 bytes")]
    TooLong,
    #[error("this name is reserved")]
    Reserved,
}

/// The user ID for a new account of an application service: it may begin with an underscore, and be a reserved name.
pub fn new_appservice_user_id(name: &str, server_name: &ServerName) -> Result<OwnedUserId, NameError> {
    user_id(&name.to_ascii_lowercase(), server_name)
}

/// The user ID for a new account. Converts upper case to lower case, as the [spec] requires.
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#user-identifiers
pub fn new_user_id(name: &str, server_name: &ServerName) -> Result<OwnedUserId, NameError> {
    let localpart = name.to_ascii_lowercase();
    if RESERVED.contains(&localpart.as_str()) {
        return Err(NameError::Reserved);
    }
    // By convention, names that begin with an underscore belong to application services.
    if localpart.starts_with('_') {
        return Err(NameError::Characters);
    }
    user_id(&localpart, server_name)
}

fn user_id(localpart: &str, server_name: &ServerName) -> Result<OwnedUserId, NameError> {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'=' | b'-' | b'/' | b'+');
    if localpart.is_empty() || !localpart.bytes().all(fits) {
        return Err(NameError::Characters);
    }
    let user_id = format!("@{localpart}:{server_name}");
    if user_id.len() > ruma::ID_MAX_BYTES {
        return Err(NameError::TooLong);
    }
    UserId::parse(user_id).map_err(|_| NameError::Characters)
}

/// The user ID for a localpart or full user ID of this server.
pub fn named_user(name: &str, server_name: &ServerName) -> Option<OwnedUserId> {
    let user_id = UserId::parse_with_server_name(name, server_name).ok()?;
    // Remote servers may have users with an empty localpart; we have none.
    if user_id.server_name() != server_name
        || user_id.localpart().is_empty()
        || user_id.as_str().len() > ruma::ID_MAX_BYTES
    {
        return None;
    }
    // Accounts are created in lower case, but people type their names as they like.
    UserId::parse(format!("@{}:{server_name}", user_id.localpart().to_ascii_lowercase())).ok()
}

/// A random name for a registration without one.
pub fn random_localpart() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut rng = rand::rng();
    (0..RANDOM_LENGTH).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        let check = |name: &str, expected: Result<&str, NameError>| {
            let found = new_user_id(name, server_name!("example.org"));
            assert_eq!(found.as_ref().map(|id| id.as_str()), expected.as_ref().map(|id| *id), "{name:?}");
        };
        check("alice", Ok("@alice:example.org"));
        check("Alice", Ok("@alice:example.org"));
        check("a.b_c=d-e/f+9", Ok("@a.b_c=d-e/f+9:example.org"));
        check("", Err(NameError::Characters));
        check("_bridge_bob", Err(NameError::Characters));
        check("@alice", Err(NameError::Characters));
        check("alice:example.org", Err(NameError::Characters));
        check("alice bob", Err(NameError::Characters));
        check("ålice", Err(NameError::Characters));
        check("Server", Err(NameError::Reserved));
        check(&"a".repeat(255 - "@:example.org".len()), Ok(&format!("@{}:example.org", "a".repeat(242))));
        check(&"a".repeat(256 - "@:example.org".len()), Err(NameError::TooLong));
    }

    #[test]
    fn application_services_may_have_the_names_that_others_may_not() {
        let check = |name: &str, expected: Result<&str, NameError>| {
            let found = new_appservice_user_id(name, server_name!("example.org"));
            assert_eq!(found.as_ref().map(|id| id.as_str()), expected.as_ref().map(|id| *id), "{name:?}");
        };
        check("_irc_Bob", Ok("@_irc_bob:example.org"));
        check("server", Ok("@server:example.org"));
        check("bob", Ok("@bob:example.org"));
        check("", Err(NameError::Characters));
        check("_irc bob", Err(NameError::Characters));
    }

    #[test]
    fn a_login_may_use_the_localpart_or_the_full_id_of_this_server() {
        let check = |name: &str, expected: Option<&str>| {
            let found = named_user(name, server_name!("example.org"));
            assert_eq!(found.as_ref().map(|id| id.as_str()), expected, "{name:?}");
        };
        check("alice", Some("@alice:example.org"));
        check("ALICE", Some("@alice:example.org"));
        check("@alice:example.org", Some("@alice:example.org"));
        check("@Alice:example.org", Some("@alice:example.org"));
        check("@alice:elsewhere.org", None);
        check("@alice", None);
        check("", None);
    }

    #[test]
    fn random_names_can_be_given_out() {
        let name = random_localpart();
        assert_eq!(new_user_id(&name, server_name!("a.b")).map(|id| id.localpart().to_owned()), Ok(name));
    }
}
