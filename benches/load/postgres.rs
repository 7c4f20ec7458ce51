//! A private PostgreSQL cluster for one benchmark run: new, on loopback, durable, deleted afterwards.

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;

use crate::{Result, process, server::free_port};

/// The user ID of `nobody` on all common systems: PostgreSQL refuses to run as root.
const UNPRIVILEGED: u32 = 65534;

pub struct Postgres {
    child: Child,
    port: u16,
}

impl Postgres {
    /// Finds the folder of PostgreSQL's programs: on the path, or where Debian puts them, newest first.
    pub fn find_programs() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
            let mut versions: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin")).collect();
            versions.sort();
            folders.extend(versions.into_iter().rev());
        }
        folders.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
    }

    pub fn start(programs: &Path, dir: &Path) -> Result<Self> {
        let dir = dir.join("postgres");
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&dir, Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
        }
        let data = dir.join("data");
        let made = unprivileged(Command::new(programs.join("initdb")).current_dir(&dir))
            .arg("--pgdata")
            .arg(&data)
            .args(["--username=sabha", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .output()?;
        if !made.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        let port = free_port()?;
        let log_path = dir.join("log");
        let log = File::create(&log_path)?;
        let child = unprivileged(Command::new(programs.join("postgres")).current_dir(&dir))
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=on", "-c", "synchronous_commit=on"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut postgres = Self { child, port };
        postgres.wait_until_ready(&log_path)?;
        Ok(postgres)
    }

    pub fn url(&self) -> String {
        format!("postgres://sabha@127.0.0.1:{}/postgres", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_ready(&mut self, log: &Path) -> Result<()> {
        for _ in 0..300 {
            let text = fs::read_to_string(log)?;
            if text.contains("ready to accept connections") {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() {
                return Err(format!("postgres did not start: {text}").into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("postgres was not ready within 30 seconds".into())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown: it ends sessions instead of waiting for them.
        if let Err(error) = process::end(&mut self.child, Signal::INT) {
            eprintln!("postgres: {error}");
        }
    }
}

fn unprivileged(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}
