//! Accounts: users of this server, their devices, tokens, profiles and account data.
//!
//! Promises: passwords are stored as Argon2id, tokens as SHA-256 only; a token that was revoked stops working at once, also
//! for requests that are parked.

pub mod data;
pub mod filters;
pub mod password;
pub mod session;
pub mod tags;
pub mod turns;

use std::sync::Arc;

use quick_cache::sync::Cache;

pub use data::AccountData;
pub use filters::Filters;
pub use session::{AuthenticateError, LocalDevice, TokenHash};

use crate::{bus::Bus, clock::Clock, store::Database};

/// How many sessions are kept in memory; the others are read again when they are used.
const CACHED_SESSIONS: usize = 100_000;

/// The service of everything that belongs to an account.
pub struct Accounts {
    pub(crate) db: Arc<Database>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) clock: Clock,
    pub(crate) sessions: Cache<TokenHash, Arc<LocalDevice>>,
    pub(crate) hashing: password::Hashing,
}

impl Accounts {
    pub fn new(db: Arc<Database>, bus: Arc<Bus>, clock: Clock, hashing: password::Hashing) -> Self {
        Self { db, bus, clock, sessions: Cache::new(CACHED_SESSIONS), hashing }
    }
}
