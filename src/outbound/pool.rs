//! Connections that are kept for the next request. Each use has a pool of its own, and a pool keeps one connection for each
//! host.
//!
//! Promises: a request is only sent over a connection that was made for the very same host, so nothing that was checked for
//! one name counts for another. Requests to a host that speaks HTTP/2 share one connection, also those that begin at the
//! same time; over HTTP/1.1 each of these has its own. A pool has at most so many connections as it was made for: when it is
//! full, the one that was idle for longest is closed. A kept connection that was closed by the server is replaced.
//!
//! A host here is the `Host` header of a route, because everything else of the route follows from it
//! ([`sabha_federation::discovery`]): the certificate's name is its host, and its targets are found by it.

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use sabha_federation::Host;
use tokio::{
    sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    OutboundError,
    connect::{Connection, Protocol, Unanswered},
};
use crate::store::ids::lock;

/// The time after which a connection is not used for another request, however busy it is. So a server that has moved is
/// looked up again, and its certificate is checked again.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The time that an HTTP/1.1 connection has to become free after an answer. Usually it is free at once, unless the server
/// has answered without reading the whole request.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// The connections of one use.
pub(super) struct Pool {
    /// The time for which a connection without requests is kept.
    idle: Duration,
    /// A permit for each open connection.
    open: Arc<Semaphore>,
    /// Locked for a few lines without `.await`.
    hosts: Mutex<Hosts>,
    /// Runs until the pool is dropped, and the sweeper with it.
    life: CancellationToken,
    _end: DropGuard,
}

#[derive(Default)]
struct Hosts {
    /// The hosts with requests or a kept connection.
    by_name: HashMap<String, HostEntry>,
    /// The number of requests that wait for a permit.
    waiting: usize,
    /// Whether the sweeper runs.
    is_swept: bool,
}

#[derive(Default)]
struct HostEntry {
    kept: Option<Kept>,
    /// The number of requests, also those that wait for a connection.
    requests: usize,
    /// Held while the first connection is made. It shows whether others need one of their own.
    connecting: Arc<tokio::sync::Mutex<()>>,
    /// Whether the host speaks HTTP/1.1.
    needs_many: bool,
}

/// A connection that waits for requests, or an HTTP/2 connection that takes more of them.
struct Kept {
    pooled: Pooled,
    /// The time of its last use.
    since: Instant,
}

/// A connection with its permit.
struct Pooled {
    connection: Connection,
    permit: Arc<OwnedSemaphorePermit>,
    made_at: Instant,
}

impl Pooled {
    /// Another handle of an HTTP/2 connection.
    fn share(&self) -> Option<Self> {
        let connection = self.connection.share()?;
        Some(Self { connection, permit: Arc::clone(&self.permit), made_at: self.made_at })
    }

    fn is_usable(&self) -> bool {
        self.connection.is_ready() && self.made_at.elapsed() < MAX_AGE
    }
}

impl Pool {
    /// A pool of at most `most` connections, each of which is kept for `idle` after its last request.
    pub(super) fn new(most: usize, idle: Duration) -> Arc<Self> {
        let life = CancellationToken::new();
        let end = life.clone().drop_guard();
        Arc::new(Self { idle, open: Arc::new(Semaphore::new(most)), hosts: Mutex::default(), life, _end: end })
    }

    /// Sends a request over a kept connection, or over the one that `connecting` makes, which is polled only then. Waits
    /// for the head of the answer.
    ///
    /// When a kept connection breaks before an answer begins, the request is sent once more over another, if the server
    /// has not seen it, or if it is idempotent: HTTP lets clients repeat such a request.
    pub(super) async fn send<C>(
        self: &Arc<Self>,
        host: &str,
        connecting: C,
        request: Request<Bytes>,
    ) -> Result<(Response<Incoming>, Lease), OutboundError>
    where
        C: Future<Output = Result<Connection, OutboundError>> + Send,
    {
        let mut connecting = pin!(connecting);
        let lease = self.lease(host, connecting.as_mut()).await?;
        let is_reused = lease.is_reused;
        match lease.exchange(request.clone()).await {
            Err(failed) if is_reused && (!failed.was_sent || request.method().is_idempotent()) => {}
            done => return done.map_err(OutboundError::from),
        }
        let lease = self.lease(host, connecting).await?;
        Ok(lease.exchange(request).await?)
    }

