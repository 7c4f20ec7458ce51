//! The client's address of a request behind a reverse proxy.
//!
//! Promise: only the headers of a proxy that the listener trusts are used; every other client has the address of its
//! socket, whatever headers it sends.

use std::net::IpAddr;

use axum::{extract::Request, http::HeaderMap};

use crate::{config::Listener, http::ClientAddress};

const HEADER: &str = "x-forwarded-for";

/// Returns the request with the client's address instead of the proxy's.
pub(super) fn believe(listener: &Listener, mut request: Request) -> Request {
    if let Some(ClientAddress(peer)) = request.extensions().get().copied() {
        let origin = origin(listener, peer, request.headers());
        request.extensions_mut().insert(ClientAddress(origin));
    }
    request
}

/// Walks back from the peer: the first address that is not a trusted proxy's is the client's.
fn origin(listener: &Listener, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
    let mut address = peer;
    let mut hops: Vec<&str> = headers
        .get_all(HEADER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    while listener.trusts(address) {
        // An invalid address was written by the client, so the hop after it is the last one that we know.
        let Some(hop) = hops.pop().and_then(|hop| hop.parse::<IpAddr>().ok()) else {
            break;
        };
        address = Some(hop.to_canonical());
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(proxies: &[&str], peer: Option<&str>, header: &str, expected: Option<&str>) {
        let trusted_proxies = proxies.iter().map(|range| range.parse().expect("a range")).collect();
        let listener = Listener { trusted_proxies, ..Listener::default() };
        let headers = HeaderMap::from_iter([(HEADER.parse().expect("a name"), header.parse().expect("a value"))]);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(origin(&listener, peer.map(address), &headers), expected.map(address), "{header}");
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxy = ["10.0.0.0/8"];
        check(&[], Some("192.0.2.1"), "198.51.100.7", Some("192.0.2.1"));
        check(&proxy, Some("192.0.2.1"), "198.51.100.7", Some("192.0.2.1"));
        check(&proxy, Some("10.0.0.1"), "198.51.100.7", Some("198.51.100.7"));
        check(&proxy, Some("10.0.0.1"), "203.0.113.9, 198.51.100.7", Some("198.51.100.7"));
        check(&proxy, Some("10.0.0.1"), "203.0.113.9, 198.51.100.7, 10.0.0.2", Some("198.51.100.7"));
        check(&proxy, Some("10.0.0.1"), "::ffff:198.51.100.7", Some("198.51.100.7"));
        check(&proxy, Some("10.0.0.1"), "nonsense", Some("10.0.0.1"));
        check(&proxy, Some("10.0.0.1"), "203.0.113.9, nonsense, 10.0.0.2", Some("10.0.0.2"));
    }

    #[test]
    fn whoever_may_open_a_unix_socket_is_believed() {
        check(&[], None, "198.51.100.7", Some("198.51.100.7"));
        check(&[], None, "nonsense", None);
    }
}
