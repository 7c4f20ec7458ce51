//! One request in a pool: its claim on a host, and on a connection.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use sabha_federation::Host;
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, timeout},
};

use super::{
    Pool,
    hosts::{HostEntry, KeptConnection, PoolHosts, Pooled},
};
use crate::{
    outbound::connect::{ClientProtocol, Connection, Unanswered},
    store::ids::lock,
};

/// The time that an HTTP/1.1 connection has to become free after an answer. Usually it is free at once, unless the server
/// has answered without reading the whole request.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// A request to a host, from the search for a connection to the end of the answer. The host has an entry meanwhile.
pub(super) struct Claim {
    pool: Arc<Pool>,
    host: String,
    /// The HTTP/2 connection of this request, if it has not answered. No further request uses it when this is dropped.
    doubted: Option<Connection>,
}

impl Claim {
    pub(super) fn begin(pool: &Arc<Pool>, host: &str) -> Self {
        // The case of a host's name has no meaning.
        let host = host.to_ascii_lowercase();
        lock(&pool.hosts).by_name.entry(host.clone()).or_default().requests += 1;
        Self { pool: Arc::clone(pool), host, doubted: None }
    }

    fn entry<T>(&self, work: impl FnOnce(&mut HostEntry) -> T) -> T {
        work(lock(&self.pool.hosts).by_name.entry(self.host.clone()).or_default())
    }

    /// The host's kept connection. One of HTTP/2 also stays for others.
    pub(super) fn kept(&self) -> Option<Pooled> {
        self.entry(|entry| {
            let pooled = entry.kept.take().filter(|kept| kept.pooled.is_usable())?.pooled;
            entry.kept = pooled.share().map(|pooled| KeptConnection { pooled, since: Instant::now() });
            Some(pooled)
        })
    }

    /// Waits for the turn to connect, if one connection may be enough for all.
    pub(super) async fn turn(&self) -> Option<OwnedMutexGuard<()>> {
        let connecting = self.entry(|entry| (!entry.needs_many).then(|| Arc::clone(&entry.connecting)))?;
        let turn = connecting.lock_owned().await;
        // All who waited connect at the same time, if the first connection has shown that each needs its own.
        self.entry(|entry| !entry.needs_many).then_some(turn)
    }

    pub(super) fn has_made(&self, made: &Pooled) {
        match made.share() {
            Some(pooled) => self.keep(&mut lock(&self.pool.hosts), pooled),
            None => self.entry(|entry| entry.needs_many = true),
        }
    }

    /// Keeps the connection in the place of an older one.
    fn keep(&self, hosts: &mut PoolHosts, pooled: Pooled) {
        let kept = KeptConnection { pooled, since: Instant::now() };
        hosts.by_name.entry(self.host.clone()).or_default().kept = Some(kept);
        self.pool.start_sweeper(hosts);
    }
}

impl Drop for Claim {
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
pub(in crate::outbound) struct Borrowed {
    pooled: Pooled,
    /// Whether the connection was used for another request before.
    pub(super) is_reused: bool,
    claim: Claim,
}

impl Borrowed {
    pub(super) fn new(pooled: Pooled, mut claim: Claim, is_reused: bool) -> Self {
        claim.doubted = pooled.connection.share();
        Self { pooled, is_reused, claim }
    }

    pub(super) async fn exchange(mut self, request: Request<Bytes>) -> Result<(Response<Incoming>, Self), Unanswered> {
        let response = self.pooled.connection.send(request).await?;
        self.claim.doubted = None;
        Ok((response, self))
    }

    /// The host that was connected to.
    pub(in crate::outbound) fn host(&self) -> &Host {
        self.pooled.connection.host()
    }

    /// Ends the use after an answer that broke off or came too slowly.
    pub(in crate::outbound) fn fail(mut self) {
        self.claim.doubted = self.pooled.connection.share();
    }

    /// Ends the use after the last byte of the answer. An HTTP/1.1 connection is kept for the next request, unless it is in
    /// the way of others.
    pub(in crate::outbound) async fn finish(self) {
        let Self { mut pooled, claim, .. } = self;
        if pooled.connection.protocol() == ClientProtocol::Http2 {
            return;
        }
        if let Ok(Ok(())) = timeout(SETTLE_TIME, pooled.connection.ready()).await {
            let mut hosts = lock(&claim.pool.hosts);
            if hosts.waiting == 0 {
                claim.keep(&mut hosts, pooled);
            }
        }
    }
}
