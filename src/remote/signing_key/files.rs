//! The files of the signing key. Only the server's own user may read them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use sabha_federation::{OwnKey, key_file};
use zeroize::Zeroizing;

use super::SigningKeyError;

/// The name of the file with the key in use, in the data directory.
pub const FILE: &str = "signing.key";

/// The name of the file with the key that is about to be used.
pub const NEXT_FILE: &str = "signing.key.next";

/// The paths of the files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub current: PathBuf,
    next: PathBuf,
}

impl Files {
    /// Returns whether a key waits to take its place.
    pub fn has_next(&self) -> io::Result<bool> {
        match std::fs::metadata(&self.next) {
            Ok(next) => Ok(next.is_file()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub fn of(data_dir: &Path) -> Self {
        Self { current: data_dir.join(FILE), next: data_dir.join(NEXT_FILE) }
    }

    /// The keys of the file with the key in use: `None` without the file, or else one at least.
    pub fn read_current(&self) -> Result<Option<Vec<OwnKey>>, SigningKeyError> {
        read(&self.current)
    }

    pub fn read_next(&self) -> Result<Option<Vec<OwnKey>>, SigningKeyError> {
        read(&self.next)
    }

    /// Writes the first key of a server: whole or not at all. It is durable when this returns.
    pub fn create_current(&self, key: &OwnKey) -> io::Result<()> {
        self.write_next(key)?;
        self.promote_next()
    }

    /// Writes the key that is about to be used. It is durable when this returns.
    pub fn write_next(&self, key: &OwnKey) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.next)?;
        file.write_all(key_file::write(key).as_bytes())?;
        file.sync_all()?;
        self.sync_directory()
    }

    /// Puts the key that is about to be used in the place of the one in use.
    pub fn promote_next(&self) -> io::Result<()> {
        fs::rename(&self.next, &self.current)?;
        self.sync_directory()
    }

    /// Deletes the key that was about to be used. Returns whether there was one.
    pub fn delete_next(&self) -> io::Result<bool> {
        match fs::remove_file(&self.next) {
            Ok(()) => self.sync_directory().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        match self.current.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<OwnKey>>, SigningKeyError> {
    match fs::read(path).map(Zeroizing::new) {
        Ok(bytes) => match key_file::read(&bytes) {
            Ok(keys) => Ok(Some(keys)),
            Err(source) => Err(SigningKeyError::Damaged { path: path.to_owned(), source }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SigningKeyError::File { path: path.to_owned(), source }),
    }
}
