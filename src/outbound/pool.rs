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

mod claim;
mod hosts;

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) use self::claim::Borrowed;
use self::{
    claim::Claim,
    hosts::{PoolHosts, Pooled},
};
use super::{OutboundError, connect::Connection};
use crate::store::ids::lock;

/// The connections of one use.
pub(super) struct Pool {
    /// The time for which a connection without requests is kept.
    idle: Duration,
    /// A permit for each open connection.
    open: Arc<Semaphore>,
    /// Locked for a few lines without `.await`.
    hosts: Mutex<PoolHosts>,
    /// Runs until the pool is dropped, and the sweeper with it.
    life: CancellationToken,
    _end: DropGuard,
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
    ) -> Result<(Response<Incoming>, Borrowed), OutboundError>
    where
        C: Future<Output = Result<Connection, OutboundError>> + Send,
    {
        let mut connecting = pin!(connecting);
        let borrowed = self.borrow(host, connecting.as_mut()).await?;
        let is_reused = borrowed.is_reused;
        match borrowed.exchange(request.clone()).await {
            Err(failed) if is_reused && (!failed.was_sent || request.method().is_idempotent()) => {}
            done => return done.map_err(OutboundError::from),
        }
        let borrowed = self.borrow(host, connecting).await?;
        Ok(borrowed.exchange(request).await?)
    }

    async fn borrow<C>(self: &Arc<Self>, host: &str, connecting: Pin<&mut C>) -> Result<Borrowed, OutboundError>
    where
        C: Future<Output = Result<Connection, OutboundError>> + Send,
    {
        let claim = Claim::begin(self, host);
        if let Some(kept) = claim.kept() {
            return Ok(Borrowed::new(kept, claim, true));
        }
        let _turn = claim.turn().await;
        // Another request may have made one meanwhile.
        if let Some(kept) = claim.kept() {
            return Ok(Borrowed::new(kept, claim, true));
        }
        let permit = Arc::new(self.permit().await);
        let connection = connecting.await?;
        let made = Pooled { connection, permit, made_at: Instant::now() };
        claim.has_made(&made);
        Ok(Borrowed::new(made, claim, false))
    }

    /// A permit for a connection. Waits while all connections have requests.
    async fn permit(&self) -> OwnedSemaphorePermit {
        if let Ok(permit) = Arc::clone(&self.open).try_acquire_owned() {
            return permit;
        }
        // From here on, no connection becomes idle instead of making room.
        let _waiting = WaitingForPermit::begin(self);
        Arc::clone(&self.open).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Starts the sweeper, if it does not run.
    fn start_sweeper(self: &Arc<Self>, hosts: &mut PoolHosts) {
        if std::mem::replace(&mut hosts.is_swept, true) {
            return;
        }
        let pool = Arc::downgrade(self);
        let first_at = Instant::now() + self.idle;
        let sweeping = async move {
            let mut next = Some(first_at);
            while let Some(at) = next {
                tokio::time::sleep_until(at).await;
                next = pool.upgrade().and_then(|pool| lock(&pool.hosts).sweep(pool.idle, Instant::now()));
            }
        };
        tokio::spawn(self.life.clone().run_until_cancelled_owned(sweeping));
    }
}

/// A request that waits for a permit.
struct WaitingForPermit<'a>(&'a Pool);

impl<'a> WaitingForPermit<'a> {
    fn begin(pool: &'a Pool) -> Self {
        let mut hosts = lock(&pool.hosts);
        hosts.waiting += 1;
        hosts.close_longest_idle();
        Self(pool)
    }
}

impl Drop for WaitingForPermit<'_> {
    fn drop(&mut self) {
        lock(&self.0.hosts).waiting -= 1;
    }
}

#[cfg(test)]
mod tests;
