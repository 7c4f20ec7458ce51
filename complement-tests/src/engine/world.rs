//! The engine's state: networks, images and containers, and what can be done with them. [`super::api`] serves it.

mod create;
mod images;

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::Signal;

use super::{
    addresses::{self, Ports, Segments},
    archive,
    container::{self, Container},
    labels::Labels,
    postgres::Postgres,
    process::{Process, Spawner},
};

/// Reason why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("no such {0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Clone, Debug)]
pub struct Image {
    pub id: String,
    pub tag: String,
    pub labels: Labels,
    /// The base image, whose launcher starts it.
    base: String,
    root: PathBuf,
    database: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Network {
    pub id: String,
    pub name: String,
    pub labels: Labels,
}

/// A container to be created.
pub struct Draft {
    pub name: String,
    pub image: String,
    pub labels: Labels,
    /// Variables as `KEY=VALUE`.
    pub env: Vec<String>,
    pub network: String,
    pub alias: String,
}

#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    launchers: PathBuf,
    work: PathBuf,
    spawner: Spawner,
    postgres: Option<Postgres>,
    /// Must not be held across an `.await`.
    state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    pub containers: BTreeMap<String, Container>,
    pub images: BTreeMap<String, Image>,
    pub networks: BTreeMap<String, Network>,
    segments: Segments,
    ports: Ports,
    made: u32,
}

impl State {
    fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, Refusal> {
        self.containers
            .values_mut()
            .find(|container| container.id == id || container.name == id)
            .ok_or_else(|| Refusal::NotFound(format!("container: {id}")))
    }
}

impl World {
    pub fn new(launchers: PathBuf, work: PathBuf, spawner: Spawner, postgres: Option<Postgres>) -> Self {
        Self(Arc::new(Inner { launchers, work, spawner, postgres, state: Mutex::default() }))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn unpack(&self, id: &str, archive: &[u8]) -> Result<(), Refusal> {
        let root = self.state().container(id)?.root.clone();
        archive::unpack(archive, &root).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => Refusal::Invalid(error.to_string()),
            _ => Refusal::Io(error),
        })
    }

    /// Starts the launcher. After a stop it starts again with the same files and ports.
    pub fn start(&self, id: &str) -> Result<(), Refusal> {
        let mut state = self.state();
        let container = state.container(id)?;
        if container.is_running() {
            return Ok(());
        }
        write_hosts(container)?;
        let process =
            self.0.spawner.spawn(&container.launcher, &container.root, &container.id, &container.variables)?;
        container.process = Some(process);
        container.is_paused = false;
        Ok(())
    }

    pub async fn stop(&self, id: &str, patience: Duration) -> Result<(), Refusal> {
        if let Some(process) = self.process(id)? {
            container::stop(process, patience).await;
        }
        Ok(())
    }

    /// Sends a signal. After SIGKILL it waits until the server has ended.
    pub async fn kill(&self, id: &str, signal: Signal) -> Result<(), Refusal> {
        let Some(process) = self.process(id)?.filter(Process::is_running) else {
            return Err(Refusal::Conflict(format!("container {id} is not running")));
        };
        match signal {
            Signal::KILL => container::kill(process).await,
            signal => process.signal(signal),
        }
        Ok(())
    }

    pub fn pause(&self, id: &str, pause: bool) -> Result<(), Refusal> {
        let mut state = self.state();
        let container = state.container(id)?;
        let Some(process) = container.process.as_ref().filter(|process| process.is_running()) else {
            return Err(Refusal::Conflict(format!("container {id} is not running")));
        };
        process.signal(if pause { Signal::STOP } else { Signal::CONT });
        container.is_paused = pause;
        Ok(())
    }

    pub fn logs(&self, id: &str) -> Result<Vec<u8>, Refusal> {
        let path = self.0.spawner.log_path(&self.state().container(id)?.id);
        match fs::read(path) {
            // Nothing is written before the first start.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => Ok(read?),
        }
    }

    /// Ends a container and removes its files. Its log stays.
    pub async fn remove(&self, id: &str, force: bool) -> Result<(), Refusal> {
        let process = self.process(id)?.filter(Process::is_running);
        if process.is_some() && !force {
            return Err(Refusal::Conflict(format!("container {id} is running")));
        }
        if let Some(process) = process {
            container::kill(process).await;
        }
        let container = {
            let mut state = self.state();
            let id = state.container(id)?.id.clone();
            let Some(container) = state.containers.remove(&id) else { return Ok(()) };
            state.segments.leave(container.segment);
            container
        };
        fs::remove_dir_all(&container.root)?;
        if let Some(postgres) = &self.0.postgres {
            postgres.remove(&database_of(&container)).await?;
        }
        Ok(())
    }

    pub fn create_network(&self, name: String, labels: Labels) -> Result<String, Refusal> {
        let mut state = self.state();
        if state.networks.values().any(|network| network.name == name) {
            return Err(Refusal::Conflict(format!("network {name} exists")));
        }
        let id = format!("network-{:04}", state.number());
        state.networks.insert(id.clone(), Network { id: id.clone(), name, labels });
        Ok(id)
    }

    pub fn remove_network(&self, id: &str) -> Result<(), Refusal> {
        let mut state = self.state();
        let found = state.networks.values().find(|network| network.id == id || network.name == id);
        let id = found.map(|network| network.id.clone()).ok_or_else(|| Refusal::NotFound(format!("network: {id}")))?;
        state.networks.remove(&id);
        Ok(())
    }

    fn process(&self, id: &str) -> Result<Option<Process>, Refusal> {
        Ok(self.state().container(id)?.process.clone())
    }
}

fn write_hosts(container: &Container) -> io::Result<()> {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (name, address) in addresses::hosts(container.segment) {
        text.push_str(&format!("{address} {name}\n"));
    }
    fs::write(container.root.join("hosts"), text)
}

/// The database of a container, named after its number.
fn database_of(container: &Container) -> String {
    let number: u32 = container.id.split('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    format!("container_{number}")
}
