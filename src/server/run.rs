//! A server's life: start, serve, stop.
//!
//! Starting: sockets, database, services; only then is anything accepted. Stopping: no more connections, parked requests
//! answer, requests in flight finish (for at most [`GRACE`]), the queue is committed.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use tracing::{error, info, warn};

use super::{
    announce, build, consumers, control, metrics::Metrics, routers, signals::Signals, sockets::Sockets,
    start::StartError, sweeps,
};
use crate::{
    app::App,
    config::Loaded,
    ephemeral,
    http::{
        accept,
        listen::Address,
        shutdown::{GRACE, Shutdown},
    },
    memory,
    report::Report,
};

/// The timeout for the whole shutdown: shorter than the 10 s that container runtimes wait before they kill. The time
/// that the steps below leave, at least 2 s, is for committing the queue and closing the database.
const STOP_TIMEOUT: Duration = Duration::from_millis(9_500);

/// The timeout for the tasks of the server. Serving tasks end with [`GRACE`]; another task may wait for an unavailable
/// database.
const TASKS_TIMEOUT: Duration = GRACE.saturating_add(Duration::from_millis(500));

/// The timeout for writes that only save work after the next start. The database may be unavailable.
const LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a server until SIGTERM or SIGINT, or until it can no longer store anything. Prints to `output`, for a person,
/// what was started.
///
/// # Errors
/// The reason why it did not start, or [`StartError::Ended`].
pub async fn run(loaded: Loaded, output: &mut (dyn Write + Send)) -> Result<(), StartError> {
    let mut signals = Signals::install().map_err(StartError::Signals)?;
    let metrics = Metrics::install()?;
    let shutdown = Shutdown::new();
    let created = !loaded.config.data_dir.exists();
    // Sockets are bound before data is created: a taken port must not leave a new database and a key behind.
    let sockets = Sockets::bind(&loaded.config, true).await?;
    let surroundings = build::Surroundings { stopping: shutdown.token().clone(), ..build::Surroundings::default() };
    let app = build::app(loaded.config.clone(), surroundings).await?;
    let server = Server::serve(app, sockets, shutdown, Some(metrics)).await;
    announce::announce(&server, &loaded, created, output).await?;

    let app = server.app.clone();
    let ended = tokio::select! {
        signal = signals.wait() => {
            info!(signal, "stopping");
            None
        }
        // A server that can no longer store anything is useless, and a restart helps.
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
    /// The addresses that it listens on, in the order of the configuration; a port of 0 is replaced by the real one.
    pub addresses: Vec<Address>,
    pub metrics_address: Option<SocketAddr>,
    /// The address of the first listener for clients, and whether it speaks TLS.
    client_listener: Option<(SocketAddr, bool)>,
    shutdown: Shutdown,
    tasks: JoinSet<()>,
}

impl Server {
    /// Binds every listener of the configuration and begins to serve. `app.stopping` must come from `shutdown`.
    ///
    /// # Errors
    /// A listener that cannot be bound; the database is closed then.
    pub async fn start(app: App, shutdown: Shutdown, metrics: Option<Metrics>) -> Result<Self, StartError> {
        match Sockets::bind(&app.config, metrics.is_some()).await {
            Ok(sockets) => Ok(Self::serve(app, sockets, shutdown, metrics).await),
            Err(error) => {
                app.db.close().await;
                Err(error)
            }
        }
    }

    /// Begins to serve on bound sockets. `app.stopping` must come from `shutdown`.
    pub async fn serve(app: App, sockets: Sockets, shutdown: Shutdown, metrics: Option<Metrics>) -> Self {
        let mut server = Self {
            addresses: sockets.addresses(),
            metrics_address: sockets.metrics_address(),
            client_listener: sockets.client_listener(),
            app,
            shutdown,
            tasks: JoinSet::new(),
        };
        for (listener, config) in sockets.public {
            let router = routers::public(&server.app, &config, server.client_address(), &server.shutdown);
            let listener = listener.within(server.app.transport.with_proxies(&config.trusted_proxies));
            server.tasks.spawn(accept::serve(listener, router, server.shutdown.clone()));
        }
        if let Some(listener) = control::listen(&server.app.config.data_dir).await {
            let router = control::router(server.app.clone(), &server.shutdown);
            server.tasks.spawn(accept::serve(listener, router, server.shutdown.clone()));
        }
        if let (Some(listener), Some(metrics)) = (sockets.metrics, metrics) {
            let stopping = server.shutdown.token().clone();
            let upkeep = metrics.clone().upkeep();
            server.tasks.spawn(async move { stopping.run_until_cancelled(upkeep).await.unwrap_or_default() });
            server.tasks.spawn(accept::serve(listener, metrics.router(), server.shutdown.clone()));
        }
        sweeps::spawn(&server.app, &mut server.tasks);
        let stopping = server.shutdown.token().clone();
        let answers = Arc::clone(server.app.transport.answers());
        server.tasks.spawn(async move { stopping.run_until_cancelled(answers.watch()).await.unwrap_or_default() });
        let stopping = server.shutdown.token().clone();
        server
            .tasks
            .spawn(async move { stopping.run_until_cancelled(memory::give_holes_back()).await.unwrap_or_default() });
        consumers::spawn(&server.app, &mut server.tasks);
        let app = server.app.clone();
        server.tasks.spawn(async move { ephemeral::run(&app.ephemeral, &app.rooms, &app.stopping).await });
        server
    }

    fn client_address(&self) -> Option<SocketAddr> {
        self.client_listener.map(|(address, _)| address)
    }

    /// The base URL at which clients reach this server.
    pub fn client_base_url(&self) -> String {
        self.app.config.client_base_url(self.client_address())
    }

    /// The base URL at which a browser on this machine reaches the listener for clients directly, without a proxy or a
    /// name.
    pub fn local_base_url(&self) -> Option<String> {
        let (address, tls) = self.client_listener?;
        let scheme = if tls { "https" } else { "http" };
        Some(format!("{scheme}://{}", on_this_machine(address)))
    }

    /// Stops in order, within 10 s. Every answered write is committed when this returns.
    pub async fn stop(mut self) {
        let end = Instant::now() + STOP_TIMEOUT;
        self.shutdown.begin();
        self.app.bus.wake_all();
        let tasks = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    warn!(%error, "a task failed");
                }
            }
        };
        if timeout(TASKS_TIMEOUT, tasks).await.is_err() {
            warn!(tasks = self.tasks.len(), "tasks did not finish in time");
            self.tasks.abort_all();
        }
        if let Err(left) = self.shutdown.finish_tasks().await {
            warn!(requests = left, "requests did not finish in time");
        }
        let writes = async {
            if let Err(error) = self.app.accounts.flush_last_seen().await {
                warn!(error = %Report(&error), "where devices were last seen was not written");
            }
            if let Err(error) = self.app.keys.delete_acknowledged().await {
                warn!(error = %Report(&error), "messages that had arrived at their devices were not deleted");
            }
            if let Err(error) = self.app.db.cursors().store(&self.app.db).await {
                warn!(error = %Report(&error), "the cursors of the commit log were not stored");
            }
        };
        if timeout(LAST_WRITES_TIMEOUT, writes).await.is_err() {
            warn!("the last writes did not finish in time; a start does without them");
        }
        if timeout_at(end, self.app.db.close()).await.is_err() {
            warn!("the database did not close in time; what was answered is committed");
        }
    }
}

/// The address at which this machine reaches a listener: loopback for a listener on every interface.
pub fn on_this_machine(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_addresses_are_reached_on_loopback() {
        let check = |address: &str, expected: &str| {
            assert_eq!(on_this_machine(address.parse().expect("an address")).to_string(), expected);
        };
        check("0.0.0.0:8008", "127.0.0.1:8008");
        check("[::]:8008", "[::1]:8008");
        check("192.0.2.1:80", "192.0.2.1:80");
    }
}
