//! The small sections: who may register, how clients reach us, federation, rooms, sessions, presence, log.

use std::path::PathBuf;

use ruma::RoomVersionId;

use super::keys::{choice, section};
use super::secret::Secret;
use super::values::TimeSpan;

section! {
    /// Who may create an account. `sabha user create` always may.
    pub struct Registration {
        /// `closed`: nobody. `token`: who has a token from `sabha token new`. `open`: everyone who can reach the server.
        pub mode: RegistrationMode = RegistrationMode::Closed,
        /// Lets programs that know this secret make accounts and admins, in every `mode`, at `/_synapse/admin/v1/register`
        /// as Synapse does. If unset, there is no such endpoint. Keep it out of the file with `shared_secret_file` or
        /// `SABHA_REGISTRATION__SHARED_SECRET`.
        pub shared_secret: Option<Secret> = None,
        /// Path of a file that holds the shared secret; white space around it does not count. Instead of `shared_secret`.
        pub shared_secret_file: Option<PathBuf> = None,
    }
}

choice! {
    /// Who may create an account.
    pub enum RegistrationMode: "a registration mode", "\"closed\", \"token\" or \"open\"" {
        /// Nobody but the operator.
        Closed = "closed",
        /// Who holds a registration token.
        Token = "token",
        /// Everyone who can reach the server.
        Open = "open",
    }
}

section! {
    /// Application services: bridges and bots that act for many users. This version does what they ask, but **does not send
    /// them events** yet, nor ask them about users and aliases: one that waits for events hears nothing.
    pub struct AppserviceFiles {
        /// Paths of their registration files, YAML, one for each. They are read once, at the start.
        pub files: Vec<PathBuf> = Vec::new(),
    }
}

section! {
    /// How clients reach the server.
    pub struct Client {
        /// The address that clients use, told to them at `/.well-known/matrix/client`. If unset, `https://` and the
        /// server name without its port; for `localhost` the first listener.
        pub base_url: Option<String> = None,
    }
}

section! {
    /// Talking to other servers. This version publishes its keys, verifies and signs requests, and exchanges profiles,
    /// aliases and the room directory; **rooms cannot be shared with other servers yet**. See `docs/operating/federation.md`.
    pub struct Federation {
        /// Whether we talk to other servers.
        pub enabled: bool = false,
        /// `HOST:PORT` where other servers reach us, told to them at `/.well-known/matrix/server`. If unset, that is not
        /// served while federation is off, and the server name with port 443 once it is on.
        pub well_known_server: Option<String> = None,
        /// PEM files of certificate authorities that are trusted for other servers, besides the public ones. For nothing
        /// else.
        pub ca_files: Vec<PathBuf> = Vec::new(),
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
    /// How long a login lasts.
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
    /// Who is online.
    pub struct Presence {
        /// Whether clients learn who is online.
        pub enabled: bool = true,
    }
}

section! {
    /// What the server writes to its standard error.
    pub struct Log {
        /// `text` for people, `json` for machines, one object a line.
        pub format: LogFormat = LogFormat::Text,
        /// What is written: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by module such as
        /// `info,sabha::sync=debug`.
        pub filter: String = "info".to_owned(),
    }
}

choice! {
    /// How a line of the log is written.
    pub enum LogFormat: "a log format", "\"text\" or \"json\"" {
        /// For people.
        Text = "text",
        /// For machines: one object a line.
        Json = "json",
    }
}
