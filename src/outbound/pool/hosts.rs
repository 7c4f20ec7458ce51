//! The hosts of a pool: the connection that each has kept, and who uses it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::outbound::connect::{ClientProtocol, Connection};

/// The time after which a connection is not used for another request, however busy it is. So a server that has moved is
/// looked up again, and its certificate is checked again.
pub(super) const MAX_AGE: Duration = Duration::from_secs(3600);

/// The hosts of a pool.
#[derive(Default)]
pub(super) struct PoolHosts {
    /// The hosts with requests or a kept connection.
    pub(super) by_name: HashMap<String, HostEntry>,
    /// The number of requests that wait for a permit.
    pub(super) waiting: usize,
    /// Whether the sweeper runs.
    pub(super) is_swept: bool,
}

/// One host of a pool.
#[derive(Default)]
pub(super) struct HostEntry {
    pub(super) kept: Option<KeptConnection>,
    /// The number of requests, also those that wait for a connection.
    pub(super) requests: usize,
    /// Held while the first connection is made. It shows whether others need one of their own.
    pub(super) connecting: Arc<tokio::sync::Mutex<()>>,
    /// Whether the host speaks HTTP/1.1.
    pub(super) needs_many: bool,
}

/// A connection that waits for requests, or an HTTP/2 connection that takes more of them.
pub(super) struct KeptConnection {
    pub(super) pooled: Pooled,
    /// The time of its last use.
    pub(super) since: Instant,
}

/// A connection with its permit.
pub(super) struct Pooled {
    pub(super) connection: Connection,
    pub(super) permit: Arc<OwnedSemaphorePermit>,
    pub(super) made_at: Instant,
}

impl Pooled {
    /// Another handle of an HTTP/2 connection.
    pub(super) fn share(&self) -> Option<Self> {
        let connection = self.connection.share()?;
        Some(Self { connection, permit: Arc::clone(&self.permit), made_at: self.made_at })
    }

    pub(super) fn is_usable(&self) -> bool {
        self.connection.is_ready() && self.made_at.elapsed() < MAX_AGE
    }
}

impl PoolHosts {
    /// Closes connections that were not used for `idle`. Returns when the next one ends, or `None` when none is kept.
    pub(super) fn sweep(&mut self, idle: Duration, now: Instant) -> Option<Instant> {
        let mut next = None::<Instant>;
        self.by_name.retain(|_, entry| {
            let is_in_use = entry.is_kept_in_use();
            entry.kept.take_if(|kept| {
                let ends_at = if is_in_use { now } else { kept.since } + idle;
                let has_ended = ends_at <= now || !kept.pooled.is_usable();
                if !has_ended {
                    next = Some(next.map_or(ends_at, |next| next.min(ends_at)));
                }
                has_ended
            });
            entry.is_needed()
        });
        self.is_swept = next.is_some();
        next
    }

    /// Makes room for a connection, if one is idle. Looks at all, which only a full pool does.
    pub(super) fn close_longest_idle(&mut self) {
        let idle = self.by_name.iter().filter(|(_, entry)| !entry.is_kept_in_use());
        let idle = idle.filter_map(|(name, entry)| Some((entry.kept.as_ref()?.since, name)));
        let longest = idle.min_by_key(|(since, _)| *since).map(|(_, name)| name.clone());
        if let Some(name) = longest
            && let Some(entry) = self.by_name.get_mut(&name)
        {
            entry.kept = None;
            if !entry.is_needed() {
                self.by_name.remove(&name);
            }
        }
    }
}

impl HostEntry {
    /// Whether the kept connection is one of HTTP/2 that has requests now, or is about to have them.
    fn is_kept_in_use(&self) -> bool {
        let is_shared = |kept: &KeptConnection| kept.pooled.connection.protocol() == ClientProtocol::Http2;
        self.requests > 0 && self.kept.as_ref().is_some_and(is_shared)
    }

    pub(super) fn is_needed(&self) -> bool {
        self.requests > 0 || self.kept.is_some()
    }
}
