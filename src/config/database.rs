//! `[database]`: the place of the data, and the durability of commits.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use super::keys::{Leaf, Setting, Shape, choice, section};

section! {
    /// Storage of events, accounts and keys, and the durability of commits.
    pub struct Database {
        /// `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST/NAME` (PostgreSQL 15 or newer). If unset, `sabha.db` in
        /// `data_dir`. Keep a password out of the file with `SABHA_DATABASE__URL`.
        pub url: Option<DatabaseUrl> = None,
        /// The failures that an answered request survives. `power`: a power cut, because every commit waits for the
        /// disk. `process`: only a crash of the server; a power cut may lose the last moments, but never the
        /// consistency.
        pub durability: Durability = Durability::Power,
        /// Connections that only read. On SQLite each takes a thread and a page cache.
        pub readers: u32 [1 => 64] = 4,
        /// Total number of connections to PostgreSQL. SQLite uses one writer and `readers`.
        pub max_connections: u32 [2 => 1000] = 16,
    }
}

choice! {
    /// The failures that an answered request survives.
    pub enum Durability: "a durability", "\"power\" or \"process\"" {
        /// A power cut: every commit waits for the disk.
        Power = "power",
        /// A crash of the process, but not of the machine.
        Process = "process",
    }
}

/// The URL of the database. It may contain a password, so `Debug`, `Display` and serde show it masked.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl(String);

/// The database that a [`DatabaseUrl`] names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseTarget {
    /// The file. Its directory may not exist yet.
    Sqlite(PathBuf),
    Postgres(DatabaseUrl),
}

impl DatabaseUrl {
    /// A SQLite database in this file.
    pub fn sqlite(path: &std::path::Path) -> Self {
        Self(format!("sqlite:{}", path.display()))
    }

    /// The whole URL with its password. For the database driver only, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The database that this URL names.
    pub fn target(&self) -> DatabaseTarget {
        match self.0.strip_prefix("sqlite:") {
            Some(path) => DatabaseTarget::Sqlite(PathBuf::from(path.strip_prefix("//").unwrap_or(path))),
            None => DatabaseTarget::Postgres(self.clone()),
        }
    }

    fn masked(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return self.0.clone();
        };
        // Masks up to the *last* `@`: no part of a password with an unescaped `@`, `/` or `?` may be shown.
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) if login.contains(':') => {
                (login.split(':').take(1).collect::<String>() + ":***@", place)
            }
            Some((login, place)) if !login.contains('?') => (format!("{login}@"), place),
            _ => (String::new(), rest),
        };
        let pairs = place.split_inclusive(['?', '&']).map(masked_pair).collect::<String>();
        format!("{scheme}://{login}{pairs}")
    }
}

/// Masks passwords in the query, which libpq also accepts there (`password=`, `sslpassword=`).
fn masked_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((key, _)) if key.to_ascii_lowercase().contains("password") => {
            format!("{key}=***{}", if pair.ends_with('&') { "&" } else { "" })
        }
        _ => pair.to_owned(),
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = &'static str;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        let is_postgres =
            ["postgres://", "postgresql://"].iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme));
        let is_file = url.strip_prefix("sqlite:").is_some_and(|path| {
            let path = path.strip_prefix("//").unwrap_or(path);
            // A database in memory would lose acknowledged events, and the options of the URL are set by us.
            !path.is_empty() && !path.starts_with(':') && !path.contains('?')
        });
        if is_postgres || is_file { Ok(Self(url)) } else { Err("not a database URL") }
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.masked())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl Setting for DatabaseUrl {
    const SHAPE: Shape = Leaf {
        secret: true,
        ..Leaf::new("a database URL", "\"sqlite:PATH\" or \"postgres://USER:PASSWORD@HOST/NAME\"")
    }
    .shape();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Option<DatabaseUrl> {
        DatabaseUrl::try_from(url.to_owned()).ok()
    }

    #[test]
    fn no_form_shows_the_password() {
        let check = |url: &str, expected: &str| {
            let url = parse(url).expect("a URL in the table");
            assert_eq!(url.to_string(), expected);
            assert_eq!(format!("{url:?}"), format!("{expected:?}"));
            assert_eq!(serde_json::to_value(&url).expect("text"), expected);
        };
        check("postgres://sabha:hunter2@db.internal/sabha", "postgres://sabha:***@db.internal/sabha");
        check(
            "postgresql://sabha:hunter2@db:5432/sabha?sslmode=require",
            "postgresql://sabha:***@db:5432/sabha?sslmode=require",
        );
        check("postgres://sabha:hun/ter@2@db/sabha", "postgres://sabha:***@db/sabha");
        check("postgres://sabha:hun?ter2@db/sabha", "postgres://sabha:***@db/sabha");
        check("postgres://sabha@db/sabha", "postgres://sabha@db/sabha");
        check("postgres:///sabha?host=/run/postgresql", "postgres:///sabha?host=/run/postgresql");
        check("postgres:///sabha?user=x&password=hunter2", "postgres:///sabha?user=x&password=***");
        check("postgres:///sabha?user=a@b&password=hunter2&x=y", "postgres:///sabha?user=a@b&password=***&x=y");
        check("postgres:///sabha?password=hun@ter2", "postgres:///sabha?password=***");
        check("postgres://db/sabha?PASSWORD=hunter2&a=b", "postgres://db/sabha?PASSWORD=***&a=b");
        check("sqlite:/var/lib/sabha/sabha.db", "sqlite:/var/lib/sabha/sabha.db");
    }

    #[test]
    fn a_url_names_a_file_or_a_postgres_server() {
        let sqlite = |url: &str, path: &str| {
            assert_eq!(parse(url).map(|url| url.target()), Some(DatabaseTarget::Sqlite(PathBuf::from(path))), "{url}");
        };
        sqlite("sqlite:./sabha-data/sabha.db", "./sabha-data/sabha.db");
        sqlite("sqlite:/srv/sabha.db", "/srv/sabha.db");
        sqlite("sqlite:///srv/sabha.db", "/srv/sabha.db");
        let postgres = parse("postgres://sabha:hunter2@db/sabha").expect("a URL");
        assert_eq!(postgres.expose(), "postgres://sabha:hunter2@db/sabha");
        assert!(matches!(postgres.target(), DatabaseTarget::Postgres(url) if url == postgres));
        for bad in ["", "sqlite:", "sqlite::memory:", "sqlite:x.db?mode=rwc", "postgres://", "mysql://db/x", "sabha.db"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
