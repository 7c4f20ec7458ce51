//! The certificate authorities that we trust. The public authorities are Mozilla's compiled-in list: it is the same on
//! every system, also in a container without any, and TLS to PostgreSQL already includes it. An operator's own
//! authorities count only for other servers, so that a test's authority cannot vouch for the rest of the web.

use std::{path::PathBuf, sync::Arc};

use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::SetupError;
use crate::config::authorities;

/// The certificate authorities that may vouch for the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The public certificate authorities.
    Public,
    /// The public ones, and those of `federation.ca_files`.
    Federation,
}

/// The names of the protocols that a server chooses from in the handshake (ALPN).
pub(super) const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The TLS configurations. Each also caches sessions, which makes the next connection cheaper.
pub struct TrustStores {
    public: TlsConnector,
    federation: TlsConnector,
    pooled: TlsConnector,
}

impl TrustStores {
    pub fn load(ca_files: &[PathBuf]) -> Result<Self, SetupError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let public = connector(roots.clone(), &[ALPN_HTTP1])?;
        for path in ca_files {
            authorities::add(path, &mut roots)?;
        }
        let federation = connector(roots.clone(), &[ALPN_HTTP1])?;
        Ok(Self { public, federation, pooled: connector(roots, &[ALPN_HTTP2, ALPN_HTTP1])? })
    }

    /// The configuration for one exchange. HTTP/2 would only make it longer.
    pub fn connector(&self, trust: Trust) -> &TlsConnector {
        match trust {
            Trust::Public => &self.public,
            Trust::Federation => &self.federation,
        }
    }

    /// The configuration for connections to other servers, which are kept.
    pub fn pooled(&self) -> &TlsConnector {
        &self.pooled
    }
}

fn connector(roots: RootCertStore, protocols: &[&[u8]]) -> Result<TlsConnector, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}
