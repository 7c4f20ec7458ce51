//! Outbound requests: the only HTTP client of this server.
//!
//! Promise: no connection is ever made to an address that the configuration denies, whatever the redirect, the DNS
//! answer or the spelling of the address. A host is looked up, its addresses are checked, and the connection goes to
//! one of exactly these ([`guard`]), without another lookup in between. Every request has limits: in time, in bytes, in
//! redirects ([`Limits`]). The client uses no proxies of the environment and decompresses nothing.
//!
//! Connections to other servers are kept for the next request, in a pool for each [`Use`]. A URL is fetched over a
//! connection of its own, because users name them.
//!
//! Reading order: [`guard`] checks addresses, [`resolve`] queries DNS, [`connect`] makes one connection, `pool` keeps
//! connections, [`stream`] reads an answer, `fetch` follows a URL. Its user is [`crate::remote`].

pub mod guard;
pub mod resolve;
pub mod trust;

pub mod connect;
mod pool;
mod purpose;
pub mod stream;

mod fetch;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, Uri,
    header::HOST,
    uri::{Authority, Scheme},
};
use sabha_federation::{Host, Route, Service};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

pub use self::{
    connect::ConnectError,
    guard::Guard,
    purpose::Use,
    resolve::{Resolve, ResolveError},
    stream::{StreamLimits, Streamed},
    trust::{Trust, TrustStores},
};
use self::{connect::Unanswered, pool::Pool, stream::BodySource};
use crate::config;

/// Maximum number of a host's addresses to try. A name with more is likely meant to keep us busy.
const MAX_ADDRESSES: usize = 4;

/// Limits of one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time for everything: lookup, connection, redirects, and the answer to its last byte.
    pub time: Duration,
    /// Maximum size of the answer's body.
    pub body_bytes: usize,
    /// Maximum number of redirects to follow. Each passes the same checks.
    pub redirects: usize,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    #[error("{host} has no address that may be connected to")]
    Denied { host: Host },
    #[error("{host} was not found")]
    NotFound {
        host: Host,
        #[source]
        source: ResolveError,
    },
    #[error("could not connect to {host}")]
    Connect {
        host: Host,
        #[source]
        source: ConnectError,
    },
    #[error("the exchange with {host} broke off")]
    Exchange {
        host: Host,
        #[source]
        source: hyper::Error,
    },
    #[error("the answer is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("there was no whole answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("nothing more of the answer came for {} ms", .0.as_millis())]
    Stalled(Duration),
    #[error("the answer broke off before")]
    BrokenOff,
    #[error("the answer redirects more than {0} times")]
    TooManyRedirects(usize),
    #[error("the address is not one of the web, or the answer redirects to such a one")]
    BadUrl,
}

impl From<Unanswered> for OutboundError {
    fn from(Unanswered { host, source, .. }: Unanswered) -> Self {
        Self::Exchange { host, source }
    }
}

