//! The janitor: a process of its own that outlives the engine and ends what is left.
//!
//! The engine tells it through a pipe which process groups live. The end of the pipe is the end of the engine, whatever
//! the cause; then the janitor kills those groups and removes the working folder. The engine's ordinary end is the same.

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

/// How long killed processes may take to go. They only outlast it in the kernel, waiting for a disk or their parent.
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
        // One that has ended in the meantime is what we want.
        let _ = kill_process_group(group, Signal::KILL);
    }
    // A process on its way out may still make files.
    let mut waited = Duration::ZERO;
    while waited < PATIENCE && groups.iter().any(|&group| test_kill_process_group(group).is_ok()) {
        std::thread::sleep(STEP);
        waited += STEP;
    }
    Ok(fs::remove_dir_all(&arguments.work)?)
}

/// The engine's end of the pipe.
pub struct Janitor {
    process: Child,
    list: List,
}

/// Puts process groups on the janitor's list and takes them off.
#[derive(Clone)]
pub struct List(Arc<Mutex<Option<std::process::ChildStdin>>>);

impl Janitor {
    pub fn start(work: &Path) -> Result<Self, Failure> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg("janitor").arg(work).current_dir("/").stdin(Stdio::piped());
        // Of its own group: Ctrl-C in a terminal is for the engine.
        command.process_group(0);
        let mut process = tokio::process::Command::from(command).spawn()?;
        let pipe = process.stdin.take().ok_or("the janitor has no pipe")?.into_owned_fd()?;
        // A line is shorter than what a pipe takes at once: writing does not wait.
        let list = List(Arc::new(Mutex::new(Some(std::process::ChildStdin::from(pipe)))));
        Ok(Self { process, list })
    }

    pub fn list(&self) -> List {
        self.list.clone()
    }

    /// Has everything ended and removed.
    pub async fn finish(mut self) -> Result<(), Failure> {
        self.list.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match self.process.wait().await?.success() {
            true => Ok(()),
            false => Err("the janitor could not remove everything".into()),
        }
    }
}

impl List {
    /// This group ends with us. Fails when there is no janitor any more: then nothing may be started.
    pub fn add(&self, group: Pid) -> std::io::Result<()> {
        self.say('+', group)
    }

    /// This group has ended.
    pub fn remove(&self, group: Pid) {
        // Without a janitor there is no list.
        let _ = self.say('-', group);
    }

    fn say(&self, sign: char, group: Pid) -> std::io::Result<()> {
        let mut pipe = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = pipe.as_mut().ok_or(std::io::ErrorKind::BrokenPipe)?;
        pipe.write_all(format!("{sign}{}\n", group.as_raw_nonzero()).as_bytes())
    }
}
