//! `[[listeners]]` and `[metrics]`: the addresses where we accept connections, from whom, and for which resources.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::keys::{choice, section};
use super::values::{FileMode, IpRange};

/// The address of a server without configuration.
pub const LOCAL_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8008);

section! {
    /// Addresses where the server accepts HTTP, one section for each, with either `address` or `unix`. Sections in a
    /// later file replace all sections of an earlier file. Without any section: 127.0.0.1:8008, all resources, no TLS.
    pub struct Listener {
        /// IP address and port to listen on. Port 0 takes a free one.
        pub address: Option<SocketAddr> = None,
        /// Path of a unix socket to listen on, instead of `address`.
        pub unix: Option<PathBuf> = None,
        /// Permissions of the unix socket.
        pub mode: FileMode = FileMode::OWNER_AND_GROUP,
        /// Resources that are served here: any of `client`, `federation`, `well_known`.
        pub resources: Vec<Resource> = Resource::ALL.to_vec(),
        /// Reverse proxies whose `X-Forwarded-For` header is trusted, as addresses or ranges. Without it, all users
        /// behind a proxy share one address and its rate limits. Connections over a unix socket are always trusted.
        pub trusted_proxies: Vec<IpRange> = Vec::new(),
        /// Speak TLS here, with this certificate. Without it, plain HTTP.
        pub tls: Option<Tls> = None,
    }
}

section! {
    /// The certificate of a listener.
    pub struct Tls {
        /// Path of the certificate chain, PEM, the server's own certificate first.
        pub certificate: PathBuf = PathBuf::new(),
        /// Path of its private key, PEM.
        pub key: PathBuf = PathBuf::new(),
    }
}

section! {
    /// Measurements for Prometheus at `/metrics`, on their own listener. They show how busy each room is, so keep them
    /// off the internet.
    pub struct Metrics {
        /// Whether the measurements are served.
        pub enabled: bool = true,
        /// IP address and port to serve them on.
        pub address: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8009),
    }
}

choice! {
    /// A group of endpoints that the server serves.
    pub enum Resource: "a resource", "\"client\", \"federation\" or \"well_known\"" {
        /// The Client-Server API, and the setup page.
        Client = "client",
        /// The Server-Server API.
        Federation = "federation",
        /// `/.well-known/matrix/client` and `/.well-known/matrix/server`.
        WellKnown = "well_known",
    }
}

impl Resource {
    pub const ALL: [Self; 3] = [Self::Client, Self::Federation, Self::WellKnown];
}

/// The place where a [`Listener`] accepts connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerPlace {
    Tcp(SocketAddr),
    Unix { path: PathBuf, mode: FileMode },
}

impl Listener {
    /// A listener for all resources at this address, without TLS.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { address: Some(address), ..Self::default() }
    }

    /// The place. `None` if neither or both keys are written, which [`super::Config::validate`] refuses.
    pub fn place(&self) -> Option<ListenerPlace> {
        match (self.address, &self.unix) {
            (Some(address), None) => Some(ListenerPlace::Tcp(address)),
            (None, Some(path)) => Some(ListenerPlace::Unix { path: path.clone(), mode: self.mode }),
            _ => None,
        }
    }

    pub fn serves(&self, resource: Resource) -> bool {
        self.resources.contains(&resource)
    }

    /// Returns whether `X-Forwarded-For` from this peer is trusted. `None` is the peer of a unix socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|peer| self.trusted_proxies.iter().any(|range| range.contains(peer)))
    }
}