    async fn lease<C>(self: &Arc<Self>, host: &str, connecting: Pin<&mut C>) -> Result<Lease, OutboundError>
    where
        C: Future<Output = Result<Connection, OutboundError>> + Send,
    {
        let visit = Visit::begin(self, host);
        if let Some(kept) = visit.kept() {
            return Ok(Lease::new(kept, visit, true));
        }
        let _turn = visit.turn().await;
        // Another request may have made one meanwhile.
        if let Some(kept) = visit.kept() {
            return Ok(Lease::new(kept, visit, true));
        }
        let permit = Arc::new(self.permit().await);
        let connection = connecting.await?;
        let made = Pooled { connection, permit, made_at: Instant::now() };
        visit.has_made(&made);
        Ok(Lease::new(made, visit, false))
    }

    /// A permit for a connection. Waits while all connections have requests.
    async fn permit(&self) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.open).try_acquire_owned() {
            return permit;
        }
        // From here on, no connection becomes idle instead of making room.
        let _waiting = Waiting::begin(self);
        Arc::clone(&self.open).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Starts the sweeper, if it does not run.
    fn start_sweeper(self: &Arc<Self>, hosts: &mut Hosts) {
        if std::mem::replace(&mut hosts.is_swept, true) {
            return;
        }
        let pool = Arc::downgrade(self);
        let first_at = Instant::now() + self.idle;
        let sweeping = async move {
            let mut next = Some(first_at);
            while let Some(at) = next {
                tokio::time::sleep_until(at).await;
                next = pool.upgrade().and_then(|pool| pool.sweep());
            }
        };
        tokio::spawn(self.life.clone().run_until_cancelled_owned(sweeping));
    }

    /// Closes connections that were not used for too long. Returns when the next one ends, or `None` when none is kept.
    fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut next = None::<Instant>;
        let mut hosts = lock(&self.hosts);
        hosts.by_name.retain(|_, entry| {
            let is_in_use = entry.is_kept_in_use();
            entry.kept.take_if(|kept| {
                let ends_at = if is_in_use { now } else { kept.since } + self.idle;
                let has_ended = ends_at <= now || !kept.pooled.is_usable();
                if !has_ended {
                    next = Some(next.map_or(ends_at, |next| next.min(ends_at)));
                }
                has_ended
            });
            entry.is_needed()
        });
        hosts.is_swept = next.is_some();
        next
    }
}

impl Hosts {
    fn close_longest_idle(&mut self) {
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
        let is_shared = |kept: &Kept| kept.pooled.connection.protocol() == Protocol::Http2;
        self.requests > 0 && self.kept.as_ref().is_some_and(is_shared)
    }

    fn is_needed(&self) -> bool {
        self.requests > 0 || self.kept.is_some()
    }
}

/// A request that waits for a permit.
struct Waiting<'a>(&'a Pool);

impl<'a> Waiting<'a> {
    fn begin(pool: &'a Pool) -> Self {
        let mut hosts = lock(&pool.hosts);
        hosts.waiting += 1;
        hosts.close_longest_idle();
        Self(pool)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.0.hosts).waiting -= 1;
    }
}

/// A request to a host, from the search for a connection to the end of the answer. The host has an entry meanwhile.
struct Visit {
    pool: Arc<Pool>,
    host: String,
    /// The HTTP/2 connection of this request, if it has not answered. No further request uses it when this is dropped.
    doubted: Option<Connection>,
}

