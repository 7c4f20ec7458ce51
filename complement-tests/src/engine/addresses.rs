//! Addresses: every container has its own in 127.77.0.0/16, and two published ports on 127.0.0.1.
//!
//! All of 127.0.0.0/8 is this machine. The containers of a deployment share a segment, `127.77.SEGMENT.0/24`, in which
//! `hsN` has the number N. So several `hs1` can run at once, and each sees only the servers of its own deployment.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
};

/// Below the kernel's range of ephemeral ports, so that nobody takes a port of ours between a stop and a start.
const FIRST_PORT: u16 = 20_000;
const END_OF_PORTS: u16 = 32_000;
/// Number of server names that every container can resolve: `hs1` to `hs9`.
const SERVERS: u8 = 9;

#[derive(Debug, Default)]
pub struct Segments {
    /// The group of each segment, and its number of containers.
    taken: BTreeMap<u8, (String, usize)>,
}

impl Segments {
    /// Returns the segment of this group, or a new one for a new group. `None` when all are taken.
    pub fn enter(&mut self, group: &str) -> Option<u8> {
        if let Some((&segment, (_, members))) = self.taken.iter_mut().find(|(_, (owner, _))| owner == group) {
            *members += 1;
            return Some(segment);
        }
        let segment = (1..=254).find(|segment| !self.taken.contains_key(segment))?;
        self.taken.insert(segment, (group.to_owned(), 1));
        Some(segment)
    }

    pub fn leave(&mut self, segment: u8) {
        if let Some((_, members)) = self.taken.get_mut(&segment) {
            *members -= 1;
            if *members == 0 {
                self.taken.remove(&segment);
            }
        }
    }
}

/// Returns the address of a server in a segment. `None` for a name that is not `hs1` to `hs9`.
pub fn address(segment: u8, alias: &str) -> Option<Ipv4Addr> {
    let number: u8 = alias.strip_prefix("hs")?.parse().ok()?;
    (1..=SERVERS).contains(&number).then(|| Ipv4Addr::new(127, 77, segment, number))
}

/// Lists the hosts that a segment sees: its servers, and the machine that runs the tests.
pub fn hosts(segment: u8) -> Vec<(String, Ipv4Addr)> {
    let servers = (1..=SERVERS).map(|number| (format!("hs{number}"), Ipv4Addr::new(127, 77, segment, number)));
    servers.chain([("host.docker.internal".to_owned(), Ipv4Addr::LOCALHOST)]).collect()
}

#[derive(Debug)]
pub struct Ports {
    next: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { next: FIRST_PORT }
    }
}

impl Ports {
    /// Returns a port of 127.0.0.1 that nobody listens on and that no other container got lately.
    pub fn take(&mut self) -> Option<u16> {
        for _ in FIRST_PORT..END_OF_PORTS {
            let port = self.next;
            self.next = if port + 1 < END_OF_PORTS { port + 1 } else { FIRST_PORT };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some(port);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_keeps_its_segment_while_it_has_containers() {
        let mut segments = Segments::default();
        assert_eq!(segments.enter("a"), Some(1));
        assert_eq!(segments.enter("b"), Some(2));
        assert_eq!(segments.enter("a"), Some(1));
        segments.leave(1);
        assert_eq!(segments.enter("c"), Some(3), "one container of `a` is left");
        segments.leave(1);
        assert_eq!(segments.enter("d"), Some(1));
    }

    #[test]
    fn every_address_is_loopback() {
        for (name, address) in hosts(254) {
            assert!(address.is_loopback(), "{name}");
        }
        assert_eq!(address(3, "hs2"), Some(Ipv4Addr::new(127, 77, 3, 2)));
        for alias in ["hs0", "hs10", "hs", "web", "hs-1", "hs256"] {
            assert_eq!(address(3, alias), None, "{alias}");
        }
    }
}
