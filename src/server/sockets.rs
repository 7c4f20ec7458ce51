//! The sockets of the configuration, bound before anything else is done, so that a start that fails on a taken port
//! creates no data.

use std::net::SocketAddr;

use super::{
    build,
    start::{ListenKey, StartError},
};
use crate::{
    config::{Config, Listener as ListenerConfig, ListenerPlace, Resource},
    http::{
        listen::{Address, Listener, ListenerSpec},
        tls::TlsFiles,
    },
};

/// Every socket of the configuration, bound but not yet served. A client that connects waits until it is.
pub struct Sockets {
    pub(super) public: Vec<(Listener, ListenerConfig)>,
    pub(super) metrics: Option<Listener>,
}

impl Sockets {
    /// Binds the listeners, and with `with_metrics` the one for metrics.
    ///
    /// # Errors
    /// The first that cannot be bound; nothing stays bound then.
    pub async fn bind(config: &Config, with_metrics: bool) -> Result<Self, StartError> {
        // The data directory is the only data that a socket may need.
        if config
            .listeners
            .iter()
            .filter_map(|listener| listener.unix.as_ref())
            .any(|path| path.starts_with(&config.data_dir))
        {
            build::create_data_dir(&config.data_dir)?;
        }
        let mut public = Vec::new();
        for (number, listener) in config.listeners.iter().enumerate() {
            let Some(place) = listener.place() else {
                continue; // refused by `Config::validate`
            };
            let address = match place {
                ListenerPlace::Tcp(address) => Address::Tcp(address),
                ListenerPlace::Unix { path, mode } => Address::Unix { path, mode: mode.bits() },
            };
            let tls = listener
                .tls
                .as_ref()
                .map(|tls| TlsFiles { certificate_chain: tls.certificate.clone(), private_key: tls.key.clone() });
            public.push((bind(address, tls, ListenKey::Listener(number)).await?, listener.clone()));
        }
        let metrics = match config.metrics_address().filter(|_| with_metrics) {
            Some(address) => Some(bind(Address::Tcp(address), None, ListenKey::Metrics).await?),
            None => None,
        };
        Ok(Self { public, metrics })
    }

    /// The addresses of the listeners, in the order of the configuration; a port of 0 is replaced by the real one.
    pub(super) fn addresses(&self) -> Vec<Address> {
        self.public.iter().map(|(listener, _)| listener.address().clone()).collect()
    }

    pub(super) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| tcp(listener.address()))
    }

    /// The first TCP listener for clients: its address, and whether it speaks TLS.
    pub(super) fn client_listener(&self) -> Option<(SocketAddr, bool)> {
        self.public.iter().find_map(|(listener, config)| {
            let address = tcp(listener.address()).filter(|_| config.serves(Resource::Client))?;
            Some((address, config.tls.is_some()))
        })
    }
}

async fn bind(address: Address, tls: Option<TlsFiles>, key: ListenKey) -> Result<Listener, StartError> {
    Listener::bind(&ListenerSpec { address, tls })
        .await
        .map_err(|error| StartError::Listen { key, error: Box::new(error) })
}

fn tcp(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Tcp(address) => Some(*address),
        Address::Unix { .. } => None,
    }
}
