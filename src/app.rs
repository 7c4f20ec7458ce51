//! The services of the server, built once and shared by every handler.

use std::{
    ops::Deref,
    pin::Pin,
    sync::{Arc, Weak},
};

use sabha_federation::ServerSigner;
use tokio_util::sync::CancellationToken;

use crate::{
    account::Accounts,
    account_data::AccountData,
    appservice::Appservices,
    bus::{Bus, Marks, notify},
    clock::Clock,
    config::Config,
    ephemeral::Ephemeral,
    filter::{FilterCache, Filters},
    http::{BodyBudget, transport::Transport},
    jobs::Jobs,
    keys::Keys,
    lazy_members::LazyMembers,
    limits::{parked_syncs::ParkedSyncs, rate_limits::RateLimits},
    memory::budget::Budget,
    outbound::Outbound,
    push::Push,
    remote::{Federation, signing_key::SigningKeys},
    room::Rooms,
    shares::large_answers::LargeAnswers,
    store::{Database, Error, UserNid},
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
    /// The memory budget for request bodies that are being received.
    pub bodies: BodyBudget,
    /// The bounds on connections and answers, for all listeners together.
    pub transport: Transport,
    /// The large answers that are being built.
    pub large_answers: LargeAnswers,
    /// The syncs that wait for news.
    pub parked_syncs: ParkedSyncs,
    pub memory: Budget,
    /// The client for all requests to other hosts.
    pub outbound: Arc<Outbound>,
    /// `None` if this server does not talk to other servers.
    pub signing_keys: SigningKeys,
    pub federation: Option<Federation>,
    /// Cancelled when the server stops; parked requests answer then.
    pub stopping: CancellationToken,
}

impl App {
    pub fn new(services: Services) -> Self {
        let app = Self(Arc::new(services));
        app.mark_commits();
        app.wake_on_commits();
        app.load_rooms_before_device_changes();
        app
    }

    /// Marks the users whom a commit concerns, before its position is visible.
    fn mark_commits(&self) {
        let memberships = self.rooms.memberships_in_memory();
        let marks = Marks::new(Arc::clone(&self.bus), move |user| memberships.joined_rooms(user));
        self.db.committer().remember(Arc::new(marks));
    }

    /// Wakes the users whom a commit has marked, once its position is visible: in a task that ends with the committer.
    fn wake_on_commits(&self) {
        let (bus, committer) = (Arc::clone(&self.bus), self.db.committer().clone());
        tokio::spawn(async move { notify::run(&bus, &committer).await });
        let bus = Arc::clone(&self.bus);
        self.db.committer().on_published(move || bus.published());
    }

    /// Loads the rooms of a user before a change of their devices, so that its commit marks those who share one.
    fn load_rooms_before_device_changes(&self) {
        // A weak reference: the services own the accounts, which keep this closure.
        let services = Arc::downgrade(&self.0);
        let prepare = move |user| -> Pin<Box<dyn Future<Output = _> + Send>> {
            let services = services.clone();
            Box::pin(async move { load_rooms_of(&services, user).await })
        };
        self.accounts.before_device_change(Box::new(prepare));
    }
}

impl Deref for App {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

/// Loads the rooms of a user into memory.
async fn load_rooms_of(services: &Weak<Services>, user: UserNid) -> Result<(), Error> {
    match services.upgrade() {
        Some(services) => services.rooms.load_memberships(user).await,
        None => Ok(()),
    }
}
