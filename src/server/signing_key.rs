//! The server's signing key: one file in the data directory, which belongs to the database for ever.
//!
//! Promise: a key is only made for a database that has never had one. Everything in the database is signed with that key,
//! so a missing or different file is refused, never replaced: other servers and devices would see forgeries.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ruma::OwnedServerName;
use sabha_federation::{KeyFileError, ServerSigner};
use zeroize::Zeroizing;

use crate::store::{self, Database};

/// The file's name in the data directory.
pub const FILE: &str = "signing.key";

/// The database entry with the key that the database belongs to: the key's ID and its public half.
const INFO: &str = "signing_key";

/// The reason why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error(
        "the signing key {} is missing, and this database is signed with {key}: look whether data_dir is right, or \
         restore that file from a backup; a new key would not do",
        path.display()
    )]
    Missing { path: PathBuf, key: String },
    #[error(
        "the signing key {} is {found}, but this database is signed with {expected}: restore the file that belongs to it",
        path.display()
    )]
    Different { path: PathBuf, found: String, expected: String },
    #[error("the signing key {} cannot be read: restore that file from a backup", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: KeyFileError,
    },
    #[error("the signing key {} cannot be used", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the database failed while looking for its signing key")]
    Storage(#[from] store::Error),
}

/// Loads the key of this database, or creates one if the database has never had one.
///
/// # Errors
/// See [`SigningKeyError`]; no file has been changed then.
pub async fn load_or_create(
    db: &Database,
    data_dir: &Path,
    server_name: &OwnedServerName,
) -> Result<ServerSigner, SigningKeyError> {
    let path = data_dir.join(FILE);
    let expected = db.find_info(INFO).await?;
    let signer = match (read(&path)?, &expected) {
        (Some(text), _) => ServerSigner::from_key_file(server_name.clone(), &text)
            .map_err(|source| SigningKeyError::Damaged { path: path.clone(), source })?,
        (None, None) => create(&path, server_name)?,
        (None, Some(key)) => {
            let key = key.split(' ').next().unwrap_or_default().to_owned();
            return Err(SigningKeyError::Missing { path, key });
        }
    };
    let found = format!("{} {}", signer.key_id(), signer.public_key_base64());
    match expected {
        Some(expected) if expected == found => {}
        Some(expected) => return Err(SigningKeyError::Different { path, found, expected }),
        // The file is durable before the database names it: after a crash in between, the next start uses the file.
        None => db.set_info(INFO, found).await?,
    }
    Ok(signer)
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, SigningKeyError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SigningKeyError::File { path: path.to_owned(), source }),
    }
}

fn create(path: &Path, server_name: &OwnedServerName) -> Result<ServerSigner, SigningKeyError> {
    let signer = ServerSigner::generate(server_name.clone());
    write(path, &signer).map_err(|source| SigningKeyError::File { path: path.to_owned(), source })?;
    Ok(signer)
}

/// Writes the file whole or not at all; it is durable when this returns.
fn write(path: &Path, signer: &ServerSigner) -> io::Result<()> {
    let unfinished = path.with_extension("key.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(signer.to_key_file().as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
