//! The server as a separate process that can be killed.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{api::Api, postgres::PostgresDatabase};

/// The server name in every user ID of these tests.
pub const SERVER_NAME: &str = "crash.test";

/// Timeout of a start, which takes a fraction of a second. It includes recovery after a kill.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The data of one server, which outlives its processes.
pub struct Data {
    pub dir: tempfile::TempDir,
    /// Environment of every process that runs on this data.
    pub environment: Vec<(String, String)>,
    /// Words before the server's command, if it needs another program to run it.
    pub prefix: Vec<String>,
    postgres: Option<PostgresDatabase>,
}

impl Data {
    pub fn on_sqlite(durability: &str) -> Self {
        Self::new(durability, None)
    }

    /// `None` where PostgreSQL is not installed.
    pub async fn on_postgres() -> Option<Self> {
        PostgresDatabase::create().await.map(|database| Self::new("power", Some(database)))
    }

    fn new(durability: &str, postgres: Option<PostgresDatabase>) -> Self {
        let dir = tempfile::Builder::new().prefix("sabha-crash-").tempdir().expect("a temporary directory");
        let url = postgres.as_ref().map(|database| format!("url = {:?}\n", database.url)).unwrap_or_default();
        let config = format!(
            "server_name = \"{SERVER_NAME}\"\ndata_dir = {:?}\n\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\n\
             [registration]\nmode = \"open\"\n\n[rate_limits]\nenabled = false\n\n[metrics]\nenabled = false\n\n\
             [log]\nfilter = \"warn\"\n\n[database]\ndurability = \"{durability}\"\n{url}",
            dir.path().join("data"),
        );
        fs::write(dir.path().join("sabha.toml"), config).expect("the directory is ours");
        Self { dir, environment: Vec::new(), prefix: Vec::new(), postgres }
    }

    /// Returns the URL of the PostgreSQL database, if there is one.
    pub fn database_url(&self) -> Option<&str> {
        self.postgres.as_ref().map(|database| database.url.as_str())
    }

    /// Returns the server's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts a process that may be killed before it is ready.
    pub fn spawn(&self) -> Starting {
        let mut words = self.prefix.iter().map(AsRef::as_ref).chain([binary().as_os_str()]);
        let mut command = Command::new(words.next().expect("the binary is one"));
        command
            .args(words)
            .arg("--config")
            .arg(self.dir.path().join("sabha.toml"))
            .arg("serve")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.run(command)
    }

    /// Starts a process of this program, with these variables in its environment, that tells where it listens.
    pub fn spawn_own(&self, environment: &[(&str, &OsStr)]) -> Starting {
        let mut command = Command::new(env::current_exe().expect("this program is a file"));
        command.envs(environment.iter().copied());
        self.run(command)
    }

    fn run(&self, mut command: Command) -> Starting {
        let mut child = command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log(self.dir.path()))
            .spawn()
            .expect("the program runs");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (sender, address) = mpsc::channel();
        let (teller, said) = unbounded_channel();
        std::thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                match line.trim().strip_prefix("listens") {
                    Some(address) => _ = sender.send(format!("http://{}", address.trim())),
                    None => _ = teller.send(line),
                }
            }
        });
        Starting { child, address, said, log: self.dir.path().join("log") }
    }

    /// Starts a server and waits until it listens.
    pub fn start(&self) -> Running {
        self.spawn().ready()
    }
}

/// A copy of the server's binary, so that a build during the run does not change it.
static BINARY: OnceLock<PathBuf> = OnceLock::new();

fn binary() -> &'static Path {
    BINARY.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("sabha-crash-bin-").tempdir().expect("a temporary directory").keep();
        let path = dir.join("sabha");
        fs::copy(env!("CARGO_BIN_EXE_sabha"), &path).expect("there is room for a copy of the server");
        path
    })
}

/// Removes the files that all tests share, at their end.
pub fn clean_up() {
    if let Some(dir) = BINARY.get().and_then(|path| path.parent()) {
        fs::remove_dir_all(dir).expect("it is ours");
    }
}

fn log(dir: &Path) -> Stdio {
    fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("the directory is ours").into()
}

/// A process that may not be listening yet.
pub struct Starting {
    child: Child,
    address: mpsc::Receiver<String>,
    said: UnboundedReceiver<String>,
    log: PathBuf,
}

impl Starting {
    pub fn kill(mut self) {
        end(&mut self.child);
    }

    /// # Panics
    /// When the process ends instead of listening, with its log.
    pub fn ready(mut self) -> Running {
        let Ok(base) = self.address.recv_timeout(START_TIMEOUT) else {
            end(&mut self.child);
            panic!("the server did not start again:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        };
        let killed = Arc::new(AtomicBool::new(false));
        let api = Api::new(base, Arc::clone(&killed));
        Running { child: Some(self.child), api, said: self.said, killed, log: self.log }
    }
}

fn end(child: &mut Child) {
    // SIGKILL: the process runs no further code.
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
}

/// A process that listens. Dropping it kills it.
pub struct Running {
    child: Option<Child>,
    pub api: Api,
    /// The lines that it prints from now on.
    pub said: UnboundedReceiver<String>,
    killed: Arc<AtomicBool>,
    log: PathBuf,
}

impl Running {
    /// # Panics
    /// When the process has ended by itself.
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("it is only taken here");
        let ended = child.try_wait().expect("it is our child");
        assert!(ended.is_none(), "the server ended by itself:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        self.killed.store(true, Ordering::SeqCst);
        end(&mut child);
    }

    /// Puts the process to sleep, without its knowledge.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Wakes the process up again.
    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it is our child");
    }

    /// Waits for a process to end by itself. Returns its status and its log.
    ///
    /// # Panics
    /// When the process does not end.
    pub fn ended_by_itself(mut self, limit: Duration) -> (ExitStatus, String) {
        let mut child = self.child.take().expect("it is only taken here");
        let (sender, ended) = mpsc::channel();
        let process = child.id();
        std::thread::spawn(move || sender.send(child.wait()));
        let said = || fs::read_to_string(&self.log).unwrap_or_default();
        match ended.recv_timeout(limit) {
            Ok(status) => (status.expect("it is our child"), said()),
            Err(_) => panic!("process {process} goes on:\n{}", said()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            self.killed.store(true, Ordering::SeqCst);
            end(child);
        }
    }
}
