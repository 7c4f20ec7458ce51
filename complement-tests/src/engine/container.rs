//! Containers: their parts, and their descriptions in Docker's API.

use std::{net::Ipv4Addr, path::PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use super::{labels::Labels, process::Process};

#[derive(Debug)]
pub struct Container {
    /// The ID, which is also the name of the log.
    pub id: String,
    pub name: String,
    pub image: String,
    pub labels: Labels,
    pub launcher: PathBuf,
    /// Its files, kept over restarts.
    pub root: PathBuf,
    pub segment: u8,
    pub address: Ipv4Addr,
    pub client_port: u16,
    pub federation_port: u16,
    /// Environment variables for the launcher.
    pub variables: Vec<(String, String)>,
    pub process: Option<Process>,
    pub is_paused: bool,
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_running)
    }

    fn status(&self) -> &'static str {
        match (&self.process, self.is_running(), self.is_paused) {
            (_, true, true) => "paused",
            (_, true, false) => "running",
            (Some(_), false, _) => "exited",
            (None, ..) => "created",
        }
    }

    /// Returns the answer of `GET /containers/{id}/json`.
    pub fn describe(&self) -> Value {
        json!({
            "Id": self.id,
            "Name": format!("/{}", self.name),
            "Image": self.image,
            "State": { "Status": self.status(), "Running": self.is_running(), "Paused": self.is_paused },
            "Config": { "Image": self.image, "Labels": self.labels },
            "NetworkSettings": { "Ports": self.ports() },
        })
    }

    /// Returns this container's entry in `GET /containers/json`.
    pub fn summary(&self) -> Value {
        json!({
            "Id": self.id,
            "Names": [format!("/{}", self.name)],
            "Image": self.image,
            "Labels": self.labels,
            "State": self.status(),
        })
    }

    /// Ports as Docker describes them. Servers listen on these ports of 127.0.0.1 themselves; nothing is forwarded.
    fn ports(&self) -> Value {
        let binding = |port: u16| json!([{ "HostIp": "127.0.0.1", "HostPort": port.to_string() }]);
        json!({ "8008/tcp": binding(self.client_port), "8448/tcp": binding(self.federation_port) })
    }
}

/// Asks a server to end, and kills it after `patience`.
pub async fn stop(mut process: Process, patience: Duration) {
    process.signal(Signal::TERM);
    // A paused process handles the signal only when it continues.
    process.signal(Signal::CONT);
    if timeout(patience, process.wait()).await.is_err() {
        kill(process).await;
    }
}

/// Kills a server.
pub async fn kill(mut process: Process) {
    process.signal(Signal::KILL);
    process.wait().await;
}
