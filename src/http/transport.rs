//! Bounds on what clients may hold of us: connections from one network, and answers that they are slow to read.
//!
//! All listeners share one [`Transport`]. Next: [`Connections`] counts, [`Answers`] holds the bytes that are on their way.

mod answers;
mod connections;
mod pace;

use std::{net::IpAddr, sync::Arc};

pub use self::{answers::Answers, connections::Connections};
pub(super) use self::{
    answers::{Hangup, Held, ReceivingUser, SMALL_BYTES},
    connections::Connected,
    pace::Pace,
};
use crate::config::IpRange;

/// The bounds that a listener keeps. Clones share their counts.
#[derive(Debug, Clone)]
pub struct Transport {
    connections: Arc<Connections>,
    answers: Arc<Answers>,
    /// Peers with any number of connections: behind a reverse proxy are many people.
    proxies: Arc<[IpRange]>,
}

impl Transport {
    #[must_use]
    pub fn new(connections: Connections, answers: Answers) -> Self {
        Self { connections: Arc::new(connections), answers: Arc::new(answers), proxies: Arc::default() }
    }

    /// The same bounds, from which these peers' connections are excepted.
    #[must_use]
    pub fn with_proxies(&self, proxies: &[IpRange]) -> Self {
        Self { proxies: proxies.into(), ..self.clone() }
    }

    pub fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// Counts a new connection. `None`: its network has as many as it may.
    pub(super) fn connect(&self, peer: Option<IpAddr>) -> Option<Connected> {
        let counted = peer.filter(|peer| !self.proxies.iter().any(|proxy| proxy.contains(*peer)));
        self.connections.connect(counted)
    }
}

/// Without a bound on connections, as behind a socket that only this machine's users can open.
impl Default for Transport {
    fn default() -> Self {
        Self::new(Connections::new(u32::MAX), Answers::new(answers::DEFAULT_BUDGET_BYTES))
    }
}
