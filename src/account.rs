//! Accounts: users of this server, their devices, tokens and profiles.
//!
//! Promises: passwords are stored as Argon2id, tokens as SHA-256 only, and neither is ever shown. A revoked token stops
//! working at once, also for parked requests. An account, its first device and its tokens are stored together or not at
//! all, and a name is never given out twice.
//!
//! Reading order: [`register`] creates accounts. [`session::login`] and [`session::refresh`] create sessions, [`session`]
//! authenticates them, [`session::devices`] ends them. [`appservice`] does all of this for application services. [`interactive_auth`] asks for
//! the password again before an operation that cannot be undone.

pub mod admin;
pub mod appservice;
pub mod deactivate;
pub mod directory;
pub mod interactive_auth;
pub mod names;
pub mod password;
pub mod profiles;
pub mod register;
pub mod registration_tokens;
pub mod session;
pub mod setup;
pub mod shared_secret;
pub mod turns;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use ruma::OwnedServerName;
use tokio::sync::OnceCell;

pub use directory::Account;
pub use session::{
    AuthenticateError, LocalDevice,
    devices::BeforeDeviceChange,
    new_session::{NewSession, Session},
    tokens::TokenHash,
};

use crate::{
    appservice::Appservices,
    clock::Clock,
    config::{Config, RegistrationMode, Secret, TimeSpan},
    memory::budget::Budget,
    store::Database,
};
use interactive_auth::InteractiveAuth;
use session::{cache::SessionCache, last_seen::LastSeen};
use shared_secret::SharedSecret;

/// The part of the configuration that concerns accounts.
#[derive(Debug, Clone)]
pub struct Settings {
    pub server_name: OwnedServerName,
    pub registration: RegistrationMode,
    pub shared_secret: Option<Secret>,
    pub access_token_lifetime: Option<Duration>,
    pub refreshable_access_token_lifetime: Duration,
    pub refresh_token_lifetime: Option<Duration>,
    pub interactive_auth_lifetime: Duration,
    pub devices_per_user: u32,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let sessions = &config.sessions;
        Self {
            server_name: config.server_name.clone(),
            registration: config.registration.mode,
            shared_secret: config.registration.shared_secret.clone(),
            access_token_lifetime: sessions.access_token_lifetime.map(TimeSpan::duration),
            refreshable_access_token_lifetime: sessions.refreshable_access_token_lifetime.duration(),
            refresh_token_lifetime: sessions.refresh_token_lifetime.map(TimeSpan::duration),
            interactive_auth_lifetime: sessions.interactive_auth_lifetime.duration(),
            devices_per_user: config.limits.devices_per_user,
        }
    }
}

/// The service of everything that belongs to an account.
pub struct Accounts {
    pub(crate) db: Arc<Database>,
    pub(crate) clock: Clock,
    settings: Settings,
    appservices: Arc<Appservices>,
    sessions: Arc<SessionCache>,
    hashing: password::Hashing,
    /// The hash of a random password, so that checking an unknown user takes as long as checking a wrong password.
    nobodys_hash: OnceCell<String>,
    interactive_auth: InteractiveAuth,
    shared_secret: Option<SharedSecret>,
    last_seen: LastSeen,
    before_device_change: OnceLock<BeforeDeviceChange>,
}

impl Accounts {
    pub fn new(
        db: Arc<Database>,
        clock: Clock,
        hashing: password::Hashing,
        settings: impl Into<Settings>,
        appservices: Arc<Appservices>,
        budget: &Budget,
    ) -> Self {
        let settings = settings.into();
        let sessions = Arc::new(SessionCache::new(db.committer().published(), budget));
        db.committer().remember(Arc::<SessionCache>::clone(&sessions));
        Self {
            interactive_auth: InteractiveAuth::new(settings.interactive_auth_lifetime),
            shared_secret: settings.shared_secret.clone().map(SharedSecret::new),
            db,
            clock,
            settings,
            appservices,
            sessions,
            hashing,
            nobodys_hash: OnceCell::new(),
            last_seen: LastSeen::default(),
            before_device_change: OnceLock::new(),
        }
    }

    /// The setting that says who may register here.
    pub fn registration_mode(&self) -> RegistrationMode {
        self.settings.registration
    }
}

/// Converts a duration, or a moment as a duration since 1970, to milliseconds. Both are far below the end of an `i64`.
pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
