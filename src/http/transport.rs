//! Limits on the resources that clients may hold: connections from one network, and answers that they read slowly.
//!
//! All listeners share one [`Transport`]. Next: [`Connections`] counts connections, [`Answers`] holds the bytes that
//! are being sent.

mod answers;
mod connections;
mod pace;

use std::{net::IpAddr, sync::Arc};

pub(crate) use self::answers::ReceivingUser;
pub use self::{answers::Answers, connections::Connections};
pub(super) use self::{
    answers::{Hangup, Held, SMALL_BYTES},
    connections::Connected,
    pace::Pace,
};
use crate::config::IpRange;

/// The limits that a listener enforces. Clones share their counts.
#[derive(Debug, Clone)]
pub struct Transport {
    connections: Arc<Connections>,
    answers: Arc<Answers>,
    /// Peers without a limit on connections: many users are behind a reverse proxy.
    proxies: Arc<[IpRange]>,
}

impl Transport {
    #[must_use]
    pub fn new(connections: Connections, answers: Answers) -> Self {
        Self { connections: Arc::new(connections), answers: Arc::new(answers), proxies: Arc::default() }
    }

    /// Returns these limits with the given peers exempt from the limit on connections.
    #[must_use]
    pub fn with_proxies(&self, proxies: &[IpRange]) -> Self {
        Self { proxies: proxies.into(), ..self.clone() }
    }

    pub fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// Counts a new connection. Returns `None` if its network has reached its limit.
    pub(super) fn connect(&self, peer: Option<IpAddr>) -> Option<Connected> {
        let counted = peer.filter(|peer| !self.proxies.iter().any(|proxy| proxy.contains(*peer)));
        self.connections.connect(counted)
    }
}

/// Sets no limit on connections, as for a socket that only this machine's users can open.
impl Default for Transport {
    fn default() -> Self {
        Self::new(Connections::new(u32::MAX), Answers::new(answers::DEFAULT_BUDGET_BYTES))
    }
}
