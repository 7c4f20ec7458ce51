//! A server's life: start, serve, stop.
//!
//! Starting: database, services, listeners; only then is anything accepted. Stopping: no more connections, parked requests
//! answer, requests in flight finish (for at most [`GRACE`](crate::http::shutdown::GRACE)), the queue is committed.

use std::{io::Write, net::SocketAddr, time::Duration};

use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::{
    announce, build, control,
    metrics::Metrics,
    routers,
    signals::Signals,
    start::{OneLine, StartError},
    sweeps,
};
use crate::{
    app::App,
    config::{Listener as ListenerConfig, Loaded, Place, Resource},
    ephemeral,
    http::{
        accept,
        listen::{Address, Listener, ListenerSpec},
        shutdown::Shutdown,
        tls::TlsFiles,
    },
    memory,
};

/// For committing what is queued once no request is left: a few batches, even on a slow disk.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a server until SIGTERM or SIGINT, or until it can store nothing any more. `output` is told, for a person, what was
/// started.
///
/// # Errors
/// Why it did not start, or [`StartError::Ended`].
pub async fn run(loaded: Loaded, output: &mut (dyn Write + Send)) -> Result<(), StartError> {
    let mut signals = Signals::install().map_err(StartError::Signals)?;
    let metrics = Metrics::install()?;
    let shutdown = Shutdown::new();
    let created = !loaded.config.data_dir.exists();
    let surroundings = build::Surroundings { stopping: shutdown.token().clone(), ..build::Surroundings::default() };
    let app = build::app(loaded.config.clone(), surroundings).await?;
    let server = Server::start(app, shutdown, Some(metrics)).await?;
    announce::announce(&server, &loaded, created, output).await?;

    let app = server.app.clone();
    let ended = tokio::select! {
        signal = signals.wait() => {
            info!(signal, "stopping");
            None
        }
        // A server that can store nothing any more is no use, and a restart helps.
        ended = app.db.committer().ended() => {
            error!(reason = %ended, "stopping");
            Some(ended)
        }
    };
    tokio::select! {
        () = server.stop() => info!("stopped"),
        signal = signals.wait() => warn!(signal, "stopped at once; requests in flight were not answered"),
    }
    ended.map_or(Ok(()), |ended| Err(StartError::Ended(ended)))
}

/// A server that accepts requests.
pub struct Server {
    pub app: App,
    /// Where it listens, in the order of the configuration; ports that were 0 are filled in.
    pub addresses: Vec<Address>,
    pub metrics_address: Option<SocketAddr>,
    client_address: Option<SocketAddr>,
    shutdown: Shutdown,
    tasks: JoinSet<()>,
}

impl Server {
    /// Binds every listener of the configuration and begins to serve. `shutdown` is what `app.stopping` comes from.
    ///
    /// # Errors
    /// A listener that cannot be bound; the database is closed then.
    pub async fn start(app: App, shutdown: Shutdown, metrics: Option<Metrics>) -> Result<Self, StartError> {
        let bound = match Bound::bind(&app, metrics.is_some()).await {
            Ok(bound) => bound,
            Err(error) => {
                app.db.close().await;
                return Err(error);
            }
        };
        let mut server = Self {
            addresses: bound.public.iter().map(|(listener, _)| listener.address().clone()).collect(),
            metrics_address: bound.metrics.as_ref().and_then(|listener| tcp(listener.address())),
            client_address: bound
                .public
                .iter()
                .find_map(|(listener, config)| tcp(listener.address()).filter(|_| config.serves(Resource::Client))),
            app,
            shutdown,
            tasks: JoinSet::new(),
        };
        for (listener, config) in bound.public {
            let router = routers::public(&server.app, &config, server.client_address, &server.shutdown);
            server.tasks.spawn(accept::serve(listener, router, server.shutdown.clone()));
        }
        if let Some(listener) = bound.control {
            let router = control::router(server.app.clone(), &server.shutdown);
            server.tasks.spawn(accept::serve(listener, router, server.shutdown.clone()));
        }
        if let (Some(listener), Some(metrics)) = (bound.metrics, metrics) {
            let stopping = server.shutdown.token().clone();
            let upkeep = metrics.clone().upkeep();
            server.tasks.spawn(async move { stopping.run_until_cancelled(upkeep).await.unwrap_or_default() });
            server.tasks.spawn(accept::serve(listener, metrics.router(), server.shutdown.clone()));
        }
        sweeps::spawn(&server.app, &mut server.tasks);
        let stopping = server.shutdown.token().clone();
        server
            .tasks
            .spawn(async move { stopping.run_until_cancelled(memory::give_holes_back()).await.unwrap_or_default() });
        let app = server.app.clone();
        server.tasks.spawn(async move { ephemeral::run(&app.ephemeral, &app.rooms, &app.stopping).await });
        Ok(server)
    }

    /// Where clients reach this server.
    pub fn client_base_url(&self) -> String {
        self.app.config.client_base_url(self.client_address)
    }

    /// Stops in order; what was answered is committed when this returns.
    pub async fn stop(mut self) {
        self.shutdown.begin();
        self.app.bus.wake_all();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "a task failed");
            }
        }
        if let Err(left) = self.shutdown.finish_tasks().await {
            warn!(requests = left, "requests did not finish in time");
        }
        if let Err(error) = self.app.accounts.flush_last_seen().await {
            warn!(error = %OneLine(&error), "where devices were last seen was not written");
        }
        if tokio::time::timeout(CLOSE_TIMEOUT, self.app.db.close()).await.is_err() {
            warn!("the database did not close in time; what was answered is committed");
        }
    }
}

/// Every socket, bound and not yet served.
struct Bound {
    public: Vec<(Listener, ListenerConfig)>,
    metrics: Option<Listener>,
    control: Option<Listener>,
}

impl Bound {
    async fn bind(app: &App, with_metrics: bool) -> Result<Self, StartError> {
        let mut public = Vec::new();
        for config in &app.config.listeners {
            let Some(place) = config.place() else {
                continue; // refused by `Config::validate`
            };
            let address = match place {
                Place::Tcp(address) => Address::Tcp(address),
                Place::Unix { path, mode } => Address::Unix { path, mode: mode.bits() },
            };
            let tls = config
                .tls
                .as_ref()
                .map(|tls| TlsFiles { certificate_chain: tls.certificate.clone(), private_key: tls.key.clone() });
            public.push((Listener::bind(&ListenerSpec { address, tls }).await?, config.clone()));
        }
        let metrics = match app.config.metrics_address().filter(|_| with_metrics) {
            Some(address) => Some(Listener::bind(&ListenerSpec { address: Address::Tcp(address), tls: None }).await?),
            None => None,
        };
        Ok(Self { public, metrics, control: control::listen(&app.config.data_dir).await })
    }
}

fn tcp(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Tcp(address) => Some(*address),
        Address::Unix { .. } => None,
    }
}
