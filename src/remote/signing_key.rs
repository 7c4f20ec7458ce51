//! This server's signing keys: the secret of the one in use in a file of the data directory, the public halves of all in
//! the database.
//!
//! Promises: a key is only made for a database that has never had one, or by the operator. Everything in the database is
//! signed with its keys, so a missing or different file is refused, never replaced: other servers and devices would see
//! forgeries. A new key takes the place of the old one in one commit, after its file is durable; a start after a crash in
//! between finishes the change, or takes it back.
//!
//! | `signing.key` | `signing.key.next` | The start |
//! |---|---|---|
//! | the key that the database names | none | uses it |
//! | the key that the database names | any | uses it, and deletes the other: its commit has not come |
//! | another or none | the key that the database names | uses that, and moves it to its place |
//! | a former key | another or none | is refused: the file is older than the database |
//! | another or none | another or none | is refused |
//!
//! Reading order: [`load_or_create`], [`SigningKeys`] for new keys, `files`.

mod files;
mod rotate;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use ruma::{OwnedServerName, OwnedServerSigningKeyId};
use sabha_federation::{FormerKey, KeyFileError, OwnKey, PublicKey, ServerSigner, published_keys::MAX_OLD_KEYS};
use tracing::warn;

use self::files::Files;
pub use self::{
    files::{FILE, NEXT_FILE},
    rotate::{RotateError, SigningKeys},
};
use crate::store::{
    self, Database, Write,
    own_keys::{self as rows, OwnKeyRow},
};

/// Maximum number of keys in the life of a server. Other servers refuse a longer list of former keys.
pub const MAX_KEYS: usize = MAX_OLD_KEYS + 1;

/// The reason why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error(
        "the signing key {} is missing, and this database is signed with {key}: look whether data_dir is right, or \
         restore that file from a backup; a new key would not do",
        path.display()
    )]
    Missing { path: PathBuf, key: OwnedServerSigningKeyId },
    #[error(
        "the signing key {} is {found}, but this database is signed with {expected}: restore the file that belongs to it",
        path.display()
    )]
    Different { path: PathBuf, found: String, expected: String },
    #[error(
        "the signing key {} is {found}, which was replaced by {expected}: restore the file that was made then, from a \
         backup that is newer than the change",
        path.display()
    )]
    Former { path: PathBuf, found: OwnedServerSigningKeyId, expected: OwnedServerSigningKeyId },
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

/// A key of this server, without its secret. The times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    pub key_id: OwnedServerSigningKeyId,
    pub key: PublicKey,
    pub created_at: i64,
    /// The end of its validity. The key without one is in use.
    pub expired_at: Option<i64>,
}

impl fmt::Display for StoredKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.key_id, self.key.to_base64())
    }
}

impl StoredKey {
    fn of(key: &OwnKey, created_at: i64, expired_at: Option<i64>) -> Self {
        Self { key_id: key.key_id().to_owned(), key: key.public_key(), created_at, expired_at }
    }

    fn is(&self, key: &OwnKey) -> bool {
        self.key_id == *key.key_id() && self.key == key.public_key()
    }

    fn former(&self) -> Option<FormerKey> {
        self.expired_at.map(|expired_ms| FormerKey::new(self.key_id.clone(), self.key, expired_ms))
    }

    fn to_row(&self) -> OwnKeyRow {
        OwnKeyRow {
            key_id: self.key_id.to_string(),
            public_key: self.key.as_bytes().to_vec(),
            created_at: self.created_at,
            expired_at: self.expired_at,
        }
    }
}

/// The keys of this server, oldest first.
async fn stored(db: &Database) -> Result<Vec<StoredKey>, store::Error> {
    let rows = rows::own_keys(&mut db.read().await?.conn()).await?;
    let key = |row: OwnKeyRow| {
        let damaged = || store::Error::damaged("own_key", &row.key_id);
        Ok(StoredKey {
            key_id: row.key_id.as_str().try_into().map_err(|_| damaged())?,
            key: PublicKey::from_bytes(&row.public_key).ok_or_else(damaged)?,
            created_at: row.created_at,
            expired_at: row.expired_at,
        })
    };
    rows.into_iter().map(key).collect()
}

