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

/// A TLS configuration for each [`Trust`]. Each also caches sessions, which makes the next connection cheaper.
pub struct TrustStores {
    public: TlsConnector,
    federation: TlsConnector,
}

impl TrustStores {
    pub fn load(ca_files: &[PathBuf]) -> Result<Self, SetupError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let public = connector(roots.clone())?;
        for path in ca_files {
            authorities::add(path, &mut roots)?;
        }
        Ok(Self { public, federation: connector(roots)? })
    }

    pub fn connector(&self, trust: Trust) -> &TlsConnector {
        match trust {
            Trust::Public => &self.public,
            Trust::Federation => &self.federation,
        }
    }
}

fn connector(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
