//! The small sections: registration, application services, client, federation, rooms, sessions, presence, log.

use std::path::PathBuf;

use ruma::{OwnedServerName, RoomVersionId};

use super::keys::{choice, section};
use super::secret::Secret;
use super::values::{ByteSize, TimeSpan};

section! {
    /// Registration of accounts. `sabha user create` always works.
    pub struct Registration {
        /// `closed`: nobody may register. `token`: users with a token from `sabha token new`. `open`: everyone who can
        /// reach the server.
        pub mode: RegistrationMode = RegistrationMode::Closed,
        /// Lets programs that know this secret create accounts and admins, in every `mode`, at
        /// `/_synapse/admin/v1/register` as in Synapse. If unset, there is no such endpoint. Keep it out of the file
        /// with `shared_secret_file` or `SABHA_REGISTRATION__SHARED_SECRET`.
        pub shared_secret: Option<Secret> = None,
        /// Path of a file with the shared secret, instead of `shared_secret`. White space around the secret is ignored.
        pub shared_secret_file: Option<PathBuf> = None,
    }
}

choice! {
    /// The users who may create an account.
    pub enum RegistrationMode: "a registration mode", "\"closed\", \"token\" or \"open\"" {
        /// Only the operator.
        Closed = "closed",
        /// Users with a registration token.
        Token = "token",
        /// Everyone who can reach the server.
        Open = "open",
    }
}

section! {
    /// Application services: bridges and bots that act for many users. This version serves their requests, but **does
    /// not send them events** yet, and does not ask them about users and aliases. A bridge that waits for events gets
    /// none.
    pub struct AppserviceFiles {
        /// Paths of their registration files, YAML, one for each. They are read once, at the start.
        pub files: Vec<PathBuf> = Vec::new(),
    }
}

section! {
    /// The address at which clients reach the server.
    pub struct Client {
        /// The address that clients use, served at `/.well-known/matrix/client`. If unset, `https://` and the server
        /// name without its port; for `localhost` the first listener.
        pub base_url: Option<String> = None,
    }
}

section! {
    /// Federation with other servers. This version publishes its keys, verifies and signs requests, and exchanges
    /// profiles, aliases and the room directory; **rooms cannot be shared with other servers yet**. See
    /// `docs/operating/federation.md`.
    pub struct Federation {
        /// Whether this server communicates with other servers.
        pub enabled: bool = false,
        /// `HOST:PORT` where other servers reach us, served at `/.well-known/matrix/server`. If unset, nothing is
        /// served there while federation is off, and the server name with port 443 once it is on.
        pub well_known_server: Option<String> = None,
        /// PEM files of certificate authorities that are trusted only for other servers, in addition to the public
        /// ones.
        pub ca_files: Vec<PathBuf> = Vec::new(),
        /// Servers that are asked for the signing keys of another server, if it does not show them itself: because it is
        /// gone, or has changed its keys. They are believed about any server's keys.
        pub trusted_notaries: Vec<OwnedServerName> = Vec::new(),
    }
}

section! {
    /// Rooms created here.
    pub struct Rooms {
        /// Version of a room whose creator asks for none, `6` to `12`.
        pub default_version: RoomVersionId = RoomVersionId::V12,
    }
}

section! {
    /// Lifetimes of logins.
    pub struct Sessions {
        /// Lifetime of an access token without a refresh token. If unset, until logout.
        pub access_token_lifetime: Option<TimeSpan> = None,
        /// Lifetime of an access token of a client that asked for a refresh token.
        pub refreshable_access_token_lifetime: TimeSpan [TimeSpan::seconds(1) => TimeSpan::days(365)] = TimeSpan::hours(1),
        /// Lifetime of an unused refresh token. If unset, until logout.
        pub refresh_token_lifetime: Option<TimeSpan> = None,
        /// Time for the steps of an interactive authentication, such as a registration.
        pub interactive_auth_lifetime: TimeSpan [TimeSpan::seconds(1) => TimeSpan::days(1)] = TimeSpan::minutes(15),
    }
}

section! {
    /// Presence: which users are online.
    pub struct Presence {
        /// Whether clients can see which users are online.
        pub enabled: bool = true,
    }
}

section! {
    /// Memory for caches.
    pub struct Memory {
        /// Bytes that all caches together may fill: events, receipts, push rules, unread counts, sessions and the like. With
        /// more, fewer requests read the database. The process takes more than this: about 20 MB, the state of the rooms in
        /// use, and the requests in flight.
        pub budget: ByteSize [ByteSize::mib(16) => ByteSize::mib(65_536)] = ByteSize::mib(256),
    }
}

section! {
    /// The log, which the server writes to its standard error.
    pub struct Log {
        /// `text` for people, `json` for machines, one object a line.
        pub format: LogFormat = LogFormat::Text,
        /// The lines to write: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module such as
        /// `info,sabha::sync=debug`. Of `ruma_state_res`, `ruma_common::push`, `h2` and `rustls` only the worst lines are
        /// written, unless it names them.
        pub filter: String = "info".to_owned(),
    }
}

choice! {
    /// The format of a line of the log.
    pub enum LogFormat: "a log format", "\"text\" or \"json\"" {
        /// Lines for people.
        Text = "text",
        /// Lines for machines: one object a line.
        Json = "json",
    }
}
