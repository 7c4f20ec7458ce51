//! The network that an address belongs to, which counts as one client.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the network of an address. An IPv6 customer has a whole /64, which counts as one client; each IPv4 address
/// is one by itself.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        },
    }
}

/// The site of an address: a /48 with many networks, as a larger IPv6 customer has. `None` for IPv4, where only the
/// address is known.
pub fn site(address: IpAddr) -> Option<IpAddr> {
    match network(address) {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 48)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_an_ipv4_address_or_an_ipv6_customer() {
        let check = |address: &str, expected: &str| {
            let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
            assert_eq!(network(parse(address)), parse(expected), "{address}");
        };
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("2001:db8:1:3:3:4:5:6", "2001:db8:1:3::");
    }

    #[test]
    fn a_site_has_many_ipv6_networks() {
        let check = |address: &str, expected: Option<&str>| {
            let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
            assert_eq!(site(parse(address)), expected.map(parse), "{address}");
        };
        check("192.0.2.7", None);
        check("::ffff:192.0.2.7", None);
        check("2001:db8:1:2:3:4:5:6", Some("2001:db8:1::"));
    }
}
