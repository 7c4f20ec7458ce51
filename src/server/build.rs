//! Builds every service from the configuration: the one place that knows them all.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc};

use sabha_federation::ServerSigner;
use tokio_util::sync::CancellationToken;

use super::{private_files, start::StartError};
use crate::{
    account::{Accounts, password::Hashing},
    account_data::AccountData,
    app::{App, Services},
    appservice::Appservices,
    bus::Bus,
    clock::Clock,
    config::{self, Config, DatabaseTarget},
    ephemeral::Ephemeral,
    filter::{FilterCache, Filters},
    http::{
        BodyBudget,
        transport::{Answers, Connections, Transport},
    },
    jobs::Jobs,
    keys::Keys,
    lazy_members::LazyMembers,
    limits::{parked_syncs::ParkedSyncs, rate_limits::RateLimits},
    memory::budget::Budget,
    outbound::Outbound,
    push::Push,
    remote::{
        Federation,
        signing_key::{self, SigningKeys},
    },
    room::Rooms,
    shares::large_answers::LargeAnswers,
    store::{self, Database, DatabaseOptions, Durability, Patience, Role},
};

/// The inputs that do not come from the configuration, so that tests can choose them.
pub struct Surroundings {
    pub clock: Clock,
    pub hashing: Hashing,
    /// Cancelled when the server stops.
    pub stopping: CancellationToken,
    /// The time to wait for the database.
    pub patience: Patience,
    /// The part that this process plays for its database. The configuration does not know of several processes yet.
    pub role: Role,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            clock: Clock::System,
            hashing: Hashing::recommended(),
            stopping: CancellationToken::new(),
            patience: Patience::default(),
            role: Role::Lead,
        }
    }
}

/// Opens the database and builds the services on it.
///
/// # Errors
/// Each is one line that says what to do; a database that was opened is closed again.
pub async fn app(mut config: Config, surroundings: Surroundings) -> Result<App, StartError> {
    config.registration.shared_secret = config.shared_secret().map_err(StartError::SharedSecret)?;
    let appservices = Arc::new(Appservices::load(&config.appservices.files, &config.server_name)?);
    let outbound = Arc::new(Outbound::new(&config.outbound, &config.federation.ca_files)?);
    // After all files that are only read, so that a start that fails on one of them leaves nothing behind.
    if let DatabaseTarget::Sqlite(_) = config.database_url().target() {
        create_data_dir(&config.data_dir)?;
    }
    private_files::tighten(&config);
    let db = Arc::new(Database::open(database_options(&config, &surroundings)?).await?);
    let signer = match signer(&db, &config, &surroundings.clock).await {
        Ok(signer) => Arc::new(signer),
        Err(error) => {
            db.close().await;
            return Err(error);
        }
    };
    let Surroundings { clock, hashing, stopping, patience: _, role: _ } = surroundings;
    let bus = Arc::new(Bus::default());
    let memory = Budget::new(config.memory.budget.bytes() as u64);
    let account_data = Arc::new(AccountData::new(Arc::clone(&db), &config.limits, &memory));
    db.limit_words(&memory);
    let app = App::new(Services {
        accounts: Accounts::new(Arc::clone(&db), clock.clone(), hashing, &config, Arc::clone(&appservices), &memory),
        filters: Filters::new(Arc::clone(&db), &config.limits),
        filter_cache: FilterCache::new(&memory),
        push: Push::new(Arc::clone(&account_data), &memory),
        ephemeral: Ephemeral::new(
            Arc::clone(&db),
            Arc::clone(&bus),
            clock.clone(),
            Arc::clone(&account_data),
            &config.presence,
            &memory,
        ),
        keys: Keys::new(Arc::clone(&db), clock.clone(), &config, &memory),
        jobs: Jobs::new(Arc::clone(&db)),
        lazy_members: LazyMembers::new(&memory),
        account_data,
        rooms: Rooms::new(
            Arc::clone(&db),
            Arc::clone(&bus),
            clock.clone(),
            Arc::clone(&signer),
            &config.limits,
            &memory,
        ),
        rate_limits: RateLimits::new(&config.rate_limits),
        bodies: BodyBudget::new(&config.limits),
        transport: Transport::new(
            Connections::new(config.limits.connections_per_address),
            Answers::new(config.limits.answer_bytes_in_flight.bytes()),
        ),
        large_answers: LargeAnswers::new(stopping.clone()),
        parked_syncs: ParkedSyncs::new(&config.limits),
        signing_keys: SigningKeys::new(Arc::clone(&db), clock.clone(), Arc::clone(&signer), &config.data_dir),
        federation: config.federation.enabled.then(|| {
            let (signer, outbound) = (Arc::clone(&signer), Arc::clone(&outbound));
            let notaries = &config.federation.trusted_notaries;
            Federation::new(Arc::clone(&db), clock.clone(), signer, outbound, notaries, &memory)
        }),
        memory,
        outbound,
        config,
        clock,
        db,
        bus,
        signer,
        stopping,
        appservices,
    });
    app.db.follow();
    if let Err(error) = app.accounts.register_senders().await {
        app.db.close().await;
        return Err(StartError::Sender(error));
    }
    Ok(app)
}

/// The signing key in the data directory. On PostgreSQL the directory is created only now: a start that does not get into the
/// database leaves none behind.
async fn signer(db: &Database, config: &Config, clock: &Clock) -> Result<ServerSigner, StartError> {
    create_data_dir(&config.data_dir)?;
    Ok(signing_key::load_or_create(db, &config.data_dir, &config.server_name, clock.now_ms()).await?)
}

/// Creates the data directory. Only its owner may read a directory that we create.
pub(super) fn create_data_dir(path: &Path) -> Result<(), StartError> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|source| StartError::DataDir { path: path.to_owned(), source })
}

/// Returns whether a server has ever been started with this configuration. Creates nothing.
///
/// # Errors
/// If the data directory or the database cannot be checked.
pub async fn has_server(config: &Config) -> Result<bool, StartError> {
    let unreadable = |source| StartError::DataDir { path: config.data_dir.clone(), source };
    // A server without its key still counts, and opening its database reports the problem.
    Ok(config.data_dir.try_exists().map_err(unreadable)?
        && store::exists(&DatabaseOptions::location(config.database_url().expose())?).await?)
}

fn database_options(config: &Config, surroundings: &Surroundings) -> Result<DatabaseOptions, StartError> {
    let url = config.database_url();
    let readers = match url.target() {
        DatabaseTarget::Sqlite(_) => config.database.readers,
        // One of the connections is the committer's.
        DatabaseTarget::Postgres(_) => config.database.max_connections.saturating_sub(1).max(1),
    };
    Ok(DatabaseOptions {
        location: DatabaseOptions::location(url.expose())?,
        durability: match config.database.durability {
            config::Durability::Power => Durability::Power,
            config::Durability::Process => Durability::Process,
        },
        readers,
        server_name: config.server_name.to_string(),
        role: surroundings.role,
        incarnation: i64::from(rand::random::<u32>()),
        clock: surroundings.clock.clone(),
        patience: surroundings.patience,
    })
}
