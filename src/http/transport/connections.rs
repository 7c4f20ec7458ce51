//! Connection counts per network, so that neither one address nor a few addresses can take all connections.
//!
//! Once most connections are open, a network that has several gets no more, which leaves room for networks with few.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use crate::{
    http::accept::MAX_CONNECTIONS,
    network::{network, site},
    store::ids::lock,
};

/// The number of open connections that counts as a crowd: three quarters of a listener's maximum.
const CROWD: usize = MAX_CONNECTIONS / 4 * 3;

/// The maximum number of connections of one network in a crowd: the devices of a large household, each with a few
/// connections.
const IN_CROWD: u32 = 64;

/// The limit of a site, in multiples of a network's limit. A provider gives a customer either a site or a network.
const SITE_NETWORKS: u32 = 4;

/// The open connections of each network.
#[derive(Debug)]
pub struct Connections {
    per_network: u32,
    crowd: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    networks: HashMap<IpAddr, u32>,
    sites: HashMap<IpAddr, u32>,
}

/// A counted connection. It counts until this is dropped.
#[derive(Debug)]
pub(in crate::http) struct Connected {
    connections: Arc<Connections>,
    address: Option<IpAddr>,
}

impl Connections {
    #[must_use]
    pub fn new(per_network: u32) -> Self {
        Self { per_network, crowd: CROWD, open: Mutex::default() }
    }

    /// Counts a connection. One without an address always has room.
    pub(super) fn connect(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Connected> {
        let mut open = lock(&self.open);
        if let Some(address) = address {
            let most = if open.all >= self.crowd { self.per_network.min(IN_CROWD) } else { self.per_network };
            let site_most = most.saturating_mul(SITE_NETWORKS);
            let count = |counts: &HashMap<IpAddr, u32>, of: IpAddr| counts.get(&of).copied().unwrap_or_default();
            if count(&open.networks, network(address)) >= most
                || site(address).is_some_and(|site| count(&open.sites, site) >= site_most)
            {
                return None;
            }
            *open.networks.entry(network(address)).or_default() += 1;
            if let Some(site) = site(address) {
                *open.sites.entry(site).or_default() += 1;
            }
        }
        open.all += 1;
        Some(Connected { connections: Arc::clone(self), address })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut open = lock(&self.connections.open);
        open.all -= 1;
        let Some(address) = self.address else { return };
        end_one(&mut open.networks, network(address));
        if let Some(site) = site(address) {
            end_one(&mut open.sites, site);
        }
    }
}

fn end_one(counts: &mut HashMap<IpAddr, u32>, of: IpAddr) {
    if let Entry::Occupied(mut count) = counts.entry(of) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_own_count_and_gets_back_what_it_closes() {
        let connections = Arc::new(Connections::new(2));
        let connect = |address: &str| connections.connect(Some(address.parse().expect("an address")));
        let first = connect("2001:db8::1").expect("there is room");
        let _second = connect("2001:db8::2").expect("there is room");
        assert!(connect("2001:db8::3").is_none(), "the three are one customer");
        assert!(connect("2001:db8:0:1::1").is_some(), "this is another one");
        drop(first);
        let _third = connect("2001:db8::3").expect("there is room again");
        assert!(connections.connect(None).is_some(), "a unix socket has no address");
        assert_eq!(lock(&connections.open).networks.len(), 1, "a network without connections is forgotten");
    }

    #[test]
    fn a_few_addresses_do_not_take_all_that_there_are() {
        let connections = Arc::new(Connections { crowd: 1_000, ..Connections::new(500) });
        let connect = |address: &str| connections.connect(Some(address.parse().expect("an address")));
        let of_one = |address: &str, most: usize| -> Vec<_> { (0..most).map_while(|_| connect(address)).collect() };
        let (first, second) = (of_one("192.0.2.1", 900), of_one("192.0.2.2", 900));
        assert_eq!((first.len(), second.len()), (500, 500));
        let third = of_one("192.0.2.3", 900);
        assert_eq!(third.len(), IN_CROWD as usize, "a newcomer has a few");
        drop(second);
        assert!(connect("192.0.2.1").is_none(), "it has as many as one may");
        assert_eq!(of_one("192.0.2.3", 900).len(), 500 - third.len(), "there is no crowd any more");
        drop((first, third));
        assert_eq!(lock(&connections.open).all, 0);
    }

    #[test]
    fn the_networks_of_a_site_are_bounded_together() {
        let connections = Arc::new(Connections::new(2));
        let connect = |network: u32, host: u32| {
            let address = format!("2001:db8:1:{network:x}::{host:x}").parse().expect("an address");
            connections.connect(Some(address))
        };
        let open: Vec<_> = (0..20).flat_map(|network| [connect(network, 1), connect(network, 2)]).flatten().collect();
        assert_eq!(open.len(), 2 * SITE_NETWORKS as usize);
        assert!(connections.connect(Some("2001:db8:2::1".parse().expect("an address"))).is_some(), "another site");
        drop(open);
        let open = lock(&connections.open);
        assert_eq!((open.all, open.networks.len(), open.sites.len()), (0, 0, 0));
    }
}
