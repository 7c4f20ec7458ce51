//! Server discovery: the host and port of a server name, the host that its certificate must name, and the `Host`
//! header. Server-server API, [Resolving server
//! names](https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names).
//!
//! The network is passed in as [`Network`]. The code that connects looks up and checks the addresses.

use std::{cmp::Reverse, net::IpAddr};

use ruma::{OwnedServerName, ServerName};
use serde_json::{Map, Value as JsonValue};

/// The default port of a server, when its name, delegation and service records give no other.
const DEFAULT_PORT: u16 = 8448;

/// The service name of the specification, and the deprecated one.
const SERVICES: [&str; 2] = ["_matrix-fed._tcp", "_matrix._tcp"];

/// Maximum number of a service's hosts to try. A longer list is likely meant to keep us busy.
const MAX_TARGETS: usize = 4;

/// A host, as a certificate can name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Ip(IpAddr),
    Name(String),
}

impl Host {
    /// Reads the host of a server name, where an IPv6 address is in brackets. A text that only resembles an address,
    /// such as `127.1`, is a name.
    pub fn parse(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        bare.parse().map_or_else(|_| Self::Name(text.to_ascii_lowercase()), Self::Ip)
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The way to reach a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The host that the certificate must name.
    pub certificate: Host,
    /// The `Host` header of requests.
    pub host_header: String,
    /// The hosts and ports to connect to, in this order. Never empty.
    pub targets: Vec<(Host, u16)>,
}

/// A service record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The priority. Hosts with the lowest number are tried first.
    pub priority: u16,
    /// The share of requests among records of equal priority.
    pub weight: u16,
    pub port: u16,
    /// A host name without the final dot. Empty if the record says that there is no such service.
    pub target: String,
}

/// The network, as discovery uses it. Its answers do not distinguish a failure from an absence, because the
/// specification continues with its next step in both cases.
pub trait Network {
    /// Fetches the `m.server` of `https://HOST/.well-known/matrix/server`, if there is a valid one.
    fn well_known(&self, host: &str) -> impl Future<Output = Option<OwnedServerName>> + Send;

    /// Looks up the service records of this name, in any order.
    fn services(&self, name: &str) -> impl Future<Output = Vec<Service>> + Send;
}

/// Reads the body of a host's answer at `/.well-known/matrix/server`. `None` if it delegates to no server.
pub fn delegated_to(body: &[u8]) -> Option<OwnedServerName> {
    // Not a struct, for which serde would also take a list.
    let answer: Map<String, JsonValue> = serde_json::from_slice(body).ok()?;
    answer.get("m.server")?.as_str()?.try_into().ok()
}

/// Follows the specification's steps for a server name.
pub async fn find_route(server_name: &ServerName, network: &impl Network) -> Route {
    // Steps 1 and 2: with an address or a port there is nothing to look up.
    if let Some(route) = direct(server_name) {
        return route;
    }
    let host = server_name.host();
    // Step 3: the host delegates.
    if let Some(delegated) = network.well_known(host).await {
        // Steps 3.1 and 3.2. The certificate must name the delegated host.
        return match direct(&delegated) {
            Some(route) => route,
            None => by_service_or_default(delegated.host(), network).await,
        };
    }
    by_service_or_default(host, network).await
}

/// The route of an IP literal, or of a name with a port.
fn direct(server_name: &ServerName) -> Option<Route> {
    let host = Host::parse(server_name.host());
    let port = match (&host, server_name.port()) {
        (_, Some(port)) => port,
        (Host::Ip(_), None) => DEFAULT_PORT,
        (Host::Name(_), None) => return None,
    };
    Some(Route { certificate: host.clone(), host_header: server_name.as_str().to_owned(), targets: vec![(host, port)] })
}

/// Steps 3.3 to 3.5, and 4 to 6: service records give other targets, but the certificate must still name the host.
async fn by_service_or_default(host: &str, network: &impl Network) -> Route {
    let certificate = Host::parse(host);
    let route = |targets| Route { certificate: certificate.clone(), host_header: host.to_owned(), targets };
    for service in SERVICES {
        let targets = in_order(network.services(&format!("{service}.{host}")).await);
        if !targets.is_empty() {
            return route(targets);
        }
    }
    route(vec![(certificate.clone(), DEFAULT_PORT)])
}

