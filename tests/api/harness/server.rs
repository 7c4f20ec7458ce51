//! A server for one test: in this process, with its own database, port and data directory.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use ruma::owned_server_name;
use sabha::{
    account::password::Hashing,
    app::App,
    clock::Clock,
    config::{Config, DatabaseUrl, Durability, Listener, RateLimits, RegistrationMode},
    http::{listen::Address, shutdown::Shutdown},
    remote::signing_key,
    server::{Server, StartError, build},
    store::{Patience, Role},
};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{Client, Engine, postgres::PostgresDatabase, proxy::Proxy, v3};

/// The password of every account of [`TestServer::register`].
pub const PASSWORD: &str = "correct horse battery staple";

/// A running server that ends with the test.
pub struct TestServer {
    /// The services, for checks that a client cannot make. `None` only during [`Self::restart`].
    server: Option<Server>,
    setup: Setup,
    http: reqwest::Client,
    base: String,
}

/// Settings and data that a restart needs.
struct Setup {
    config: Config,
    clock: Clock,
    patience: Patience,
    role: Role,
    hashing: Hashing,
    /// Removed with everything in it when the test ends.
    data: TempDir,
    postgres: Option<PostgresDatabase>,
    proxy: Option<Proxy>,
}

/// The differences of a test's server from the default one.
pub struct Builder {
    engine: Engine,
    clock: Clock,
    patience: Patience,
    role: Role,
    is_proxied: bool,
    hashing: Hashing,
    config: Config,
}

impl Builder {
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Sets the registration mode. Default: open.
    #[must_use]
    pub fn registration(mut self, mode: RegistrationMode) -> Self {
        self.config.registration.mode = mode;
        self
    }

    /// Sets rate limits. Default: none.
    #[must_use]
    pub fn rate_limits(mut self, limits: RateLimits) -> Self {
        self.config.rate_limits = limits;
        self
    }

    /// Sets the clock. Default: the system's. [`Clock::manual`] stands still until the test moves it.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the timeouts for the database. Default: as in production, but for a long silence.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Sets the part that the process plays. Default: it is alone.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Sets the cost of password hashes. Default: as low as possible.
    #[must_use]
    pub fn hashing(mut self, hashing: Hashing) -> Self {
        self.hashing = hashing;
        self
    }

    /// Puts a [`Proxy`] between the server and PostgreSQL.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.is_proxied = true;
        self
    }

    /// Changes any other part of the configuration.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// # Panics
    /// When the server does not start.
    pub async fn start(self) -> TestServer {
        self.try_start().await.expect("this engine is installed")
    }

    /// Starts the server. `None` where the engine is not installed.
    pub async fn try_start(self) -> Option<TestServer> {
        let Self { engine, clock, patience, role, is_proxied, hashing, mut config } = self;
        let data = tempfile::Builder::new().prefix("sabha-test-").tempdir().expect("a temporary directory");
        config.data_dir = data.path().to_owned();
        let postgres = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(PostgresDatabase::create().await?),
        };
        let proxy = match postgres.as_ref().filter(|_| is_proxied) {
            Some(database) => Some(Proxy::before(&database.url).await),
            None => None,
        };
        let url = proxy.as_ref().map(Proxy::url).or_else(|| postgres.as_ref().map(|database| database.url.clone()));
        config.database.url = url.map(|url| DatabaseUrl::try_from(url).expect("a database URL"));
        let setup = Setup { config, clock, patience, role, hashing, data, postgres, proxy };
        Some(setup.first_start().await)
    }
}

impl Setup {
    async fn first_start(mut self) -> TestServer {
        let server = self.start().await.unwrap_or_else(|error| panic!("the server did not start: {error}"));
        let Some(Address::Tcp(address)) = server.addresses.first() else {
            panic!("the first listener of a test's server is TCP")
        };
        // A restarted server keeps its address.
        self.config.listeners[0].address = Some(*address);
        let base = format!("http://{address}");
        TestServer { server: Some(server), setup: self, http: reqwest::Client::new(), base }
    }

