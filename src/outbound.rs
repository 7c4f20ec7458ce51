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
//! connections, [`stream`] reads an answer. Its user is [`crate::remote`].

pub mod connect;
pub mod guard;
mod pool;
pub mod resolve;
pub mod stream;
pub mod trust;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Uri,
    header::{HOST, LOCATION},
    uri::{Authority, PathAndQuery, Scheme},
};
use sabha_federation::{Host, Route, Service};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use url::Url;

pub use self::{
    connect::ConnectError,
    guard::Guard,
    resolve::{Resolve, ResolveError},
    stream::{StreamLimits, Streamed},
    trust::{Trust, TrustStores},
};
use self::{connect::Unanswered, pool::Pool, stream::Source};
use crate::config;

/// Maximum number of URLs fetched at a time, so that slow hosts cannot take all our sockets. Further requests wait, within
/// their time.
const MAX_FETCHES: usize = 512;

/// Maximum number of a host's addresses to try. A name with more is likely meant to keep us busy.
const MAX_ADDRESSES: usize = 4;

/// What a connection to another server is for. Each use has its own pool, so that none can take the sockets of another.
/// That one server does not take all connections of a use is for its callers to see to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Requests that a user waits for.
    Queries,
    /// Servers' keys, which requests to us wait for.
    Keys,
    /// Missing events and states, and media.
    Fetches,
    /// Our events and messages.
    Transactions,
    /// The steps of joins, invites, knocks and leaves.
    Joins,
}

impl Use {
    const ALL: [Self; 5] = [Self::Queries, Self::Keys, Self::Fetches, Self::Transactions, Self::Joins];

    /// Maximum number of connections. Twice the requests that callers make at a time, so that some are kept besides; for
    /// transactions about the servers of large rooms. Together 1,664, which is far below the usual limit of files.
    const fn most_connections(self) -> usize {
        match self {
            Self::Queries => 256,
            Self::Keys | Self::Fetches => 128,
            Self::Transactions => 1024,
            Self::Joins => 128,
        }
    }

    /// The time for which a connection without requests is kept. The next transaction of a conversation comes within a
    /// minute or so. Other requests come in groups, or alone.
    const fn idle_time(self) -> Duration {
        match self {
            Self::Transactions => Duration::from_secs(90),
            Self::Queries | Self::Keys | Self::Fetches | Self::Joins => Duration::from_secs(15),
        }
    }
}

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
            fetches: Semaphore::new(MAX_FETCHES),
            pools: Use::ALL.map(|use_| Pool::new(use_.most_connections(), use_.idle_time())),
        })
    }

    /// Fetches `url`, following redirects. `https` never redirects to plain `http`.
    ///
    /// # Errors
    /// [`OutboundError`]. Any status except a redirect is an answer.
    pub async fn get(&self, url: &Url, trust: Trust, limits: Limits) -> Result<Response<Bytes>, OutboundError> {
        let work = async {
            // The semaphore is never closed.
            let _permit = self.fetches.acquire().await;
            self.follow(url.clone(), trust, limits).await
        };
        timeout(limits.time, work).await.unwrap_or(Err(OutboundError::TimedOut(limits.time)))
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
        let (response, lease) = sent?;
        Ok(response.map(|body| Streamed::new(body, Source::Pooled(lease), limits, began_at)))
    }

    /// Looks up the service records of a name. A host in the static map has none, because the map replaces DNS.
    ///
    /// # Errors
    /// When DNS does not answer.
    pub async fn services(&self, name: &str, host: &str) -> Result<Vec<Service>, ResolveError> {
        if self.hosts.find(host).is_some() { Ok(Vec::new()) } else { self.resolver.services(name).await }
    }

    async fn follow(&self, mut url: Url, trust: Trust, limits: Limits) -> Result<Response<Bytes>, OutboundError> {
        for _ in 0..=limits.redirects {
            let response = self.fetch(&url, trust, limits).await?;
            let Some(next) = redirect(&url, &response)? else {
                return Ok(response);
            };
            url = next;
        }
        Err(OutboundError::TooManyRedirects(limits.redirects))
    }

    /// Fetches one URL, without redirects.
    async fn fetch(&self, url: &Url, trust: Trust, limits: Limits) -> Result<Response<Bytes>, OutboundError> {
        let host = match url.host().ok_or(OutboundError::BadUrl)? {
            // The parser has also converted spellings such as `0x7f.1` and `2130706433` to addresses.
            url::Host::Ipv4(ip) => Host::Ip(ip.into()),
            url::Host::Ipv6(ip) => Host::Ip(ip.into()),
            url::Host::Domain(name) => Host::Name(name.to_owned()),
        };
        let port = url.port_or_known_default().ok_or(OutboundError::BadUrl)?;
        let tls = match url.scheme() {
            "https" => Some((&host, self.trust.connector(trust))),
            "http" => None,
            _ => return Err(OutboundError::BadUrl),
        };
        let host_header = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let path: PathAndQuery =
            url[url::Position::BeforePath..url::Position::AfterQuery].parse().map_err(|_| OutboundError::BadUrl)?;
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = path.into();
        let host_header = HeaderValue::from_str(&host_header).map_err(|_| OutboundError::BadUrl)?;
        request.headers_mut().insert(HOST, host_header);
        let mut connection = self.connect(&host, port, tls).await?;
        let (head, body) = connection.send(request).await?.into_parts();
        let limits = StreamLimits::from(limits);
        let body = Streamed::new(body, Source::Single(connection), limits, Instant::now());
        Ok(Response::from_parts(head, body.into_bytes(limits.body_bytes).await?))
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

/// The redirect target of an answer, if it has one.
fn redirect(from: &Url, response: &Response<Bytes>) -> Result<Option<Url>, OutboundError> {
    use StatusCode as S;
    if ![S::MOVED_PERMANENTLY, S::FOUND, S::SEE_OTHER, S::TEMPORARY_REDIRECT, S::PERMANENT_REDIRECT]
        .contains(&response.status())
    {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let to = location.and_then(|location| from.join(location).ok()).ok_or(OutboundError::BadUrl)?;
    let is_allowed = match to.scheme() {
        "https" => true,
        "http" => from.scheme() == "http",
        _ => false,
    };
    if is_allowed { Ok(Some(to)) } else { Err(OutboundError::BadUrl) }
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