/// Sorts by priority, and the largest weight first. The list is for hosts that are down, not for sharing the load.
fn in_order(mut services: Vec<Service>) -> Vec<(Host, u16)> {
    services.retain(|service| !service.target.is_empty() && service.port != 0);
    services.sort_by_key(|service| (service.priority, Reverse(service.weight)));
    services.truncate(MAX_TARGETS);
    services.into_iter().map(|service| (Host::parse(&service.target), service.port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_ready::ready;

    /// A network with a few names, which records all requests.
    struct Fake {
        well_known: &'static [(&'static str, &'static str)],
        services: &'static [(&'static str, u16, u16, u16, &'static str)],
        asked: std::sync::Mutex<Vec<String>>,
    }

    impl Fake {
        fn note(&self, what: String) {
            self.asked.lock().unwrap().push(what);
        }
    }

    impl Network for Fake {
        async fn well_known(&self, host: &str) -> Option<OwnedServerName> {
            self.note(format!("well-known {host}"));
            let (_, server) = self.well_known.iter().find(|(name, _)| *name == host)?;
            Some(ServerName::parse(server).unwrap())
        }

        async fn services(&self, name: &str) -> Vec<Service> {
            self.note(format!("services {name}"));
            let found = self.services.iter().filter(|(service, ..)| *service == name);
            found
                .map(|&(_, priority, weight, port, target)| Service {
                    priority,
                    weight,
                    port,
                    target: target.to_owned(),
                })
                .collect()
        }
    }

    /// Returns `certificate, Host header, targets` for a server name, and the recorded requests.
    fn route(name: &str) -> (String, String) {
        let fake = Fake {
            well_known: &[
                ("to-ip.test", "192.0.2.9"),
                ("to-ip-port.test", "[2001:db8::9]:443"),
                ("to-port.test", "matrix.other.test:443"),
                ("to-name.test", "plain.other.test"),
                ("to-srv.test", "srv.test"),
                ("to-itself.test", "to-itself.test"),
            ],
            services: &[
                ("_matrix-fed._tcp.srv.test", 20, 1, 3, "third.test"),
                ("_matrix-fed._tcp.srv.test", 10, 1, 2, "second.test"),
                ("_matrix-fed._tcp.srv.test", 10, 5, 1, "first.test"),
                ("_matrix._tcp.srv.test", 0, 0, 9, "old.test"),
                ("_matrix._tcp.old.test", 0, 0, 8449, "host.old.test"),
                ("_matrix-fed._tcp.none.test", 0, 0, 0, ""),
                ("_matrix-fed._tcp.many.test", 0, 0, 1, "a.test"),
                ("_matrix-fed._tcp.many.test", 0, 0, 2, "a.test"),
                ("_matrix-fed._tcp.many.test", 0, 0, 3, "a.test"),
                ("_matrix-fed._tcp.many.test", 0, 0, 4, "a.test"),
                ("_matrix-fed._tcp.many.test", 0, 0, 5, "a.test"),
            ],
            asked: Default::default(),
        };
        let route = ready(find_route(&ServerName::parse(name).unwrap(), &fake));
        let targets: Vec<_> = route.targets.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let asked = fake.asked.into_inner().unwrap().join(", ");
        (format!("{}, {}, {}", route.certificate, route.host_header, targets.join(" ")), asked)
    }

    #[test]
    fn each_step_of_the_specification_leads_where_it_says() {
        let check = |name: &str, expected: &str| assert_eq!(route(name).0, expected, "{name}");
        // 1: IP literals.
        check("192.0.2.1", "192.0.2.1, 192.0.2.1, 192.0.2.1:8448");
        check("192.0.2.1:5000", "192.0.2.1, 192.0.2.1:5000, 192.0.2.1:5000");
        check("[2001:db8::1]", "[2001:db8::1], [2001:db8::1], [2001:db8::1]:8448");
        check("[2001:db8::1]:5000", "[2001:db8::1], [2001:db8::1]:5000, [2001:db8::1]:5000");
        // 2: a name with a port.
        check("example.test:5000", "example.test, example.test:5000, example.test:5000");
        check("srv.test:8448", "srv.test, srv.test:8448, srv.test:8448");
        // 3.1: delegated to an IP literal.
        check("to-ip.test", "192.0.2.9, 192.0.2.9, 192.0.2.9:8448");
        check("to-ip-port.test", "[2001:db8::9], [2001:db8::9]:443, [2001:db8::9]:443");
        // 3.2: delegated to a name with a port.
        check("to-port.test", "matrix.other.test, matrix.other.test:443, matrix.other.test:443");
        // 3.3 and 3.5: delegated to a name, with and without service records.
        check("to-srv.test", "srv.test, srv.test, first.test:1 second.test:2 third.test:3");
        check("to-name.test", "plain.other.test, plain.other.test, plain.other.test:8448");
        check("to-itself.test", "to-itself.test, to-itself.test, to-itself.test:8448");
        // 4: service records of the name itself.
        check("srv.test", "srv.test, srv.test, first.test:1 second.test:2 third.test:3");
        // 5: the deprecated service records.
        check("old.test", "old.test, old.test, host.old.test:8449");
        // 6: no delegation and no records.
        check("example.test", "example.test, example.test, example.test:8448");
        // A record for "there is no such service" is no target, and a long list is cut.
        check("none.test", "none.test, none.test, none.test:8448");
        check("many.test", "many.test, many.test, a.test:1 a.test:2 a.test:3 a.test:4");
        // A name that only resembles an address.
        check("127.1:80", "127.1, 127.1:80, 127.1:80");
    }

    #[test]
    fn only_a_server_name_is_a_delegation() {
        let check = |body: &str, expected: Option<&str>| {
            assert_eq!(delegated_to(body.as_bytes()).as_ref().map(|name| name.as_str()), expected, "{body}");
        };
        check(r#"{"m.server":"matrix.a.test:443"}"#, Some("matrix.a.test:443"));
        check(r#"{"m.server":"matrix.a.test","more":1}"#, Some("matrix.a.test"));
        check(r#"{"m.server":"https://matrix.a.test"}"#, None);
        check(r#"{"m.server":""}"#, None);
        check(r#"{"m.server":7}"#, None);
        check("{}", None);
        check("<html>", None);
    }

    #[test]
    fn nothing_more_is_asked_than_the_steps_need() {
        let check = |name: &str, expected: &str| assert_eq!(route(name).1, expected, "{name}");
        check("192.0.2.1", "");
        check("example.test:5000", "");
        check("to-port.test", "well-known to-port.test");
        check("srv.test", "well-known srv.test, services _matrix-fed._tcp.srv.test");
        // One delegation is followed, not a chain of them.
        check(
            "to-itself.test",
            "well-known to-itself.test, services _matrix-fed._tcp.to-itself.test, services _matrix._tcp.to-itself.test",
        );
    }
}
