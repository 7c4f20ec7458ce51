//! PostgreSQL: one private cluster on a unix socket, and in it a database for each container and image.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, geteuid};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use super::{janitor::Janitor, text};
use crate::Failure;

/// The user ID of `nobody` on all common systems: PostgreSQL refuses to run as root.
const UNPRIVILEGED: u32 = 65534;

pub struct Postgres {
    programs: PathBuf,
    dir: PathBuf,
}

impl Postgres {
    /// Starts a cluster below `work`. The janitor ends it.
    pub async fn start(work: &Path, janitor: &mut Janitor) -> Result<Self, Failure> {
        let programs = find_programs().ok_or("PostgreSQL (initdb, postgres, psql) was not found")?;
        let dir = work.join("postgres");
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        if geteuid().is_root() {
            chown(&dir, Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
            // Lets the unprivileged user reach its folder.
            fs::set_permissions(work, fs::Permissions::from_mode(0o711))?;
        }
        let data = dir.join("data");
        let made = unprivileged(Command::new(programs.join("initdb")).current_dir(&dir))
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
            .arg(&data)
            .output()
            .await?;
        if !made.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        let mut server = unprivileged(Command::new(programs.join("postgres")).current_dir(&dir))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&dir)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "synchronous_commit=off"])
            .args(["-c", "full_page_writes=off", "-c", "max_connections=500", "-c", "shared_buffers=64MB"])
            .args(["-c", "lc_messages=C"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let group = server.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or("PostgreSQL has no process ID")?;
        janitor.list().add(group)?;
        let stderr = server.stderr.take().ok_or("PostgreSQL has no log")?;
        let mut log = BufReader::new(stderr).lines();
        loop {
            let line = log.next_line().await?.ok_or("PostgreSQL did not start")?;
            if line.contains("ready to accept connections") {
                break;
            }
        }
        tokio::spawn(async move {
            // Reads on, because a full pipe would block the server.
            while let Ok(Some(_)) = log.next_line().await {}
            let _ = server.wait().await;
        });
        Ok(Self { programs, dir })
    }

    /// Creates a database as a copy of `template`. Nobody may be connected to the template.
    pub async fn create(&self, name: &str, template: Option<&str>) -> io::Result<()> {
        self.execute(&format!("CREATE DATABASE {name} TEMPLATE {}", template.unwrap_or("template0"))).await
    }

    pub async fn remove(&self, name: &str) -> io::Result<()> {
        self.execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await
    }

    pub fn url(&self, name: &str) -> String {
        format!("postgres:///{name}?host={}&user=postgres", text(&self.dir))
    }

    /// Runs one statement. The names in it are ours: a word and a number.
    async fn execute(&self, sql: &str) -> io::Result<()> {
        let mut command = Command::new(self.programs.join("psql"));
        let done =
            command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.url("postgres")]).output().await?;
        match done.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{sql}: {}", String::from_utf8_lossy(&done.stderr)))),
        }
    }
}

fn unprivileged(command: &mut Command) -> &mut Command {
    if geteuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}

/// Finds the folder of PostgreSQL's programs: on the path, or where Debian puts them, the newest first.
fn find_programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let places = std::env::split_paths(&path).chain(versions.into_iter().map(|(_, place)| place));
    let mut places = places.chain(["/usr/local/bin".into()]);
    places.find(|place| ["initdb", "postgres", "psql"].iter().all(|program| place.join(program).is_file()))
}
