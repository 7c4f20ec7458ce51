//! New signing keys, while the server runs: made here, or brought along from another homeserver.
//!
//! Promise: whatever was signed at any time stays valid, and a crash at any step leaves a server that starts.
//!
//! 1. The new key is written to a file of its own, which is durable.
//! 2. One commit names the new key, and the end of the old one. From here on the new key is the server's.
//! 3. The next signature is with the new key. The old one stays published as valid until its end ([`RETIRING_TIME`]), as
//!    requests with it are still on their way.
//! 4. The file takes the place of the old one.
//!
//! Other processes on the same database are not told. They need the new file and a restart.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ruma::OwnedServerSigningKeyId;
use sabha_federation::{OwnKey, ServerSigner};
use tracing::{info, warn};

use super::{FILE, Files, MAX_KEYS, StoredKey, save, stored};
use crate::{
    account::millis,
    clock::Clock,
    report::Report,
    store::{self, Database},
};

/// The time for which a replaced key stays valid. A request with it is verified at most as long after its signature as the
/// longest request lasts. Events take their time before their signature, so any time would do for them.
const RETIRING_TIME: Duration = Duration::from_secs(5 * 60);

/// The reason why the key was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("this server has had {MAX_KEYS} signing keys, and other servers take no longer list of them")]
    TooMany,
    #[error(
        "{0} was replaced by a later key, and a former key is not used again; `sabha federation keys rotate` makes a new one"
    )]
    Former(OwnedServerSigningKeyId),
    #[error("this server has had another key with the name {0}, by which other servers know it")]
    SameName(OwnedServerSigningKeyId),
    #[error("an earlier change of the signing key is not finished; restart the server and try again")]
    Unsettled,
    #[error("the new signing key cannot be written beside {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the database failed while the signing key was changed")]
    Storage(#[from] store::Error),
}

/// The signing keys of a running server.
pub struct SigningKeys {
    db: Arc<Database>,
    clock: Clock,
    signer: Arc<ServerSigner>,
    files: Files,
    /// Held while the keys are changed.
    changing: tokio::sync::Mutex<()>,
}

impl SigningKeys {
    pub fn new(db: Arc<Database>, clock: Clock, signer: Arc<ServerSigner>, data_dir: &Path) -> Self {
        Self { db, clock, signer, files: Files::of(data_dir), changing: tokio::sync::Mutex::default() }
    }

    /// The file that must be backed up after each change.
    pub fn file(&self) -> &Path {
        &self.files.current
    }

    /// All keys of this server, oldest first: at most [`MAX_KEYS`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list(&self) -> Result<Vec<StoredKey>, store::Error> {
        stored(&self.db).await
    }

    /// Replaces the key in use by a new one.
    ///
    /// # Errors
    /// [`RotateError`]; the key is not changed then. After a failure of the database it may be: a restart settles it.
    ///
    /// # Cancellation
    /// Must not be dropped. If it is, a restart settles it.
    pub async fn rotate(&self) -> Result<(), RotateError> {
        self.import(vec![OwnKey::generate()]).await
    }

    /// Uses the first of these keys from now on. The others were in use elsewhere until now.
    ///
    /// # Errors
    /// As for [`Self::rotate`].
    ///
    /// # Cancellation
    /// As for [`Self::rotate`].
    pub async fn import(&self, keys: Vec<OwnKey>) -> Result<(), RotateError> {
        let _one_at_a_time = self.changing.lock().await;
        let stored = stored(&self.db).await?;
        let now_ms = self.clock.now_ms();
        let mut changed = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            match stored.iter().find(|stored| stored.key_id == *key.key_id()) {
                None => changed.push(StoredKey::of(key, now_ms, (index > 0).then_some(now_ms))),
                Some(stored) if !stored.is(key) => return Err(RotateError::SameName(stored.key_id.clone())),
                Some(stored) if index == 0 && stored.expired_at.is_some() => {
                    return Err(RotateError::Former(stored.key_id.clone()));
                }
                // It is in use, or known as a former one.
                Some(_) => {}
            }
        }
        if stored.len() + changed.len() > MAX_KEYS {
            return Err(RotateError::TooMany);
        }
        let former = changed.iter().filter_map(StoredKey::former).collect();
        let next = keys.into_iter().next().filter(|next| *next.key_id() != self.signer.key_id());
        match next {
            Some(next) => self.replace(next, &stored, changed, now_ms).await?,
            None => save(&self.db, &changed).await?,
        }
        self.signer.add_former(former);
        Ok(())
    }

    async fn replace(
        &self,
        next: OwnKey,
        stored: &[StoredKey],
        mut changed: Vec<StoredKey>,
        now_ms: i64,
    ) -> Result<(), RotateError> {
        let expired_at = now_ms.saturating_add(millis(RETIRING_TIME));
        let replaced = stored.iter().filter(|stored| stored.expired_at.is_none());
        changed.extend(replaced.map(|key| StoredKey { expired_at: Some(expired_at), ..key.clone() }));
        let failed = |source| RotateError::File { path: self.files.current.clone(), source };
        // It may hold the key in use, whose place nobody has taken yet. The next start knows.
        let files = self.files.clone();
        if blocking(move || files.has_next()).await.map_err(failed)? {
            return Err(RotateError::Unsettled);
        }
        let files = self.files.clone();
        let next = blocking(move || files.write_next(&next).map(|()| next)).await.map_err(failed)?;

        if let Err(error) = save(&self.db, &changed).await {
            // A lost connection may have lost only the answer.
            let is_stored = self::stored(&self.db).await?.iter().any(|key| key.is(&next));
            if !is_stored {
                let files = self.files.clone();
                if let Err(error) = blocking(move || files.delete_next()).await {
                    warn!(error = %Report(&error), "the next start deletes the signing key that is not used");
                }
                return Err(error.into());
            }
        }
        let (before, key_id) = (self.signer.key_id(), next.key_id().to_owned());
        self.signer.rotate(next, expired_at);
        info!(%key_id, %before, "the signing key was replaced");
        let (files, key) = (self.files.clone(), self.signer.current());
        // If somebody has removed the file, it is written again.
        let promoted = move || files.promote_next().or_else(|_| files.create_current(&key));
        if let Err(error) = blocking(promoted).await {
            warn!(error = %Report(&error), "the new signing key is still beside {FILE}; the next start puts it there");
        }
        Ok(())
    }
}

/// Runs work on files outside of the tasks of requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
