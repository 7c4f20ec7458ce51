//! The server of a stage, with its doors: it starts again on the same data after a restart.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::Router;
use ruma::owned_server_name;
use sabha::{
    account::password::Hashing,
    app::App,
    client_api,
    config::{Config, DatabaseUrl, Durability, Listener as ListenerConfig, RegistrationMode},
    http::{
        accept,
        listen::{Address, Listener, ListenerSpec},
        shutdown::Shutdown,
        tracked::TrackedLayer,
    },
    server::{Server, build},
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::{
    api::{Open, Transport},
    delays::Delays,
    postgres::PostgresDatabase,
};

/// A server, its router, and a listener of the test for this router, whose requests we can wait for.
pub struct Running {
    pub server: Server,
    /// Told when the server is to stop.
    pub stopping: Shutdown,
    router: Router,
    address: SocketAddr,
    requests: Shutdown,
    listening: JoinHandle<()>,
}

impl Running {
    pub async fn start(data: &TempDir, database: Option<&PostgresDatabase>, delays: &Arc<Delays>) -> Self {
        Self::start_in(build::Surroundings::default(), data, database, delays).await
    }

    /// Starts a server with this clock, patience and role.
    pub async fn start_in(
        surroundings: build::Surroundings,
        data: &TempDir,
        database: Option<&PostgresDatabase>,
        delays: &Arc<Delays>,
    ) -> Self {
        let (server, stopping) = start(surroundings, data, database).await;
        let in_steps = Arc::clone(delays);
        server.app.db.committer().on_step(Arc::new(move |step| {
            let delays = Arc::clone(&in_steps);
            Box::pin(async move { delays.wait(step).await })
        }));
        let requests = Shutdown::new();
        let router = router(&server.app, &requests);
        let address = Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let listener = Listener::bind(&ListenerSpec { address, tls: None }).await.expect("a free port");
        let Address::Tcp(address) = listener.address().clone() else { unreachable!("it was TCP") };
        let listening = tokio::spawn(accept::serve(listener, router.clone(), requests.clone()));
        Self { server, stopping, router, address, requests, listening }
    }

    /// The way into the server: over sockets, or directly to the router.
    pub fn open(&self, sockets: bool) -> Open {
        let transport = if sockets {
            Transport::Socket { address: self.address, http: reqwest::Client::new() }
        } else {
            Transport::Router(self.router.clone())
        };
        Open { transport, app: self.server.app.clone() }
    }

    /// Tells whether no other process writes.
    pub fn leads(&self) -> bool {
        !self.server.app.db.committer().is_following()
    }

    /// Waits for what clients that hung up left behind, as [`settle`] does.
    pub async fn settled(&self) {
        if self.leads() {
            settle(&self.server.app, &self.requests).await;
        } else {
            // Jobs are done by the process that leads.
            end_of(&self.requests).await;
        }
        self.requests.tasks().reopen();
    }

    /// Stops the server in order. What its jobs have not done yet is left to the next start.
    pub async fn stop(self) {
        let Self { server, router, requests, listening, .. } = self;
        end_of(&requests).await;
        requests.begin();
        drop(router);
        // Its connections end with it; a panic there has shown in an answer.
        let _ = listening.await;
        server.stop().await;
    }
}

/// The client API of a process, without sockets.
pub fn router(app: &App, requests: &Shutdown) -> Router {
    let layer = TrackedLayer::new(requests.tasks().clone());
    client_api::routes().into_router().with_state(app.clone()).layer(layer)
}

/// Waits until the requests of clients that hung up have run to their end, and their jobs too.
pub async fn settle(app: &App, requests: &Shutdown) {
    end_of(requests).await;
    app.jobs.settled().await;
}

/// Waits until the requests of clients that hung up have run to their end.
async fn end_of(requests: &Shutdown) {
    requests.tasks().close();
    requests.tasks().wait().await;
}

async fn start(
    surroundings: build::Surroundings,
    data: &TempDir,
    database: Option<&PostgresDatabase>,
) -> (Server, Shutdown) {
    let shutdown = Shutdown::new();
    let surroundings =
        build::Surroundings { hashing: Hashing::cheap(), stopping: shutdown.token().clone(), ..surroundings };
    let app =
        build::app(config(data, database), surroundings).await.unwrap_or_else(|error| panic!("no server: {error}"));
    let server = Server::start(app, shutdown.clone(), None).await;
    (server.unwrap_or_else(|error| panic!("no server: {error}")), shutdown)
}

/// Returns the configuration of a server for tests.
pub fn config(data: &TempDir, database: Option<&PostgresDatabase>) -> Config {
    let mut config = Config { server_name: owned_server_name!("sabha.test"), ..Config::default() };
    config.data_dir = data.path().to_owned();
    config.listeners = vec![ListenerConfig::tcp((Ipv4Addr::LOCALHOST, 0).into())];
    config.metrics.enabled = false;
    config.registration.mode = RegistrationMode::Open;
    // A correct request that is refused by a rate limit would show nothing.
    config.rate_limits.enabled = false;
    // This test cuts no power.
    config.database.durability = Durability::Process;
    config.database.readers = 2;
    config.database.max_connections = 4;
    config.database.url = database.map(|database| DatabaseUrl::try_from(database.url.clone()).expect("a database URL"));
    config
}
