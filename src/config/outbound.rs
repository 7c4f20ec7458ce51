//! `[outbound]`: the addresses that our own requests may connect to.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::keys::{leaf, section};
use super::values::IpRange;

section! {
    /// Requests that this server makes on behalf of others: to other servers, and to addresses that they name.
    /// Outsiders choose these addresses, so addresses that only this server can reach must be denied.
    pub struct Outbound {
        /// Addresses and ranges that are never connected to, also after a redirect or a DNS answer. An IPv6 address
        /// that stands for an IPv4 address (mapped, NAT64, 6to4) is also checked as that address. A list here replaces
        /// the default, which is every range that is not on the public internet.
        pub deny: Vec<IpRange> = not_public(),
        /// Exceptions: addresses and ranges that may be connected to although `deny` has them.
        pub allow: Vec<IpRange> = Vec::new(),
        /// Addresses of hosts that are not looked up in DNS, by name: `{ "matrix.example.com" = "203.0.113.7" }`. With
        /// a port (`"203.0.113.7:8448"`), every connection to that host goes there. `deny` and `allow` apply here too.
        pub hosts: Hosts = Hosts::default(),
    }
}

/// Ranges that are not on the public internet, by the registries of special-purpose addresses (RFC 6890 and later).
const NOT_PUBLIC: [&str; 31] = [
    // This network, private, shared (CGNAT), loopback, link-local.
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    // Protocol assignments, documentation, 6to4 relays, benchmarks.
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    // Multicast, reserved, broadcast.
    "224.0.0.0/4",
    "240.0.0.0/4",
    // Unspecified, loopback, IPv4-compatible.
    "::/96",
    // Translation to IPv4, global and local; discard-only.
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    // Protocol assignments with Teredo and ORCHID, documentation, 6to4.
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    // Segment routing.
    "5f00::/16",
    // Unique local, link-local, site-local (withdrawn, still routed), multicast.
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    // Translation between stacks (SIIT), and NSAP addresses (withdrawn, used by overlay networks).
    "::ffff:0:0:0/96",
    "200::/7",
];

fn not_public() -> Vec<IpRange> {
    NOT_PUBLIC.iter().map(|range| range.parse().expect("a test reads each of them")).collect()
}

/// The static host map: addresses by host name, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, HostAddress>", into = "BTreeMap<String, HostAddress>")]
pub struct Hosts(BTreeMap<String, HostAddress>);

impl Hosts {
    /// The address of this host in the map, if it has one.
    pub fn find(&self, host: &str) -> Option<HostAddress> {
        self.0.get(&host.to_ascii_lowercase()).copied()
    }

    /// Adds a host, or changes its address.
    pub fn insert(&mut self, host: &str, address: HostAddress) {
        self.0.insert(host.to_ascii_lowercase(), address);
    }
}

impl TryFrom<BTreeMap<String, HostAddress>> for Hosts {
    type Error = String;

    fn try_from(map: BTreeMap<String, HostAddress>) -> Result<Self, String> {
        let mut hosts = Self::default();
        for (host, address) in map {
            let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            if !is_name || host.parse::<IpAddr>().is_ok() {
                return Err(format!("`{host}` is not a host name; write one without https:// and without a port"));
            }
            hosts.insert(&host, address);
        }
        Ok(hosts)
    }
}

impl From<Hosts> for BTreeMap<String, HostAddress> {
    fn from(hosts: Hosts) -> Self {
        hosts.0
    }
}

/// An IP address with an optional port: `"203.0.113.7"`, `"[2001:db8::1]:8448"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostAddress {
    pub ip: IpAddr,
    pub port: Option<u16>,
}

impl HostAddress {
    /// The address to connect to for `port`.
    pub fn at(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(port))
    }
}

impl From<SocketAddr> for HostAddress {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: Some(address.port()) }
    }
}

impl FromStr for HostAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self { ip, port: None });
        }
        let address: SocketAddr =
            text.parse().map_err(|_| format!("`{text}` is not an IP address, with or without a port"))?;
        if address.port() == 0 { Err("port 0 is no port".to_owned()) } else { Ok(address.into()) }
    }
}

impl TryFrom<String> for HostAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> Self {
        address.to_string()
    }
}

leaf! {
    Hosts: "a map of host names to IP addresses", "{ \"name\" = \"address\" }, such as { \"matrix.example.com\" = \"203.0.113.7\" }";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_range_is_one() {
        assert_eq!(not_public().len(), NOT_PUBLIC.len());
    }

    #[test]
    fn a_host_is_found_in_any_case_and_its_port_wins() {
        let map = "a = { \"B.Test\" = '192.0.2.1', 'c.test' = '[2001:db8::1]:8449' }";
        let table: toml::Table = map.parse().expect("TOML");
        let hosts: Hosts = table["a"].clone().try_into().expect("a host map");
        assert_eq!(hosts.find("b.tesT").map(|host| host.at(8448).to_string()).as_deref(), Some("192.0.2.1:8448"));
        assert_eq!(hosts.find("c.test").map(|host| host.at(8448).to_string()).as_deref(), Some("[2001:db8::1]:8449"));
        assert_eq!(hosts.find("d.test"), None);
    }

    #[test]
    fn what_is_no_host_or_no_address_is_refused() {
        for bad in [
            "'https://x' = '192.0.2.1'",
            "'x:8448' = '192.0.2.1'",
            "'' = '192.0.2.1'",
            "'192.0.2.1' = '192.0.2.2'",
            "x = 'y'",
            "x = '192.0.2.1:0'",
            "x = 7",
        ] {
            let table: toml::Table = format!("a = {{ {bad} }}").parse().expect("TOML");
            assert!(Hosts::deserialize(table["a"].clone()).is_err(), "{bad}");
        }
    }
}
