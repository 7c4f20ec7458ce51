//! The services of the server, built once and shared by every handler.

use std::{ops::Deref, sync::Arc};

use sabha_federation::ServerSigner;
use tokio_util::sync::CancellationToken;

use crate::{
    account::{AccountData, Accounts, Filters},
    bus::Bus,
    clock::Clock,
    config::Config,
    ephemeral::Ephemeral,
    http::RateLimits,
    keys::Keys,
    push::Push,
    room::Rooms,
    store::Database,
    sync::lazy::LazyMembers,
};

/// Everything a handler may need. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Services>);

/// The services; see the module of each.
pub struct Services {
    pub config: Config,
    pub clock: Clock,
    pub db: Arc<Database>,
    pub bus: Arc<Bus>,
    pub signer: Arc<ServerSigner>,
    pub accounts: Accounts,
    pub account_data: Arc<AccountData>,
    pub filters: Filters,
    pub push: Push,
    pub ephemeral: Ephemeral,
    pub rooms: Rooms,
    pub keys: Keys,
    pub lazy_members: LazyMembers,
    pub rate_limits: RateLimits,
    /// Cancelled when the server stops; parked requests answer then.
    pub stopping: CancellationToken,
}

impl App {
    pub fn new(services: Services) -> Self {
        Self(Arc::new(services))
    }
}

impl Deref for App {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}
