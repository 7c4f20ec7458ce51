//! Looking up names: with the system's DNS servers (`/etc/resolv.conf`) and hosts file. Does not use the system's
//! blocking resolver, in which a slow name would block one of few threads.
//!
//! Names are absolute, so a server name never means a host in our search domain.

use std::{net::IpAddr, pin::Pin, time::Duration};

use hickory_resolver::{TokioResolver, config::LookupIpStrategy, net::NetError, proto::rr::RData};
use sabha_federation::Service;
use tracing::warn;

/// The timeout of one query to one DNS server, and the number of retries. A name that takes longer is not found.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
const REPEATS: usize = 1;

/// Maximum number of cached answers, and the longest time for which an answer is cached.
const CACHED_ANSWERS: u64 = 4096;
const MAX_TTL: Duration = Duration::from_secs(3600);

/// Why a name was not found.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("this is not a name that DNS could know")]
    BadName,
    #[error("DNS knows no such name")]
    Unknown,
    #[error("DNS did not answer: {0}")]
    Failed(String),
}

/// The future of a lookup.
pub type Lookup<'a, T> = Pin<Box<dyn Future<Output = Result<Vec<T>, ResolveError>> + Send + 'a>>;

/// A resolver of names. Its answers are not trusted: the client checks every address before it connects.
pub trait Resolve: Send + Sync {
    /// Looks up the addresses of a host, IPv4 and IPv6.
    fn addresses<'a>(&'a self, host: &'a str) -> Lookup<'a, IpAddr>;

    /// Looks up the service records of a name. An empty list is also an answer.
    fn services<'a>(&'a self, name: &'a str) -> Lookup<'a, Service>;
}

/// A resolver that uses the system's DNS servers.
pub struct SystemDns {
    /// The resolver, or the reason why there is none.
    resolver: Result<TokioResolver, String>,
}

impl SystemDns {
    pub fn new() -> Self {
        let resolver = build().map_err(|error| error.to_string());
        if let Err(error) = &resolver {
            warn!(%error, "no DNS: other servers are only found by address, or by outbound.hosts");
        }
        Self { resolver }
    }

    fn resolver(&self) -> Result<&TokioResolver, ResolveError> {
        self.resolver.as_ref().map_err(|error| ResolveError::Failed(error.clone()))
    }
}

impl Default for SystemDns {
    fn default() -> Self {
        Self::new()
    }
}

fn build() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.timeout = QUESTION_TIMEOUT;
    options.attempts = REPEATS;
    options.cache_size = CACHED_ANSWERS;
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(MAX_TTL);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

/// An absolute name, with its final dot.
fn absolute(name: &str) -> Result<String, ResolveError> {
    if name.is_empty() || name.ends_with('.') || name.parse::<IpAddr>().is_ok() {
        return Err(ResolveError::BadName);
    }
    Ok(format!("{name}."))
}

fn explain(error: &NetError) -> ResolveError {
    if error.is_no_records_found() { ResolveError::Unknown } else { ResolveError::Failed(error.to_string()) }
}

impl Resolve for SystemDns {
    fn addresses<'a>(&'a self, host: &'a str) -> Lookup<'a, IpAddr> {
        Box::pin(async move {
            let found = self.resolver()?.lookup_ip(absolute(host)?).await.map_err(|error| explain(&error))?;
            Ok(found.iter().collect())
        })
    }

    fn services<'a>(&'a self, name: &'a str) -> Lookup<'a, Service> {
        Box::pin(async move {
            let found = match self.resolver()?.srv_lookup(absolute(name)?).await {
                Ok(found) => found,
                Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
                Err(error) => return Err(explain(&error)),
            };
            let services = found.answers().iter().filter_map(|record| match &record.data {
                RData::SRV(record) => Some(Service {
                    priority: record.priority,
                    weight: record.weight,
                    port: record.port,
                    target: record.target.to_ascii().trim_end_matches('.').to_owned(),
                }),
                _ => None,
            });
            Ok(services.collect())
        })
    }
}
