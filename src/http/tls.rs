//! TLS for a listener: a certificate chain and a private key, both in PEM files.
//!
//! Promise: an unusable file is reported by name at start, and not in each client's handshake.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};

/// The PEM files of a TLS listener.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate first, then the intermediate ones.
    pub certificate_chain: PathBuf,
    pub private_key: PathBuf,
}

/// A problem with the TLS files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("could not read the TLS file {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the TLS file {} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("the TLS file {} holds no {wanted} in PEM form", path.display())]
    Lacks { path: PathBuf, wanted: &'static str },
    #[error("the private key {} does not belong to the certificate {}", private_key.display(), certificate_chain.display())]
    KeyMismatch { certificate_chain: PathBuf, private_key: PathBuf },
    #[error("the certificate {} with the key {} cannot be used", certificate_chain.display(), private_key.display())]
    Unusable {
        certificate_chain: PathBuf,
        private_key: PathBuf,
        #[source]
        source: rustls::Error,
    },
}

/// Reads the files and checks that they belong together.
///
/// # Errors
/// See [`TlsError`].
pub fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = read(&files.certificate_chain, "certificate", |pem| {
        CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()
    })?;
    if chain.is_empty() {
        return Err(TlsError::Lacks { path: files.certificate_chain.clone(), wanted: "certificate" });
    }
    let key = read(&files.private_key, "private key", PrivateKeyDer::from_pem_slice)?;

    let names = || (files.certificate_chain.clone(), files.private_key.clone());
    let refused = |error| {
        let (certificate_chain, private_key) = names();
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::KeyMismatch { certificate_chain, private_key }
            }
            source => TlsError::Unusable { certificate_chain, private_key, source },
        }
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read<T>(
    path: &Path,
    wanted: &'static str,
    parse: impl FnOnce(&[u8]) -> Result<T, pem::Error>,
) -> Result<T, TlsError> {
    let bytes = std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::Lacks { path: path.to_owned(), wanted },
        source => TlsError::Damaged { path: path.to_owned(), source },
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A new self-signed certificate for `localhost` in `folder`, also as a root for clients.
    pub(crate) fn self_signed(folder: &Path, name: &str) -> (TlsFiles, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles {
            certificate_chain: folder.join(format!("{name}.crt")),
            private_key: folder.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate_chain, made.cert.pem()).unwrap();
        std::fs::write(&files.private_key, made.signing_key.serialize_pem()).unwrap();
        (files, made.cert.der().clone())
    }

    /// The message for `files`, with the folder's name cut out.
    fn refusal(files: &TlsFiles, folder: &Path) -> String {
        let message = load(files).unwrap_err().to_string();
        message.replace(&format!("{}/", folder.display()), "")
    }

    #[test]
    fn each_bad_file_is_named_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (good, _) = self_signed(folder, "good");
        let (other, _) = self_signed(folder, "other");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).unwrap();
            folder.join(name)
        };
        let with_chain = |path: PathBuf| TlsFiles { certificate_chain: path, ..good.clone() };
        let with_key = |path: PathBuf| TlsFiles { private_key: path, ..good.clone() };
        assert!(load(&good).is_ok());

        let check = |files: TlsFiles, expected: &str| assert_eq!(refusal(&files, folder), expected);
        check(with_chain(folder.join("gone.crt")), "could not read the TLS file gone.crt");
        check(with_key(folder.join("gone.key")), "could not read the TLS file gone.key");
        check(with_chain(write("der.crt", "\u{1}\u{2}")), "the TLS file der.crt holds no certificate in PEM form");
        check(with_key(write("empty.key", "")), "the TLS file empty.key holds no private key in PEM form");
        check(with_key(good.certificate_chain.clone()), "the TLS file good.crt holds no private key in PEM form");
        check(with_chain(good.private_key.clone()), "the TLS file good.key holds no certificate in PEM form");
        check(with_chain(write("cut.crt", "-----BEGIN CERTIFICATE-----\nMIIB\n")), "the TLS file cut.crt is damaged");
        check(with_key(other.private_key), "the private key other.key does not belong to the certificate good.crt");
    }
}
