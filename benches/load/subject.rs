//! The server under test: one that we started together with its database, or one that was running already.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    Result,
    arguments::{Arguments, Engine},
    postgres::Postgres,
    process,
    server::Server,
};

pub struct Subject {
    pub address: SocketAddr,
    kind: Kind,
}

// Fields are dropped in this order: first the server, then its database, then their folder.
enum Kind {
    Ours { server: Server, postgres: Option<Postgres>, dir: TempDir },
    Theirs { pid: Option<u32>, metrics: Option<SocketAddr> },
}

/// Reason why an engine could not be measured.
pub struct Skipped(pub String);

impl Subject {
    /// Starts a new server on a new database. The inner error is a reason to skip only this engine.
    pub async fn start(engine: Engine, arguments: &Arguments) -> Result<std::result::Result<Self, Skipped>> {
        let dir = tempfile::Builder::new().prefix("sabha-bench-").tempdir_in(parent_folder(engine, arguments))?;
        let (postgres, url) = match engine {
            Engine::Sqlite => (None, format!("sqlite:{}", dir.path().join("sabha.db").display())),
            Engine::Postgres => {
                let Some(programs) = Postgres::find_programs() else {
                    let reason = "initdb and postgres are neither on the path nor in /usr/lib/postgresql/*/bin";
                    return Ok(Err(Skipped(reason.to_owned())));
                };
                open_to_all(dir.path())?;
                let postgres = Postgres::start(&programs, dir.path())?;
                let url = postgres.url();
                (Some(postgres), url)
            }
        };
        let server = Server::start(&arguments.program, dir.path(), &url).await?;
        Ok(Ok(Self { address: server.address, kind: Kind::Ours { server, postgres, dir } }))
    }

    /// A running server at `url`. Its process and its metrics are known only if the arguments give them.
    pub fn running(url: &str, arguments: &Arguments) -> Result<Self> {
        let metrics = arguments.metrics_url.as_deref().map(resolve).transpose()?;
        let kind = Kind::Theirs { pid: arguments.pid, metrics };
        Ok(Self { address: resolve(url)?, kind })
    }

    /// Restarts the server if it is ours, and returns the time until its first good answer.
    pub async fn restart(&mut self) -> Result<Option<Duration>> {
        let Kind::Ours { server, .. } = &mut self.kind else {
            return Ok(None);
        };
        server.restart().await?;
        Ok(Some(server.started_in))
    }

    pub fn started_in(&self) -> Option<Duration> {
        match &self.kind {
            Kind::Ours { server, .. } => Some(server.started_in),
            Kind::Theirs { .. } => None,
        }
    }

    pub fn server_pid(&self) -> Option<u32> {
        match &self.kind {
            Kind::Ours { server, .. } => Some(server.pid()),
            Kind::Theirs { pid, .. } => *pid,
        }
    }

    pub fn database_pid(&self) -> Option<u32> {
        match &self.kind {
            Kind::Ours { postgres, .. } => postgres.as_ref().map(Postgres::pid),
            Kind::Theirs { .. } => None,
        }
    }

    pub fn metrics_address(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Ours { server, .. } => Some(server.metrics),
            Kind::Theirs { metrics, .. } => *metrics,
        }
    }

    /// Resident memory of the server, without its database's processes.
    pub fn resident_mb(&self) -> Result<Option<f64>> {
        self.server_pid().map(|pid| Ok(process::resident_bytes(pid)? as f64 / 1e6)).transpose()
    }

    /// Returns a folder on the file system that holds the database.
    pub fn folder(&self) -> PathBuf {
        match &self.kind {
            Kind::Ours { dir, .. } => dir.path().to_owned(),
            Kind::Theirs { .. } => std::env::temp_dir(),
        }
    }
}

/// Folder for the data: next to the build, because `/tmp` may be in memory.
fn parent_folder(engine: Engine, arguments: &Arguments) -> PathBuf {
    if let Some(dir) = &arguments.dir {
        return dir.clone();
    }
    // PostgreSQL then runs as an unprivileged user, who may not enter root's home folder.
    if engine == Engine::Postgres && rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/tmp");
    }
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Lets PostgreSQL's user reach its own folder inside `dir`.
fn open_to_all(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711))?)
}

fn resolve(url: &str) -> Result<SocketAddr> {
    let host = url.strip_prefix("http://").ok_or("only http:// addresses can be driven")?;
    let host = host.split('/').next().unwrap_or(host);
    let mut addresses = host.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    addresses.next().ok_or_else(|| format!("{host} has no address").into())
}
