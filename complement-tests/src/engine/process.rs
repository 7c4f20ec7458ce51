//! Processes: a container's server, in a process group and, where allowed, a mount namespace of its own.
//!
//! Everything that the group has left ends with its first process, and the whole group with the engine.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{process::Command, sync::watch};

use super::janitor::List;

/// Puts the container's own `/etc/hosts` in place, then becomes the launcher.
const INSIDE: &str = r#"mount --bind "$ROOT/hosts" /etc/hosts && exec "$@""#;

/// Starts servers.
pub struct Spawner {
    list: List,
    logs: PathBuf,
    /// What makes a mount namespace here; empty where it is forbidden. Then servers go by `$HOSTS`.
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

    /// Starts `launcher` with these variables. What it writes goes to the end of `log_path`.
    pub fn spawn(&self, launcher: &Path, root: &Path, id: &str, variables: &[(String, String)]) -> io::Result<Process> {
        let mut arguments: Vec<&std::ffi::OsStr> = self.namespace.iter().map(AsRef::as_ref).collect();
        // Should the janitor be killed as well, at least the first process of the group ends with the engine.
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
            // It would outlive us.
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

    /// Where the log of this container is.
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

/// A server that was started.
#[derive(Clone, Debug)]
pub struct Process {
    group: Pid,
    has_ended: watch::Receiver<bool>,
}

impl Process {
    pub fn is_running(&self) -> bool {
        !*self.has_ended.borrow()
    }

    /// Sends a signal to the whole group. To one that has ended nothing is sent.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            // It may be ending at this moment.
            let _ = kill_process_group(self.group, signal);
        }
    }

    pub async fn wait(&mut self) {
        // The sender goes only after it has said so.
        let _ = self.has_ended.wait_for(|ended| *ended).await;
    }
}
