//! The server under test as a child process: configures, starts, restarts and ends it, and waits for it.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{Result, http::Connection, process};

const READY_WITHIN: Duration = Duration::from_secs(60);

pub struct Server {
    program: PathBuf,
    dir: PathBuf,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    child: Child,
    /// Time from the start of the process to its first good answer.
    pub started_in: Duration,
}

impl Server {
    pub async fn start(program: &Path, dir: &Path, database_url: &str) -> Result<Self> {
        let address = loopback(free_port()?);
        let metrics = loopback(free_port()?);
        fs::write(dir.join("sabha.toml"), configuration(address, metrics, database_url))?;
        let child = spawn(program, dir)?;
        let (program, dir) = (program.to_owned(), dir.to_owned());
        let mut server = Self { program, dir, address, metrics, child, started_in: Duration::ZERO };
        server.wait_until_ready(Instant::now()).await?;
        Ok(server)
    }

    /// Ends the process and starts it again on the same data.
    pub async fn restart(&mut self) -> Result<()> {
        process::end(&mut self.child, Signal::TERM)?;
        let start = Instant::now();
        self.child = spawn(&self.program, &self.dir)?;
        self.wait_until_ready(start).await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    async fn wait_until_ready(&mut self, start: Instant) -> Result<()> {
        while start.elapsed() < READY_WITHIN {
            if is_healthy(self.address).await {
                self.started_in = start.elapsed();
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.dir.join("server.log"))?;
                return Err(format!("the server ended at once ({status}): {log}").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(format!("the server was not ready within {READY_WITHIN:?}").into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = process::end(&mut self.child, Signal::TERM) {
            eprintln!("server: {error}");
        }
    }
}

/// The measured configuration: the defaults, without the limits that would stop a benchmark.
fn configuration(address: SocketAddr, metrics: SocketAddr, database_url: &str) -> String {
    format!(
        r#"server_name = "localhost"

[database]
url = "{database_url}"

[[listeners]]
address = "{address}"
# One address has a bound on its connections; a proxy has none.
trusted_proxies = ["127.0.0.1"]

[metrics]
address = "{metrics}"

[registration]
mode = "open"

[rate_limits]
enabled = false
"#
    )
}

fn spawn(program: &Path, dir: &Path) -> Result<Child> {
    let log = File::create(dir.join("server.log"))?;
    let child = Command::new(program)
        .args(["serve", "--config", "sabha.toml"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| format!("could not run {}: {error}", program.display()))?;
    Ok(child)
}

/// Returns whether the server at `address` answers `/health` with 200.
pub async fn is_healthy(address: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(address).await else {
        return false;
    };
    connection.exchange("GET", "/health", None, None).await.is_ok_and(|reply| reply.status == 200)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Returns a port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(loopback(0))?.local_addr()?.port())
}
