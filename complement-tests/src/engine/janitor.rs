//! The janitor: a separate process that outlives the engine and ends what is left.
//!
//! The engine tells it through a pipe which process groups are running. The pipe closes when the engine ends, whatever
//! the cause; then the janitor kills those groups and removes the working folder. An ordinary end of the engine works
//! the same way.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::Child;

use crate::Failure;

/// Time for killed processes to end. Only a process that waits in the kernel, for a disk or its parent, takes longer.
const PATIENCE: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(5);

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder to remove at the end.
    work: PathBuf,
}

/// The janitor itself: reads `+GROUP` and `-GROUP` lines until the pipe ends.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut groups = BTreeSet::new();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Some((sign, Some(group))) = line.split_at_checked(1).map(|(sign, id)| (sign, id.parse().ok())) else {
            continue;
        };
        match sign {
            "+" => _ = groups.insert(group),
            _ => _ = groups.remove(&group),
        }
    }
    let groups: Vec<Pid> = groups.into_iter().filter_map(Pid::from_raw).collect();
    for &group in &groups {
        // A group that has ended in the meantime is no error.
        let _ = kill_process_group(group, Signal::KILL);
    }
    // A process that is ending may still create files.
    let mut waited = Duration::ZERO;
    while waited < PATIENCE && groups.iter().any(|&group| test_kill_process_group(group).is_ok()) {
        std::thread::sleep(STEP);
        waited += STEP;
    }
    Ok(fs::remove_dir_all(&arguments.work)?)
}

/// The engine's side of the pipe.
pub struct Janitor {
    process: Child,
    list: List,
}

/// Adds process groups to the janitor's list and removes them.
#[derive(Clone)]
pub struct List(Arc<Mutex<Option<std::process::ChildStdin>>>);

impl Janitor {
    pub fn start(work: &Path) -> Result<Self, Failure> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg("janitor").arg(work).current_dir("/").stdin(Stdio::piped());
        // The janitor has its own group, so that Ctrl-C in a terminal reaches only the engine.
        command.process_group(0);
        let mut process = tokio::process::Command::from(command).spawn()?;
        let pipe = process.stdin.take().ok_or("the janitor has no pipe")?.into_owned_fd()?;
        // A line is shorter than what a pipe takes at once, so writing does not block.
        let list = List(Arc::new(Mutex::new(Some(std::process::ChildStdin::from(pipe)))));
        Ok(Self { process, list })
    }

    pub fn list(&self) -> List {
        self.list.clone()
    }

    /// Waits until the janitor has ended and removed everything.
    pub async fn finish(mut self) -> Result<(), Failure> {
        self.list.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match self.process.wait().await?.success() {
            true => Ok(()),
            false => Err("the janitor could not remove everything".into()),
        }
    }
}

impl List {
    /// Adds a group that must end with the engine. Fails without a janitor: then nothing may be started.
    pub fn add(&self, group: Pid) -> std::io::Result<()> {
        self.say('+', group)
    }

    /// Removes a group that has ended.
    pub fn remove(&self, group: Pid) {
        // Without a janitor there is no list to update.
        let _ = self.say('-', group);
    }

    fn say(&self, sign: char, group: Pid) -> std::io::Result<()> {
        let mut pipe = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = pipe.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
        pipe.write_all(format!("{sign}{}\n", group.as_raw_nonzero()).as_bytes())
    }
}
