//! Files of certificate authorities. They are read when the configuration is checked, and again when the server starts.

use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

/// The mistake in a file of certificate authorities.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the file {} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the file {} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("the file {} holds no certificate in PEM form", path.display())]
    Empty { path: PathBuf },
    #[error("a certificate in the file {} cannot vouch for others", path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
}

/// Adds every certificate of the file to `roots`.
///
/// # Errors
/// [`AuthorityError`]. Each names the file.
pub fn add(path: &Path, roots: &mut RootCertStore) -> Result<(), AuthorityError> {
    let text = std::fs::read(path).map_err(|source| AuthorityError::Unreadable { path: path.to_owned(), source })?;
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|source| AuthorityError::Damaged { path: path.to_owned(), source })?;
        roots.add(certificate).map_err(|source| AuthorityError::Unusable { path: path.to_owned(), source })?;
        found = true;
    }
    if found { Ok(()) } else { Err(AuthorityError::Empty { path: path.to_owned() }) }
}
