//! Outbound requests: the only HTTP client of this server.
//!
//! Promise: no connection is ever made to an address that the configuration denies, whatever the redirect, the DNS
//! answer or the spelling of the address. A host is looked up, its addresses are checked, and the connection goes to
//! one of exactly these ([`guard`]), without another lookup in between. Every request has limits: in time, in bytes, in
//! redirects ([`Limits`]). The client uses no proxies of the environment, decompresses nothing and keeps no connection
//! open.
//!
//! Reading order: [`guard`] checks addresses, [`resolve`] queries DNS, [`connect`] makes one connection and one
//! exchange on it. Its user is [`crate::remote`].

pub mod connect;
pub mod guard;
pub mod resolve;
pub mod trust;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{HOST, LOCATION, USER_AGENT},
    uri::PathAndQuery,
};
use sabha_federation::{Host, Route, Service};
use tokio::sync::Semaphore;
use url::Url;

pub use self::{
    connect::ConnectError,
    guard::Guard,
    resolve::{Resolve, ResolveError},
    trust::{Trust, TrustStores},
};
use crate::config;

/// Maximum number of concurrent requests, so that slow servers cannot take all our sockets. Further requests wait,
/// within their time.
const MAX_IN_FLIGHT: usize = 512;

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
    #[error("the answer redirects more than {0} times")]
    TooManyRedirects(usize),
    #[error("the address is not one of the web, or the answer redirects to such a one")]
    BadUrl,
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
    in_flight: Semaphore,
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
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
        })
    }

    /// Fetches `url`, following redirects. `https` never redirects to plain `http`.
    ///
    /// # Errors
    /// [`OutboundError`]. Any status except a redirect is an answer.
    pub async fn get(&self, url: &Url, trust: Trust, limits: Limits) -> Result<Response<Bytes>, OutboundError> {
        self.within(limits.time, self.follow(url.clone(), trust, limits)).await
    }

    /// Sends a request to another server over TLS. Follows no redirect, because the signature is only for that server.
    /// Tries to connect to each target in turn, but never sends the request twice.
    ///
    /// # Errors
    /// [`OutboundError`]. Any status is an answer.
    pub async fn send(
        &self,
        route: &Route,
        mut request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, OutboundError> {
        let host_header = HeaderValue::from_str(&route.host_header).map_err(|_| OutboundError::BadUrl)?;
        request.headers_mut().insert(HOST, host_header);
        let exchange = async {
            let mut connection = Err(OutboundError::BadUrl);
            for (host, port) in &route.targets {
                connection = self.connect(host, *port, Some((&route.certificate, Trust::Federation))).await;
                if connection.is_ok() {
                    break;
                }
            }
            connection?.exchange(request, limits.body_bytes).await
        };
        self.within(limits.time, exchange).await
    }

    /// Looks up the service records of a name. A host in the static map has none, because the map replaces DNS.
    ///
    /// # Errors
    /// When DNS does not answer.
    pub async fn services(&self, name: &str, host: &str) -> Result<Vec<Service>, ResolveError> {
        if self.hosts.find(host).is_some() { Ok(Vec::new()) } else { self.resolver.services(name).await }
    }

    async fn within<T>(
        &self,
        time: Duration,
        work: impl Future<Output = Result<T, OutboundError>>,
    ) -> Result<T, OutboundError> {
        let work = async {
            // The semaphore is never closed.
            let _permit = self.in_flight.acquire().await;
            work.await
        };
        tokio::time::timeout(time, work).await.unwrap_or(Err(OutboundError::TimedOut(time)))
    }

    async fn follow(&self, mut url: Url, trust: Trust, limits: Limits) -> Result<Response<Bytes>, OutboundError> {
        for _ in 0..=limits.redirects {
            let response = self.fetch(&url, trust, limits.body_bytes).await?;
            let Some(next) = redirect(&url, &response)? else {
                return Ok(response);
            };
            url = next;
        }
        Err(OutboundError::TooManyRedirects(limits.redirects))
    }

    /// Fetches one URL, without redirects.
    async fn fetch(&self, url: &Url, trust: Trust, body_bytes: usize) -> Result<Response<Bytes>, OutboundError> {
        let host = match url.host().ok_or(OutboundError::BadUrl)? {
            // The parser has also converted spellings such as `0x7f.1` and `2130706433` to addresses.
            url::Host::Ipv4(ip) => Host::Ip(ip.into()),
            url::Host::Ipv6(ip) => Host::Ip(ip.into()),
            url::Host::Domain(name) => Host::Name(name.to_owned()),
        };
        let port = url.port_or_known_default().ok_or(OutboundError::BadUrl)?;
        let tls = match url.scheme() {
            "https" => Some((&host, trust)),
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
        self.connect(&host, port, tls).await?.exchange(request, body_bytes).await
    }

    async fn connect(
        &self,
        host: &Host,
        port: u16,
        tls: Option<(&Host, Trust)>,
    ) -> Result<connect::Connection, OutboundError> {
        let addresses = self.addresses(host, port).await?;
        let tls = tls.map(|(certificate, trust)| (certificate, self.trust.connector(trust)));
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

/// Adds our name to every request.
fn add_user_agent(headers: &mut HeaderMap) {
    let user_agent = HeaderValue::from_static(concat!("Sabha/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(user_agent);
}

#[cfg(test)]
mod tests;
