//! Requests to elsewhere: the one client through which this server asks anybody anything over HTTP.
//!
//! Promise: no connection is ever made to an address that the configuration denies, on no redirect, for no DNS answer and
//! for no way of writing an address. A host is looked up, its addresses are checked, and the connection is made to one of
//! exactly these ([`guard`]); nothing is looked up again in between. Every request has an end: in time, in bytes, in
//! redirects ([`Limits`]). Proxies of the environment are not used, nothing is decompressed, and a connection is not kept.
//!
//! Reading order: [`guard`] decides about addresses, [`resolve`] asks DNS, [`connect`] is one connection and one exchange on
//! it. Who uses it: [`crate::federation`].

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

/// Requests under way at a time, so that slow servers cannot take all our sockets. More wait, within their time.
const MAX_IN_FLIGHT: usize = 512;

/// Addresses of a host that are tried. A name with more is a list to keep us busy with.
const MAX_ADDRESSES: usize = 4;

/// How large one request may become.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For everything: looking up, connecting, redirects, the answer's last byte.
    pub time: Duration,
    /// The answer's body.
    pub body_bytes: usize,
    /// How many redirects are followed; each leads through the same checks.
    pub redirects: usize,
}

/// Why there is no answer.
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

/// The client. Built once.
pub struct Outbound {
    guard: Guard,
    hosts: config::Hosts,
    resolver: Arc<dyn Resolve>,
    trust: TrustStores,
    in_flight: Semaphore,
}

impl Outbound {
    /// The client of this configuration, which asks the system's DNS servers.
    ///
    /// # Errors
    /// A file of certificate authorities that cannot be used.
    pub fn new(config: &config::Outbound, ca_files: &[PathBuf]) -> Result<Self, SetupError> {
        Self::with_resolver(config, ca_files, Arc::new(resolve::SystemDns::new()))
    }

    /// The same with another way to look names up.
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

    /// Fetches `url`, following redirects. `https` never leads to plain `http`.
    ///
    /// # Errors
    /// See [`OutboundError`]. Any status that is no redirect is an answer.
    pub async fn get(&self, url: &Url, trust: Trust, limits: Limits) -> Result<Response<Bytes>, OutboundError> {
        self.within(limits.time, self.follow(url.clone(), trust, limits)).await
    }

    /// Sends a request to another server over TLS. No redirect is followed: the signature is for that server alone.
    /// Connecting is tried at each target in turn; what was sent is not sent again.
    ///
    /// # Errors
    /// See [`OutboundError`]. Any status is an answer.
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

    /// The service records of a name. A host of the static map has none: the map stands for DNS.
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

    /// One hop.
    async fn fetch(&self, url: &Url, trust: Trust, body_bytes: usize) -> Result<Response<Bytes>, OutboundError> {
        let host = match url.host().ok_or(OutboundError::BadUrl)? {
            // The parser has made addresses of `0x7f.1` and `2130706433` too.
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

    /// Where to connect to: looked up, and checked, here and nowhere else.
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

/// Where an answer sends us, if it does.
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

/// Who we are, in every request.
fn add_user_agent(headers: &mut HeaderMap) {
    let user_agent = HeaderValue::from_static(concat!("Sabha/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(user_agent);
}

#[cfg(test)]
mod tests;
