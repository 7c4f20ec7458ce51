//! Connections for each network: one address cannot take all that there are.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex},
};

use crate::{http::network::network, store::ids::lock};

/// The open connections of each network.
#[derive(Debug)]
pub struct Connections {
    per_network: u32,
    open: Mutex<HashMap<IpAddr, u32>>,
}

/// A counted connection. It counts until this is dropped.
#[derive(Debug)]
pub(in crate::http) struct Connected(Option<(Arc<Connections>, IpAddr)>);

impl Connections {
    #[must_use]
    pub fn new(per_network: u32) -> Self {
        Self { per_network, open: Mutex::default() }
    }

    /// Counts a connection; one without an address always has room.
    pub(super) fn connect(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Connected> {
        let Some(network) = address.map(network) else { return Some(Connected(None)) };
        let mut open = lock(&self.open);
        let count = open.entry(network).or_default();
        if *count >= self.per_network {
            return None;
        }
        *count += 1;
        Some(Connected(Some((Arc::clone(self), network))))
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let Some((connections, network)) = &self.0 else { return };
        if let Entry::Occupied(mut count) = lock(&connections.open).entry(*network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
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
        assert_eq!(lock(&connections.open).len(), 1, "a network without connections is forgotten");
    }
}
