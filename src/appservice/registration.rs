//! The registration file of an application service ([spec]): read and checked. Only the parts that we use are kept.
//!
//! Unknown keys are accepted, because bridges write keys for servers with other features
//! (`de.sorunome.msc2409.push_ephemeral`, `org.matrix.msc3202`).
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#registration

use std::io;

use regex::{Regex, RegexBuilder};
use ruma::{OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Maximum memory for one compiled regular expression. A prefix and a few alternatives take a tenth of it.
const MAX_REGEX_BYTES: usize = 1024 * 1024;

/// Maximum number of namespaces of one kind. Each is tried on every new name.
const MAX_NAMESPACES: usize = 1000;

/// The parts of a registration file that we use.
#[derive(Debug)]
pub struct Registration {
    pub id: String,
    pub as_token: Zeroizing<String>,
    pub sender: OwnedUserId,
    pub rate_limited: bool,
    pub users: Vec<Namespace>,
    pub aliases: Vec<Namespace>,
}

/// Names that an application service is interested in.
#[derive(Debug)]
pub struct Namespace {
    pub exclusive: bool,
    /// Anchored at the beginning of the whole ID, with its sigil and server name, but not at its end.
    pub regex: Regex,
}

/// The mistake in a file.
#[derive(Debug, thiserror::Error)]
pub enum BadRegistration {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error("it is not a registration: {0}")]
    Yaml(String),
    #[error("its {0} is empty")]
    Empty(&'static str),
    #[error("its url is no web address")]
    Url,
    #[error("its sender_localpart is no name of a user: it consists of a-z, 0-9 and ._=-/+")]
    Sender,
    #[error("its namespaces.{kind} has a bad regular expression `{regex}`: {cause}")]
    Regex { kind: &'static str, regex: String, cause: String },
    #[error("its namespaces.{0} has more than {MAX_NAMESPACES} entries")]
    TooMany(&'static str),
    #[error("its {0} is another one's too")]
    Duplicate(&'static str),
}

/// The file as it is written. Fields that are not listed have no effect in this version.
#[derive(Deserialize)]
struct File {
    id: String,
    /// Checked although we send nothing there yet, so that a mistake shows early.
    url: Option<String>,
    as_token: Zeroizing<String>,
    hs_token: Zeroizing<String>,
    sender_localpart: String,
    rate_limited: Option<bool>,
    #[serde(default)]
    namespaces: Namespaces,
}

#[derive(Default, Deserialize)]
struct Namespaces {
    users: Option<Vec<Written>>,
    aliases: Option<Vec<Written>>,
    rooms: Option<Vec<Written>>,
}

#[derive(Deserialize)]
struct Written {
    exclusive: bool,
    regex: String,
}

/// Reads the text of a registration file.
///
/// # Errors
/// [`BadRegistration`]. Each error is one line that names the key and shows no token.
pub fn parse(text: &str, server_name: &ServerName) -> Result<Registration, BadRegistration> {
    // A snippet of the file could contain a token.
    let options = serde_saphyr::options! { with_snippet: false };
    let file: File = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| BadRegistration::Yaml(error.to_string().replace('\n', " ")))?;
    let texts = [("id", &file.id), ("as_token", &*file.as_token), ("hs_token", &*file.hs_token)];
    if let Some((key, _)) = texts.into_iter().find(|(_, text)| text.trim().is_empty()) {
        return Err(BadRegistration::Empty(key));
    }
    if file.url.as_deref().is_some_and(|url| !url.is_empty() && !is_web_address(url)) {
        return Err(BadRegistration::Url);
    }
    let sender = UserId::parse(format!("@{}:{server_name}", file.sender_localpart.to_ascii_lowercase()));
    let sender = sender.ok().filter(|sender| sender.validate_strict().is_ok() && !sender.localpart().is_empty());
    let sender = sender.ok_or(BadRegistration::Sender)?;
    let Namespaces { users, aliases, rooms } = file.namespaces;
    // The namespaces of rooms matter only once we send events, but a bad expression is a mistake now.
    compile("rooms", rooms)?;
    Ok(Registration {
        id: file.id,
        as_token: file.as_token,
        sender,
        rate_limited: file.rate_limited.unwrap_or(true),
        users: compile("users", users)?,
        aliases: compile("aliases", aliases)?,
    })
}

fn compile(kind: &'static str, written: Option<Vec<Written>>) -> Result<Vec<Namespace>, BadRegistration> {
    let written = written.unwrap_or_default();
    if written.len() > MAX_NAMESPACES {
        return Err(BadRegistration::TooMany(kind));
    }
    let compile = |Written { exclusive, regex }: Written| {
        // Anchored as on other servers: bridges write `@_irc_.*` and mean names that begin so.
        let anchored = format!(r"\A(?:{regex})");
        let built = RegexBuilder::new(&anchored).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).build();
        match built {
            Ok(regex) => Ok(Namespace { exclusive, regex }),
            Err(error) => {
                // The last line contains the cause. The lines before draw an arrow.
                let cause = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                Err(BadRegistration::Regex { kind, regex, cause })
            }
        }
    };
    written.into_iter().map(compile).collect()
}

fn is_web_address(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    /// The example of the specification.
    const GOOD: &str = r##"
id: "IRC Bridge"
url: "http://127.0.0.1:1234"
as_token: "30c05ae90a248a4188e620216fa72e349803310ec83e2a77b34fe90be6081f46"
hs_token: "312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e"
sender_localpart: "_irc_bot" # Will result in @_irc_bot:example.org
namespaces:
  users:
    - exclusive: true
      regex: "@_irc_bridge_.*"
  aliases:
    - exclusive: false
      regex: "#_irc_bridge_.*"
  rooms: []
"##;

    fn read(text: &str) -> Result<Registration, BadRegistration> {
        parse(text, server_name!("example.org"))
    }

    #[test]
    fn the_specifications_example_is_read() {
        let read = read(GOOD).expect("good");
        assert_eq!((read.id.as_str(), read.sender.as_str()), ("IRC Bridge", "@_irc_bot:example.org"));
        assert!(read.as_token.starts_with("30c0") && read.rate_limited);
        let matches = |id| read.users[0].regex.is_match(id);
        assert!(read.users[0].exclusive && matches("@_irc_bridge_bob:example.org"));
        assert!(!matches("@x@_irc_bridge_bob:example.org"), "anchored at the beginning");
        assert!(!read.aliases[0].exclusive);
    }

    #[test]
    fn keys_of_other_servers_and_missing_ones_are_accepted() {
        let also = |line: &str| read(&format!("{GOOD}{line}\n"));
        assert!(!also("rate_limited: false").expect("good").rate_limited);
        for line in [
            "push_ephemeral: true",
            "de.sorunome.msc2409.push_ephemeral: false",
            "org.matrix.msc3202: false",
            "receive_ephemeral: true",
            "protocols: [irc]",
            "io.element.msc4190: true",
        ] {
            also(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for (from, to) in [
            ("url: \"http://127.0.0.1:1234\"", "url: null"),
            ("url: \"http://127.0.0.1:1234\"", "url: ''"),
            ("url: \"http://127.0.0.1:1234\"", ""),
            ("  rooms: []", ""),
            ("  rooms: []", "  rooms:"),
        ] {
            read(&GOOD.replace(from, to)).unwrap_or_else(|error| panic!("{to}: {error}"));
        }
    }

    #[test]
    fn a_bad_file_is_refused_in_one_line_without_its_tokens() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(GOOD.contains(from), "{from}");
            let error = read(&GOOD.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{to}: {error}");
            assert!(!error.contains("30c05ae9") && !error.contains("312df522"), "{error}");
        };
        check("id: \"IRC Bridge\"", "id: ''", "its id is empty");
        check("id: \"IRC Bridge\"", "", "it is not a registration: ");
        check("as_token:", "token:", "as_token");
        check("as_token:", "as_token: [", "it is not a registration: ");
        check("\"312df522183efd404ec1cd22d2ffa4bbc76a8c1ccf541dd692eef281356bb74e\"", "' '", "its hs_token is empty");
        check("http://127.0.0.1:1234", "127.0.0.1:1234", "its url is no web address");
        check("\"_irc_bot\"", "\"_irc bot\"", "its sender_localpart is no name");
        check("exclusive: true", "exclusive: perhaps", "it is not a registration: ");
        check("@_irc_bridge_.*", "@(_irc", "its namespaces.users has a bad regular expression `@(_irc`: ");
        check("#_irc_bridge_.*", "#(?!irc)", "its namespaces.aliases has a bad regular expression `#(?!irc)`: ");
        check("@_irc_bridge_.*", "@(x{1000}){1000}", "its namespaces.users has a bad regular expression");
        check("rooms: []", "rooms: [{ exclusive: false, regex: '*' }]", "its namespaces.rooms has a bad");
    }

    #[test]
    fn a_file_that_expands_without_end_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            bomb.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", ")));
        }
        assert!(matches!(read(&format!("{GOOD}{bomb}")), Err(BadRegistration::Yaml(_))));
    }
}