impl Visit {
    fn begin(pool: &Arc<Pool>, host: &str) -> Self {
        // The case of a host's name has no meaning.
        let host = host.to_ascii_lowercase();
        lock(&pool.hosts).by_name.entry(host.clone()).or_default().requests += 1;
        Self { pool: Arc::clone(pool), host, doubted: None }
    }

    fn entry<T>(&self, work: impl FnOnce(&mut HostEntry) -> T) -> T {
        work(lock(&self.pool.hosts).by_name.entry(self.host.clone()).or_default())
    }

    /// The host's kept connection. One of HTTP/2 also stays for others.
    fn kept(&self) -> Option<Pooled> {
        self.entry(|entry| {
            let pooled = entry.kept.take().filter(|kept| kept.pooled.is_usable())?.pooled;
            entry.kept = pooled.share().map(|pooled| Kept { pooled, since: Instant::now() });
            Some(pooled)
        })
    }

    /// Waits for the turn to connect, if one connection may be enough for all.
    async fn turn(&self) -> Option<OwnedMutexGuard<()>> {
        let connecting = self.entry(|entry| (!entry.needs_many).then(|| Arc::clone(&entry.connecting)))?;
        let turn = connecting.lock_owned().await;
        // All who waited connect at the same time, if the first connection has shown that each needs its own.
        self.entry(|entry| !entry.needs_many).then_some(turn)
    }

    fn has_made(&self, made: &Pooled) {
        match made.share() {
            Some(pooled) => self.keep(&mut lock(&self.pool.hosts), pooled),
            None => self.entry(|entry| entry.needs_many = true),
        }
    }

    /// Keeps the connection in the place of an older one.
    fn keep(&self, hosts: &mut Hosts, pooled: Pooled) {
        let kept = Kept { pooled, since: Instant::now() };
        hosts.by_name.entry(self.host.clone()).or_default().kept = Some(kept);
        self.pool.start_sweeper(hosts);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut hosts = lock(&self.pool.hosts);
        let is_wanted = hosts.waiting > 0;
        let Some(entry) = hosts.by_name.get_mut(&self.host) else { return };
        if let Some(doubted) = &self.doubted {
            entry.kept.take_if(|kept| kept.pooled.connection.is_shared_with(doubted));
        }
        entry.requests -= 1;
        if entry.requests > 0 {
            return;
        }
        match &mut entry.kept {
            Some(kept) if !is_wanted => kept.since = Instant::now(),
            _ => _ = hosts.by_name.remove(&self.host),
        }
    }
}

/// The use of a connection for one request. Dropping it before the end of the answer closes an HTTP/1.1 connection.
pub(super) struct Lease {
    pooled: Pooled,
    /// Whether the connection was used for another request before.
    is_reused: bool,
    visit: Visit,
}

impl Lease {
    fn new(pooled: Pooled, mut visit: Visit, is_reused: bool) -> Self {
        visit.doubted = pooled.connection.share();
        Self { pooled, is_reused, visit }
    }

    async fn exchange(mut self, request: Request<Bytes>) -> Result<(Response<Incoming>, Self), Unanswered> {
        let response = self.pooled.connection.send(request).await?;
        self.visit.doubted = None;
        Ok((response, self))
    }

    /// The host that was connected to.
    pub(super) fn host(&self) -> &Host {
        self.pooled.connection.host()
    }

    /// Ends the use after an answer that broke off or came too slowly.
    pub(super) fn fail(mut self) {
        self.visit.doubted = self.pooled.connection.share();
    }

    /// Ends the use after the last byte of the answer. An HTTP/1.1 connection is kept for the next request, unless it is in
    /// the way of others.
    pub(super) async fn finish(self) {
        let Self { mut pooled, visit, .. } = self;
        if pooled.connection.protocol() == Protocol::Http2 {
            return;
        }
        if let Ok(Ok(())) = timeout(SETTLE_TIME, pooled.connection.ready()).await {
            let mut hosts = lock(&visit.pool.hosts);
            if hosts.waiting == 0 {
                visit.keep(&mut hosts, pooled);
            }
        }
    }
}

#[cfg(test)]
mod tests;
