//! The services of the server, built once and shared by every handler.

use std::{
    ops::Deref,
    sync::{Arc, Weak},
};

use sabha_federation::ServerSigner;
use tokio_util::sync::CancellationToken;

use crate::{
    account::{AccountData, Accounts, Filters},
    appservice::Appservices,
    bus::Bus,
    clock::Clock,
    config::Config,
    ephemeral::Ephemeral,
    federation::Federation,
    http::{BodyBudget, RateLimits, transport::Transport},
    jobs::Jobs,
    keys::Keys,
    outbound::Outbound,
    push::Push,
    room::Rooms,
    store::{Database, Position, UserNid},
    sync::{filter::FilterCache, lazy::LazyMembers, parked::ParkedSyncs},
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
    pub appservices: Arc<Appservices>,
    pub account_data: Arc<AccountData>,
    pub filters: Filters,
    pub filter_cache: FilterCache,
    pub push: Push,
    pub ephemeral: Ephemeral,
    pub rooms: Rooms,
    pub keys: Keys,
    pub jobs: Jobs,
    pub lazy_members: LazyMembers,
    pub rate_limits: RateLimits,
    /// What requests that are being received may hold.
    pub bodies: BodyBudget,
    /// What connections and answers may hold, on all listeners for others.
    pub transport: Transport,
    /// The syncs that wait for news.
    pub parked_syncs: ParkedSyncs,
    /// Whatever this server asks of others goes through here.
    pub outbound: Arc<Outbound>,
    /// `None`: this server does not talk to other servers.
    pub federation: Option<Federation>,
    /// Cancelled when the server stops; parked requests answer then.
    pub stopping: CancellationToken,
}

impl App {
    pub fn new(services: Services) -> Self {
        let app = Self(Arc::new(services));
        // Weak, because the accounts belong to what it points to.
        let services = Arc::downgrade(&app.0);
        app.accounts.on_device_change(app.keys.device_change_listener(move |user, position| {
            let services = services.clone();
            tokio::spawn(async move { wake_rooms_of(&services, user, position).await });
        }));
        app
    }
}

impl Deref for App {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

/// Wakes everyone who shares a room with the user. A hint: who is not woken sees the news with their next request.
async fn wake_rooms_of(services: &Weak<Services>, user: UserNid, position: Position) {
    let Some(services) = services.upgrade() else {
        return;
    };
    match services.rooms.joined_rooms(user).await {
        Ok(rooms) => rooms.into_iter().for_each(|room| services.bus.wake_room(room, position)),
        Err(error) => tracing::warn!(%error, "could not wake the rooms of a user whose devices changed"),
    }
}
