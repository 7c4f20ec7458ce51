//! Configuration: one typed struct for each section, read from files, environment and flags, and checked before we
//! listen.
//!
//! Promise: a [`Config`] from [`load`] passed every check. Each problem that [`load`] reports names the place, the key,
//! the mistake and what to write instead. Unknown keys are errors. No message and no listing shows a secret. An empty
//! configuration is complete, for playing: see [`Config::default`].
//!
//! The sections are in [`database`], [`listeners`], [`limits`], [`outbound`] and [`sections`]. [`keys`] declares a
//! section, and [`sources`] reads the values. [`reference`](mod@reference) generates `docs/operating/configuration.md`.

pub mod authorities;
pub mod check;
pub mod database;
pub mod keys;
pub mod limits;
pub mod listeners;
pub mod outbound;
pub mod problem;
pub mod reference;
pub mod secret;
pub mod sections;
pub mod show;
pub mod sources;
pub mod validate;
pub mod values;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ruma::{OwnedServerName, owned_server_name};
use zeroize::Zeroizing;

pub use self::database::{Database, DatabaseTarget, DatabaseUrl, Durability};
pub use self::limits::{Limits, Rate, RateLimits};
pub use self::listeners::{Listener, ListenerPlace, Metrics, Resource, Tls};
pub use self::outbound::{HostAddress, Hosts, Outbound};
pub use self::problem::{Origin, Problem, Problems};
pub use self::secret::Secret;
pub use self::sections::{
    AppserviceFiles, Client, Federation, Log, LogFormat, Memory, Presence, Registration, RegistrationMode, Rooms,
    Sessions,
};
pub use self::sources::{Loaded, Sources, load};
pub use self::values::{ByteSize, FileMode, IpRange, TimeSpan};

use self::keys::section;

section! {
    /// The name of the server and the place of its data.
    pub struct Config {
        /// The name at the end of every user ID (`@alice:example.com`). **It can never change** once there is data.
        /// `localhost` is for playing: nobody else can reach such a server.
        pub server_name: OwnedServerName = owned_server_name!("localhost"),
        /// Directory of everything we store in files: the SQLite database and the signing keys. Relative paths start at
        /// the working directory.
        pub data_dir: PathBuf = PathBuf::from("./sabha-data"),
        /// Storage of events, accounts and keys.
        pub database: Database = Database::default(),
        /// Addresses where the server accepts HTTP.
        pub listeners: Vec<Listener> = vec![Listener::tcp(listeners::LOCAL_ADDRESS)],
        /// Measurements for Prometheus.
        pub metrics: Metrics = Metrics::default(),
        /// Registration of accounts.
        pub registration: Registration = Registration::default(),
        /// Bridges and bots that act for many users.
        pub appservices: AppserviceFiles = AppserviceFiles::default(),
        /// The address at which clients reach the server.
        pub client: Client = Client::default(),
        /// Federation with other servers.
        pub federation: Federation = Federation::default(),
        /// Addresses that requests to others may connect to.
        pub outbound: Outbound = Outbound::default(),
        /// Rooms created here.
        pub rooms: Rooms = Rooms::default(),
        /// Lifetimes of logins.
        pub sessions: Sessions = Sessions::default(),
        /// Presence: which users are online.
        pub presence: Presence = Presence::default(),
        /// Rate limits of clients.
        pub rate_limits: RateLimits = RateLimits::default(),
        /// Upper bounds on what clients may send and store.
        pub limits: Limits = Limits::default(),
        /// Memory for caches.
        pub memory: Memory = Memory::default(),
        /// The log on standard error.
        pub log: Log = Log::default(),
    }
}

impl Config {
    /// Returns whether this server is for playing on one machine: nobody else can reach the name `localhost`.
    pub fn is_local(&self) -> bool {
        self.server_name.host() == "localhost"
    }

    /// The URL of the database, also when `database.url` is unset.
    pub fn database_url(&self) -> DatabaseUrl {
        let default = || DatabaseUrl::sqlite(&self.data_dir.join("sabha.db"));
        self.database.url.clone().unwrap_or_else(default)
    }

    /// The URL of the server for clients, without a final `/`. `bound` is the real address of the first TCP listener
    /// for clients, if it is bound: its configured port may be 0.
    pub fn client_base_url(&self, bound: Option<SocketAddr>) -> String {
        if let Some(base_url) = &self.client.base_url {
            return base_url.trim_end_matches('/').to_owned();
        }
        if !self.is_local() {
            return format!("https://{}", self.server_name.host());
        }
        let listener =
            self.listeners.iter().find(|listener| listener.serves(Resource::Client) && listener.address.is_some());
        let scheme = if listener.is_some_and(|listener| listener.tls.is_some()) { "https" } else { "http" };
        let address = bound.or_else(|| listener?.address).unwrap_or(listeners::LOCAL_ADDRESS);
        format!("{scheme}://localhost:{}", address.port())
    }

    /// The address of the server for other servers (`m.server`). `None` means that `/.well-known/matrix/server` is not
    /// found.
    pub fn well_known_server(&self) -> Option<String> {
        let derived = || self.federation.enabled.then(|| format!("{}:443", self.server_name.host()));
        self.federation.well_known_server.clone().or_else(derived)
    }

    /// The shared secret of the registration endpoint, from the file if there is one.
    ///
    /// # Errors
    /// When the file cannot be read or is empty.
    pub fn shared_secret(&self) -> io::Result<Option<Secret>> {
        let Some(path) = &self.registration.shared_secret_file else {
            return Ok(self.registration.shared_secret.clone());
        };
        let text = Zeroizing::new(std::fs::read_to_string(path)?);
        // Editors end a file with a newline, which is not part of the secret.
        let secret = Secret::try_from(text.trim().to_owned());
        secret.map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is empty"))
    }

    /// The address that serves the measurements, if they are enabled.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.enabled.then_some(self.metrics.address)
    }
}

#[cfg(test)]
mod tests;
