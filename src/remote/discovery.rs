//! Server discovery: the specification's steps ([`sabha_federation::discovery`]) on the real network, with a cache.
//!
//! A delegation is cached for the time that it says, a day if it says none, and two days at most. The lack of a
//! delegation is cached for an hour if the host answered, and for a minute if it was not reached. Each further failure
//! doubles that time, up to an hour. The resolver caches DNS answers.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode, header::CACHE_CONTROL};
use ruma::{OwnedServerName, ServerName};
use sabha_federation::{Network, Route, Service, find_route};
use serde::Deserialize;
use tracing::debug;
use url::Url;

use crate::{
    clock::Clock,
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    outbound::{Limits, Outbound, Trust},
    report::Report,
};

/// Limits of fetching a delegation, which is one line.
const WELL_KNOWN_LIMITS: Limits = Limits { time: Duration::from_secs(5), body_bytes: 64 * 1024, redirects: 5 };

/// Approximate memory of a cached delegation, or of the lack of one, with both names: a host's name has at most 255 bytes,
/// and most have 20.
const DELEGATION_BYTES: u64 = 300;

/// The time for which a delegation is cached: the default, the minimum and the maximum.
const DEFAULT_AGE: Duration = Duration::from_secs(24 * 3600);
const MIN_AGE: Duration = Duration::from_secs(5 * 60);
const MAX_AGE: Duration = Duration::from_secs(48 * 3600);

/// The time for which the lack of a delegation is cached.
const NONE_AGE: Duration = Duration::from_secs(3600);

/// The time for which an unreachable host is cached: after the first failure, and at most.
const UNREACHED_AGE: Duration = Duration::from_secs(60);
const UNREACHED_MAX_AGE: Duration = Duration::from_secs(3600);

/// Finds the addresses of servers.
pub struct Discovery {
    outbound: Arc<Outbound>,
    clock: Clock,
    delegations: Arc<ByteCache<String, Delegation>>,
}

/// The cached delegation of a host.
#[derive(Debug, Clone)]
struct Delegation {
    to: Option<OwnedServerName>,
    until_ms: i64,
    /// The time for which this is cached, if the host was not reached.
    unreached: Option<Duration>,
}

impl HasBytes for Delegation {
    fn bytes(&self) -> u64 {
        DELEGATION_BYTES
    }
}

impl Discovery {
    pub fn new(outbound: Arc<Outbound>, clock: Clock, budget: &Budget) -> Self {
        Self { outbound, clock, delegations: budget.cache(Part::Delegations) }
    }

    /// Finds the way to a server. Only a connection shows whether it is reachable.
    pub async fn route(&self, server_name: &ServerName) -> Route {
        find_route(server_name, self).await
    }

    async fn fetch(&self, host: &str, before: Option<Duration>) -> Delegation {
        let (to, age, unreached) = match self.ask(host).await {
            Ok(Some((to, age))) => (Some(to), age, None),
            Ok(None) => (None, NONE_AGE, None),
            Err(()) => {
                let age = before.map_or(UNREACHED_AGE, |before| (before * 2).min(UNREACHED_MAX_AGE));
                (None, age, Some(age))
            }
        };
        let until_ms = self.clock.now_ms().saturating_add(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        Delegation { to, until_ms, unreached }
    }

    /// Asks a host for its delegation. `Ok(None)` means that it answered without one, and `Err` that it was not
    /// reached.
    async fn ask(&self, host: &str) -> Result<Option<(OwnedServerName, Duration)>, ()> {
        let Ok(url) = Url::parse(&format!("https://{host}/.well-known/matrix/server")) else {
            return Ok(None);
        };
        let response = self.outbound.get(&url, Trust::Federation, WELL_KNOWN_LIMITS).await.map_err(|error| {
            debug!(host, error = %Report(&error), "no delegation was fetched");
        })?;
        if response.status().is_server_error() {
            return Err(());
        }
        let delegated = (response.status() == StatusCode::OK).then(|| parse(response.body())).flatten();
        Ok(delegated.map(|to| (to, age(response.headers()))))
    }
}

impl Network for Discovery {
    async fn well_known(&self, host: &str) -> Option<OwnedServerName> {
        let host = host.to_ascii_lowercase();
        let before = self.delegations.get(&host);
        if let Some(known) = before.as_ref().filter(|known| self.clock.now_ms() < known.until_ms) {
            return known.to.clone();
        }
        let fetched = self.fetch(&host, before.and_then(|before| before.unreached)).await;
        self.delegations.insert(host, fetched.clone());
        fetched.to
    }

    async fn services(&self, name: &str) -> Vec<Service> {
        // The name has the form `_matrix-fed._tcp.HOST`.
        let host = name.splitn(3, '.').nth(2).unwrap_or(name);
        self.outbound.services(name, host).await.unwrap_or_else(|error| {
            debug!(name, error = %Report(&error), "no service records were found");
            Vec::new()
        })
    }
}

fn parse(body: &[u8]) -> Option<OwnedServerName> {
    #[derive(Deserialize)]
    struct WellKnown {
        #[serde(rename = "m.server")]
        server: OwnedServerName,
    }
    serde_json::from_slice::<WellKnown>(body).ok().map(|found| found.server)
}

/// The time for which an answer may be cached.
fn age(headers: &HeaderMap) -> Duration {
    let directives = headers.get_all(CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    for directive in directives.flat_map(|value| value.split(',')) {
        let directive = directive.trim().to_ascii_lowercase();
        if directive == "no-store" || directive == "no-cache" {
            return MIN_AGE;
        }
        if let Some(seconds) = directive.strip_prefix("max-age=").and_then(|age| age.trim_matches('"').parse().ok()) {
            return Duration::from_secs(seconds).clamp(MIN_AGE, MAX_AGE);
        }
    }
    DEFAULT_AGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegation_is_kept_as_long_as_it_says_within_bounds() {
        let check = |value: Option<&str>, expected: Duration| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(CACHE_CONTROL, value.parse().unwrap());
            }
            assert_eq!(age(&headers), expected, "{value:?}");
        };
        check(None, DEFAULT_AGE);
        check(Some("public"), DEFAULT_AGE);
        check(Some("public, max-age=7200"), Duration::from_secs(7200));
        check(Some("Max-Age=7200"), Duration::from_secs(7200));
        check(Some("max-age=0"), MIN_AGE);
        check(Some("no-store, max-age=7200"), MIN_AGE);
        check(Some("max-age=99999999"), MAX_AGE);
        check(Some("max-age=never"), DEFAULT_AGE);
    }

    #[test]
    fn only_a_server_name_is_a_delegation() {
        let check = |body: &str, expected: Option<&str>| {
            assert_eq!(parse(body.as_bytes()).as_ref().map(|name| name.as_str()), expected, "{body}");
        };
        check(r#"{"m.server":"matrix.a.test:443"}"#, Some("matrix.a.test:443"));
        check(r#"{"m.server":"matrix.a.test","more":1}"#, Some("matrix.a.test"));
        check(r#"{"m.server":"https://matrix.a.test"}"#, None);
        check(r#"{"m.server":""}"#, None);
        check(r#"{"m.server":7}"#, None);
        check("{}", None);
        check("<html>", None);
    }
}
