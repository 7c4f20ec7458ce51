//! The check of addresses before a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{self, IpRange};

/// The deny list and its exceptions.
#[derive(Debug, Clone)]
pub struct Guard {
    deny: Vec<IpRange>,
    allow: Vec<IpRange>,
}

impl Guard {
    pub fn new(config: &config::Outbound) -> Self {
        Self { deny: config.deny.clone(), allow: config.allow.clone() }
    }

    /// Returns whether a connection to this address is permitted. An IPv6 address that leads to an IPv4 address must be
    /// permitted as both: an exception for a NAT64 prefix does not open the private IPv4 networks behind it.
    pub fn permits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let behind = match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => reached_through(ip),
        };
        self.permits_itself(ip) && behind.is_none_or(|ip| self.permits_itself(ip.into()))
    }

    fn permits_itself(&self, ip: IpAddr) -> bool {
        let is_in = |ranges: &[IpRange]| ranges.iter().any(|range| range.contains(ip));
        is_in(&self.allow) || !is_in(&self.deny)
    }
}

/// The IPv4 address to which a translator or tunnel forwards packets for this address.
fn reached_through(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        // NAT64, RFC 6052.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        // 6to4, RFC 3056.
        [0x2002, high, low, ..] => Some(v4(high, low)),
        // IPv4-compatible and SIIT, RFC 4291 and 2765. `::` and `::1` are not among them.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &[&str]) -> Guard {
        let allow = allow.iter().map(|range| range.parse().unwrap()).collect();
        Guard::new(&config::Outbound { allow, ..config::Outbound::default() })
    }

    #[test]
    fn by_default_only_the_public_internet_is_permitted() {
        let guard = guard(&[]);
        let check = |address: &str, expected: bool| {
            assert_eq!(guard.permits(address.parse().unwrap()), expected, "{address}");
        };
        for denied in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.1.2.3",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "200::1",
        ] {
            check(denied, false);
        }
        for permitted in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            check(permitted, true);
        }
    }

    #[test]
    fn exceptions_win_for_what_they_name() {
        let loopback = guard(&["127.0.0.1"]);
        assert!(loopback.permits("127.0.0.1".parse().unwrap()));
        assert!(loopback.permits("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!loopback.permits("127.0.0.2".parse().unwrap()));
        assert!(!loopback.permits("::1".parse().unwrap()));
        // An address behind a translator stays denied.
        assert!(!loopback.permits("64:ff9b::127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn an_exception_for_a_translator_opens_only_public_addresses_behind_it() {
        let nat64 = guard(&["64:ff9b::/96"]);
        assert!(nat64.permits("64:ff9b::8.8.8.8".parse().unwrap()));
        for denied in ["64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254"] {
            assert!(!nat64.permits(denied.parse().unwrap()), "{denied}");
        }
    }

    #[test]
    fn an_empty_list_denies_nothing() {
        let open = Guard::new(&config::Outbound { deny: Vec::new(), ..config::Outbound::default() });
        assert!(open.permits("127.0.0.1".parse().unwrap()) && open.permits("::1".parse().unwrap()));
    }
}