    async fn start(&self) -> Result<Server, StartError> {
        let shutdown = Shutdown::new();
        let surroundings = build::Surroundings {
            clock: self.clock.clone(),
            hashing: self.hashing.clone(),
            stopping: shutdown.token().clone(),
            patience: self.patience,
            role: self.role,
        };
        let app = build::app(self.config.clone(), surroundings).await?;
        Server::start(app, shutdown, None).await
    }
}

impl TestServer {
    /// Starts a server on SQLite with open registration, no rate limits and cheap password hashes.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Returns the default server, to be changed before it starts. Its name is `sabha.test`.
    pub fn builder() -> Builder {
        let mut config = Config { server_name: owned_server_name!("sabha.test"), ..Config::default() };
        config.listeners = vec![Listener::tcp((Ipv4Addr::LOCALHOST, 0).into())];
        config.metrics.enabled = false;
        config.registration.mode = RegistrationMode::Open;
        config.rate_limits.enabled = false;
        // The suite tests behaviour; power cuts are tested elsewhere.
        config.database.durability = Durability::Process;
        config.database.readers = 2;
        config.database.max_connections = 4;
        Builder {
            engine: Engine::Sqlite,
            clock: Clock::System,
            // A test may hold the committer for as long as it likes, and still read.
            patience: Patience { silence: Duration::from_secs(3600), ..Patience::default() },
            role: Role::Lead,
            is_proxied: false,
            hashing: Hashing::cheap(),
            config,
        }
    }

    /// Starts another process on the same PostgreSQL. Both must share it, as [`Role::Follow`] says.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn another(&self, clock: Clock) -> Self {
        let data = tempfile::Builder::new().prefix("sabha-test-").tempdir().expect("a temporary directory");
        let key = |dir: &Path| dir.join(signing_key::FILE);
        std::fs::copy(key(self.data_dir()), key(data.path())).expect("the first process has made it");
        let Setup { config, patience, role, hashing, .. } = &self.setup;
        let (mut config, patience, role, hashing) = (config.clone(), *patience, *role, hashing.clone());
        config.data_dir = data.path().to_owned();
        config.listeners = vec![Listener::tcp((Ipv4Addr::LOCALHOST, 0).into())];
        Setup { config, clock, patience, role, hashing, data, postgres: None, proxy: None }.first_start().await
    }

    /// Stops the server in order and starts it again on the same data. Its clients stay usable.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.server = Some(self.try_restart().await.unwrap_or_else(|error| panic!("no restart: {error}")));
    }

    /// Stops the server in order, for a test of what can start afterwards.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Starts another server on the same data. Useful only after [`Self::stop`], or to see it refused.
    pub async fn try_restart(&self) -> Result<Server, StartError> {
        self.setup.start().await
    }

    /// Returns the configuration, to be changed before the next start.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.setup.config
    }

    /// Returns the services behind the server.
    pub fn app(&self) -> &App {
        &self.server.as_ref().expect("it is running").app
    }

    /// Returns the proxy between the server and PostgreSQL, after [`Builder::proxied`].
    pub fn proxy(&self) -> &Proxy {
        self.setup.proxy.as_ref().expect("the server was built with a proxy")
    }

    /// Opens a connection to the server's PostgreSQL, past any proxy.
    pub async fn postgres(&self) -> PgConnection {
        let database = self.setup.postgres.as_ref().expect("the server runs on PostgreSQL");
        PgConnection::connect(&database.url).await.expect("PostgreSQL runs")
    }

    pub fn data_dir(&self) -> &Path {
        self.setup.data.path()
    }

    /// Returns the server's address: `http://127.0.0.1:PORT`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Opens a connection to which a test can write any bytes.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.base.trim_start_matches("http://")).await.expect("the server listens")
    }

    /// Returns a client without an account.
    pub fn anonymous(&self) -> Client {
        Client::new(self.http.clone(), self.base.clone())
    }

    /// Registers an account with [`PASSWORD`] and signs it in.
    pub async fn register(&self, name: &str) -> Client {
        let anonymous = self.anonymous();
        let body = json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
        let answer = anonymous.post(&v3(["register"]), body).await.ok();
        anonymous.signed_in(&answer)
    }

    /// Signs an account in, on a new device.
    pub async fn login(&self, name: &str) -> Client {
        self.anonymous().login(name, PASSWORD).await
    }
}
