//! Processes: a container's server, in its own process group and, where allowed, its own mount namespace.
//!
//! When the first process of a group ends, the rest of the group ends too. All groups end with the engine.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{process::Command, sync::watch};

use super::janitor::List;

/// Mounts the container's own `/etc/hosts`, then becomes the launcher.
const INSIDE: &str = r#"mount --bind "$ROOT/hosts" /etc/hosts && exec "$@""#;

/// Starts servers.
pub struct Spawner {
    list: List,
    logs: PathBuf,
    /// Command that makes a mount namespace here. Empty where that is forbidden; then servers use `$HOSTS`.
    namespace: Vec<&'static str>,
}

impl Spawner {
    pub async fn new(list: List, logs: PathBuf) -> io::Result<Self> {
        let mut namespace = Vec::new();
        for candidate in [vec!["unshare", "--mount"], vec!["unshare", "--map-root-user", "--mount"]] {
            if works(&candidate).await {
                namespace = candidate;
                break;
            }
        }
        Ok(Self { list, logs, namespace })
    }

    /// Starts `launcher` with these variables. Its output is appended to the log of `id`.
    pub fn spawn(&self, launcher: &Path, root: &Path, id: &str, variables: &[(String, String)]) -> io::Result<Process> {
        let mut arguments: Vec<&std::ffi::OsStr> = self.namespace.iter().map(AsRef::as_ref).collect();
        // If the janitor is killed as well, at least the first process of the group still ends with the engine.
        arguments.extend(["setpriv", "--pdeathsig", "KILL"].map(AsRef::<std::ffi::OsStr>::as_ref));
        if !self.namespace.is_empty() {
            arguments.extend(["sh", "-c", INSIDE, "sh"].map(AsRef::<std::ffi::OsStr>::as_ref));
        }
        arguments.push(launcher.as_os_str());

        let mut log = self.open_log(id)?;
        writeln!(log, "=== start")?;
        let mut command = Command::new(arguments[0]);
        command.args(&arguments[1..]).envs(variables.iter().cloned()).env("ROOT", root).current_dir(root);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut child = command.spawn()?;
        let group = child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .ok_or_else(|| io::Error::other("a new process has no ID"))?;
        if let Err(error) = self.list.add(group) {
            // Kills the process, because it would outlive the engine.
            let _ = kill_process_group(group, Signal::KILL);
            return Err(error);
        }
        let (ended, has_ended) = watch::channel(false);
        let list = self.list.clone();
        tokio::spawn(async move {
            // An error means that there is nothing to wait for.
            let _ = child.wait().await;
            let _ = kill_process_group(group, Signal::KILL);
            list.remove(group);
            ended.send_replace(true);
        });
        Ok(Process { group, has_ended })
    }

    /// Returns the path of this container's log.
    pub fn log_path(&self, id: &str) -> PathBuf {
        self.logs.join(format!("{id}.log"))
    }

    fn open_log(&self, id: &str) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.log_path(id))
    }
}

async fn works(namespace: &[&str]) -> bool {
    let mut command = Command::new(namespace[0]);
    command.args(&namespace[1..]).args(["mount", "--bind", "/etc/hosts", "/etc/hosts"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// A running or ended server process.
#[derive(Clone, Debug)]
pub struct Process {
    group: Pid,
    has_ended: watch::Receiver<bool>,
}

impl Process {
    pub fn is_running(&self) -> bool {
        !*self.has_ended.borrow()
    }

    /// Sends a signal to the whole group, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            // The group may end at this moment.
            let _ = kill_process_group(self.group, signal);
        }
    }

    pub async fn wait(&mut self) {
        // The sender is dropped only after it has sent `true`.
        let _ = self.has_ended.wait_for(|ended| *ended).await;
    }
}