/// Stores new keys, and new ends of known ones, in one commit.
async fn save(db: &Database, keys: &[StoredKey]) -> Result<(), store::Error> {
    let rows = keys.iter().map(|key| key.to_row().row()).collect();
    db.committer().write(Write::new(rows)).await.map(|_| ())
}

/// Loads the key of this database, or creates one if the database has never had one.
///
/// # Errors
/// See [`SigningKeyError`]; no file has been changed then.
pub async fn load_or_create(
    db: &Database,
    data_dir: &Path,
    server_name: &OwnedServerName,
    now_ms: i64,
) -> Result<ServerSigner, SigningKeyError> {
    let files = Files::of(data_dir);
    let keys = stored(db).await?;
    let Some(expected) = keys.iter().find(|key| key.expired_at.is_none()) else {
        return first(db, &files, server_name, now_ms).await;
    };
    let former = keys.iter().filter_map(StoredKey::former).collect();
    let failed = |source| SigningKeyError::File { path: files.current.clone(), source };

    let current = match files.read_current() {
        Ok(Some(keys)) if expected.is(&keys[0]) => {
            // Nothing was signed with the other one.
            if files.delete_next().map_err(failed)? {
                warn!(key_id = %expected.key_id, "a change of the signing key was interrupted and has not taken place");
            }
            return Ok(signer(server_name, keys, former));
        }
        other => other,
    };
    if let Ok(Some(next)) = files.read_next()
        && expected.is(&next[0])
    {
        files.promote_next().map_err(failed)?;
        warn!(key_id = %expected.key_id, "a change of the signing key was interrupted and is finished now");
        return Ok(signer(server_name, next, former));
    }
    let Some(found) = current? else {
        return Err(SigningKeyError::Missing { path: files.current, key: expected.key_id.clone() });
    };
    let (path, found) = (files.current, &found[0]);
    if keys.iter().any(|key| key.is(found)) {
        let (found, expected) = (found.key_id().to_owned(), expected.key_id.clone());
        return Err(SigningKeyError::Former { path, found, expected });
    }
    // Two keys may have one name.
    let found = format!("{} {}", found.key_id(), found.public_key_base64());
    Err(SigningKeyError::Different { path, found, expected: expected.to_string() })
}

/// The first key of a database: that of the file, if the operator has put one there, or else a new one. More keys in the
/// file were in use before, as Synapse keeps them.
async fn first(
    db: &Database,
    files: &Files,
    server_name: &OwnedServerName,
    now_ms: i64,
) -> Result<ServerSigner, SigningKeyError> {
    let keys = match files.read_current()? {
        Some(keys) => keys,
        None => {
            let key = OwnKey::generate();
            let created = files.create_current(&key);
            created.map_err(|source| SigningKeyError::File { path: files.current.clone(), source })?;
            vec![key]
        }
    };
    let expired_at = |index: usize| (index > 0).then_some(now_ms);
    let stored: Vec<_> =
        keys.iter().enumerate().map(|(index, key)| StoredKey::of(key, now_ms, expired_at(index))).collect();
    // The file is durable before the database names it: after a crash in between, the next start uses the file.
    save(db, &stored).await?;
    Ok(signer(server_name, keys, stored.iter().filter_map(StoredKey::former).collect()))
}

/// Signs with the first of the keys of a file, which has one at least.
fn signer(server_name: &OwnedServerName, mut keys: Vec<OwnKey>, former: Vec<FormerKey>) -> ServerSigner {
    ServerSigner::new(server_name.clone(), keys.swap_remove(0), former)
}

#[cfg(test)]
mod tests;
