//! Server discovery: the specification's steps ([`sabha_federation::discovery`]) on the real network, with a cache.
//!
//! A delegation is cached for the time that it says, a day if it says none, and two days at most. The lack of a
//! delegation is cached for an hour if the host answered, and for a minute if it was not reached. Each further failure
//! doubles that time, up to an hour. The resolver caches DNS answers.
//!
//! Promises: at most one request for the delegation of a host runs at a time, for all who wait for it. A delegation is
//! refreshed before its end, by one request while others still use it; if the host is not reached then, it counts until its
//! end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::CACHE_CONTROL};
use ruma::{OwnedServerName, ServerName};
use sabha_federation::{Network, Route, Service, discovery::delegated_to, find_route};
use tracing::debug;
use url::Url;

use crate::{
    account::millis,
    clock::Clock,
    memory::{
        budget::{Budget, Part},
        growing::GrowingCache,
    },
    outbound::{Limits, Outbound, Trust},
    report::Report,
    store::ids::lock,
};

/// Limits of fetching a delegation, which is one line. So nobody waits longer than this for another's request.
const WELL_KNOWN_LIMITS: Limits = Limits { time: Duration::from_secs(5), body_bytes: 64 * 1024, redirects: 5 };

/// Approximate memory of a cached delegation, or of the lack of one, with both names and the locks: a host's name has at most
/// 255 bytes, and most have 20.
const DELEGATION_BYTES: u64 = 300;

/// The time for which a delegation is cached: the default, the minimum and the maximum.
const DEFAULT_AGE: Duration = Duration::from_secs(24 * 3600);
const MIN_AGE: Duration = Duration::from_secs(5 * 60);
const MAX_AGE: Duration = Duration::from_secs(48 * 3600);

/// The part of a delegation's time, at its end, in which it is refreshed: a fifth. Of a day, that leaves hours for a host that
/// is down.
const REFRESHED_PART: u32 = 5;

/// The time for which the lack of a delegation is cached.
const NONE_AGE: Duration = Duration::from_secs(3600);

/// The time for which an unreachable host is cached: after the first failure, and at most.
const UNREACHED_AGE: Duration = Duration::from_secs(60);
const UNREACHED_MAX_AGE: Duration = Duration::from_secs(3600);

/// Finds the addresses of servers.
pub struct Discovery {
    outbound: Arc<Outbound>,
    clock: Clock,
    hosts: Arc<GrowingCache<String, HostSlot>>,
}

/// The entry of one host.
#[derive(Default)]
struct HostSlot {
    /// Locked for a few lines without `.await`.
    known: Mutex<Delegation>,
    /// Held while the host is asked, so that other requests wait for the same answer.
    asking: tokio::sync::Mutex<()>,
}

/// The cached delegation of a host. By default nothing is known, and the host is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Delegation {
    to: Option<OwnedServerName>,
    /// The end of the delegation.
    until_ms: i64,
    /// The time from which the host is asked again.
    ask_again_at_ms: i64,
    /// The pause after the last request, if the host was not reached.
    unreached: Option<Duration>,
}

impl Delegation {
    /// The delegation at this time.
    fn at(&self, now_ms: i64) -> Option<OwnedServerName> {
        self.to.clone().filter(|_| now_ms < self.until_ms)
    }

    /// The knowledge after the host was asked: its delegation with the time for which it counts, `None` if it has none, or
    /// an error if it was not reached.
    fn after(&self, asked: Result<Option<(OwnedServerName, Duration)>, ()>, now_ms: i64) -> Self {
        let later = |time: Duration| now_ms.saturating_add(millis(time));
        match asked {
            Ok(Some((to, age))) => {
                let ask_again_at_ms = later(age - age / REFRESHED_PART);
                Self { to: Some(to), until_ms: later(age), ask_again_at_ms, unreached: None }
            }
            Ok(None) => Self { to: None, until_ms: now_ms, ask_again_at_ms: later(NONE_AGE), unreached: None },
            Err(()) => {
                let pause = self.unreached.map_or(UNREACHED_AGE, |before| (before * 2).min(UNREACHED_MAX_AGE));
                Self { ask_again_at_ms: later(pause), unreached: Some(pause), ..self.clone() }
            }
        }
    }
}

impl Discovery {
    pub fn new(outbound: Arc<Outbound>, clock: Clock, budget: &Budget) -> Self {
        Self { outbound, clock, hosts: budget.growing_cache(Part::Delegations) }
    }

    /// Finds the way to a server. Only a connection shows whether it is reachable.
    pub async fn route(&self, server_name: &ServerName) -> Route {
        find_route(server_name, self).await
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
        let delegated = (response.status() == StatusCode::OK).then(|| delegated_to(response.body())).flatten();
        Ok(delegated.map(|to| (to, age(response.headers()))))
    }
}

impl Network for Discovery {
    async fn well_known(&self, host: &str) -> Option<OwnedServerName> {
        let host = host.to_ascii_lowercase();
        let slot = self.hosts.get_or_default(&host, DELEGATION_BYTES);
        // The known delegation, and whether the host is to be asked.
        let look = || {
            let (known, now_ms) = (lock(&slot.known), self.clock.now_ms());
            (known.at(now_ms), known.ask_again_at_ms <= now_ms)
        };
        let (to, is_due) = look();
        if !is_due {
            return to;
        }
        let _one_at_a_time = match slot.asking.try_lock() {
            Ok(free) => free,
            Err(_) if to.is_some() => return to,
            Err(_) => slot.asking.lock().await,
        };
        // Another request may have asked meanwhile.
        let (to, is_due) = look();
        if !is_due {
            return to;
        }
        let asked = self.ask(&host).await;
        let mut known = lock(&slot.known);
        let now_ms = self.clock.now_ms();
        *known = known.after(asked, now_ms);
        known.at(now_ms)
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
    fn a_host_that_is_not_reached_keeps_its_delegation_until_the_end() {
        let hour = millis(Duration::from_secs(3600));
        let minute = hour / 60;
        let to = |name: &str| Some(ServerName::parse(name).unwrap());
        let told = |name: &str| Ok(to(name).map(|name| (name, Duration::from_secs(10 * 3600))));
        let known = Delegation::default().after(told("a.test"), 0);
        assert_eq!((known.until_ms, known.ask_again_at_ms), (10 * hour, 8 * hour));

        // Pauses between further requests grow, also past the end.
        let mut unreached = known.clone();
        let mut now_ms = known.ask_again_at_ms;
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            unreached = unreached.after(Err(()), now_ms);
            assert_eq!((unreached.until_ms, unreached.ask_again_at_ms), (10 * hour, now_ms + pause * minute));
            now_ms = unreached.ask_again_at_ms;
        }
        assert_eq!(unreached.at(10 * hour - 1), to("a.test"));
        assert_eq!(unreached.at(10 * hour), None);

        // An answer counts at once, also the answer that there is none.
        assert_eq!(unreached.after(told("b.test"), now_ms).at(now_ms), to("b.test"));
        assert_eq!(unreached.after(told("b.test"), now_ms).unreached, None);
        let none = known.after(Ok(None), 8 * hour);
        assert_eq!((none.at(8 * hour), none.ask_again_at_ms), (None, 9 * hour));
        // Without a delegation before, there is none, and the host is asked again soon.
        let never = Delegation::default().after(Err(()), 0);
        assert_eq!((never.at(0), never.ask_again_at_ms), (None, minute));
    }
}