/// Why the client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("federation.ca_files: the certificate authorities cannot be loaded")]
    Authorities(#[from] config::authorities::AuthorityError),
    #[error("TLS for outbound requests cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// The HTTP client. Built once.
pub struct Outbound {
    guard: Guard,
    hosts: config::Hosts,
    resolver: Arc<dyn Resolve>,
    trust: TrustStores,
    fetches: Semaphore,
    /// The pool of each [`Use`], in the order of its variants.
    pools: [Arc<Pool>; Use::ALL.len()],
}

impl Outbound {
    /// Builds the client for this configuration. It uses the system's DNS servers.
    ///
    /// # Errors
    /// When a file of certificate authorities cannot be used.
    pub fn new(config: &config::Outbound, ca_files: &[PathBuf]) -> Result<Self, SetupError> {
        Self::with_resolver(config, ca_files, Arc::new(resolve::SystemDns::new()))
    }

    /// Builds the client with another resolver.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_resolver(
        config: &config::Outbound,
        ca_files: &[PathBuf],
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            guard: Guard::new(config),
            hosts: config.hosts.clone(),
            resolver,
            trust: TrustStores::load(ca_files)?,
            fetches: Semaphore::new(fetch::MAX_FETCHES),
            pools: Use::ALL.map(|use_| Pool::new(use_.most_connections(), use_.idle_time())),
        })
    }

    /// Sends a request to another server over TLS. Follows no redirect, because the signature is only for that server.
    /// Tries to connect to each target in turn. A request that may have arrived is not sent again, unless it is idempotent
    /// and the server has closed a kept connection at the same moment.
    ///
    /// # Errors
    /// [`OutboundError`]. Any status is an answer.
    pub async fn send(
        &self,
        use_: Use,
        route: &Route,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, OutboundError> {
        let (head, body) = self.stream(use_, route, request, limits.into()).await?.into_parts();
        Ok(Response::from_parts(head, body.into_bytes(limits.body_bytes).await?))
    }

    /// Sends a request as [`Self::send`] does, and returns when the body of the answer begins.
    ///
    /// # Errors
    /// [`OutboundError`]. Any status is an answer.
    pub async fn stream(
        &self,
        use_: Use,
        route: &Route,
        mut request: Request<Bytes>,
        limits: StreamLimits,
    ) -> Result<Response<Streamed>, OutboundError> {
        let began_at = Instant::now();
        address(&mut request, &route.host_header)?;
        let sending = self.pools[use_ as usize].send(&route.host_header, self.reach(route), request);
        let head_time = limits.head.min(limits.time);
        let sent = timeout(head_time, sending).await.unwrap_or(Err(OutboundError::TimedOut(head_time)));
        let (response, borrowed) = sent?;
        Ok(response.map(|body| Streamed::new(body, BodySource::Pooled(borrowed), limits, began_at)))
    }

    /// Looks up the service records of a name. A host in the static map has none, because the map replaces DNS.
    ///
    /// # Errors
    /// When DNS does not answer.
    pub async fn services(&self, name: &str, host: &str) -> Result<Vec<Service>, ResolveError> {
        if self.hosts.find(host).is_some() { Ok(Vec::new()) } else { self.resolver.services(name).await }
    }

    /// Connects to the first target of a route that answers.
    async fn reach(&self, route: &Route) -> Result<connect::Connection, OutboundError> {
        let mut connection = Err(OutboundError::BadUrl);
        for (host, port) in &route.targets {
            connection = self.connect(host, *port, Some((&route.certificate, self.trust.pooled()))).await;
            if connection.is_ok() {
                break;
            }
        }
        connection
    }

    async fn connect(
        &self,
        host: &Host,
        port: u16,
        tls: Option<(&Host, &TlsConnector)>,
    ) -> Result<connect::Connection, OutboundError> {
        let addresses = self.addresses(host, port).await?;
        connect::connect(host, &addresses, tls)
            .await
            .map_err(|source| OutboundError::Connect { host: host.clone(), source })
    }

    /// The addresses to connect to. They are looked up and checked only here.
    async fn addresses(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, OutboundError> {
        let found = match host {
            Host::Ip(ip) => vec![SocketAddr::new(*ip, port)],
            Host::Name(name) => match self.hosts.find(name) {
                Some(mapped) => vec![mapped.at(port)],
                None => {
                    let found = self.resolver.addresses(name).await;
                    let found = found.map_err(|source| OutboundError::NotFound { host: host.clone(), source })?;
                    found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
                }
            },
        };
        let permitted = found.into_iter().filter(|address| self.guard.permits(address.ip()));
        let permitted: Vec<_> = permitted.take(MAX_ADDRESSES).collect();
        if permitted.is_empty() { Err(OutboundError::Denied { host: host.clone() }) } else { Ok(permitted) }
    }
}

/// Completes a request for a server: its whole URI, which HTTP/2 needs, and the `Host` of HTTP/1.1.
fn address(request: &mut Request<Bytes>, host_header: &str) -> Result<(), OutboundError> {
    let authority: Authority = host_header.parse().map_err(|_| OutboundError::BadUrl)?;
    let host_header = HeaderValue::from_str(host_header).map_err(|_| OutboundError::BadUrl)?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    (parts.scheme, parts.authority) = (Some(Scheme::HTTPS), Some(authority));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| OutboundError::BadUrl)?;
    request.headers_mut().insert(HOST, host_header);
    Ok(())
}

#[cfg(test)]
mod test_peer;
#[cfg(test)]
mod tests;
