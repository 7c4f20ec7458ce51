//! Uploading: a device publishes its keys, and one-time keys for others to claim.
//!
//! Promise: an upload is stored as a whole or not at all, and repeating it changes nothing. A one-time key that was
//! handed out before is accepted but not stored, so it is never handed out again.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{
    Keys,
    changes::list_change,
    counts::KeyCounts,
    validate::{Upload, UploadedKey},
};
use crate::{
    account::LocalDevice,
    limit_exceeded::LimitExceeded,
    store::{
        Conn, DeviceNid, Error, Position, Row, Transaction, UserNid,
        committer::insert_rows,
        device_keys::{self, DeviceKeyColumns},
        devices,
        log::Touch,
        one_time_keys::{self, FallbackKeyColumns, OneTimeKeyColumns},
    },
};

/// Sequence numbers reserved for one upload. The limit on keys of a device is lower.
const SEQ_PER_UPLOAD: i64 = 1 << 14;

/// Maximum number of algorithms of a device's one-time or fallback keys. Today's clients use one. Each algorithm is
/// listed in every `/sync`.
pub const MAX_ALGORITHMS: usize = 8;

/// Why an upload was refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("the one-time key {key_id} was uploaded before with other content")]
    KeyChanged { key_id: String },
    #[error("the device would have more than {limit} one-time keys")]
    TooManyKeys { limit: usize },
    #[error("the device would have keys of more than {MAX_ALGORITHMS} algorithms")]
    TooManyAlgorithms,
    #[error("the device was signed out meanwhile")]
    DeviceGone,
    #[error(transparent)]
    TooManyWaiting(#[from] LimitExceeded),
    #[error("could not store the keys")]
    Storage(#[from] Error),
}

/// The new keys of an upload.
struct UploadKeys {
    user: UserNid,
    device: DeviceNid,
    device_keys: Option<Arc<str>>,
    one_time_keys: Vec<UploadedKey>,
    fallback_keys: Vec<UploadedKey>,
}

impl Keys {
    /// Stores what the device uploads, and returns the number of its one-time keys afterwards. For new device keys, the
    /// caller's rooms should be in memory: the commit marks their members, or else everyone.
    ///
    /// # Errors
    /// [`UploadError`]. Nothing of the upload is stored then.
    pub async fn upload(&self, caller: &LocalDevice, upload: Upload) -> Result<Arc<KeyCounts>, UploadError> {
        if !upload.is_empty() {
            // Only uploads add keys, so a key that is missing now is still missing at the commit. Claims only remove
            // keys: one that is handed out before the commit was already found here.
            let _turn = self.turns.take(caller.user.nid).await?;
            let new = self.find_new(caller, upload).await?;
            // Needed also when nothing is new: a device that was signed out meanwhile must get an error.
            self.db.committer().transact(new).await??;
        }
        Ok(self.counts(caller.device_nid).await?)
    }

    /// Checks the upload, and returns its keys that are not stored yet.
    async fn find_new(&self, caller: &LocalDevice, upload: Upload) -> Result<UploadKeys, UploadError> {
        let device = caller.device_nid;
        let mut reader = self.db.read().await?;
        let conn = &mut reader.conn();
        let mut algorithms = BTreeSet::new();
        let mut one_time_keys = Vec::new();
        if !upload.one_time_keys.is_empty() {
            let counts = one_time_keys::counts(conn, device).await?;
            let stored: usize = counts.iter().map(|(_, count)| usize::try_from(*count).unwrap_or(usize::MAX)).sum();
            algorithms.extend(counts.into_iter().map(|(algorithm, _)| algorithm));
            one_time_keys = new_one_time_keys(conn, device, upload.one_time_keys).await?;
            if !one_time_keys.is_empty() && stored.saturating_add(one_time_keys.len()) > self.one_time_keys_per_device {
                return Err(UploadError::TooManyKeys { limit: self.one_time_keys_per_device });
            }
            algorithms.extend(one_time_keys.iter().map(|key| key.algorithm.to_string()));
        }
        let mut fallback_keys = Vec::new();
        let mut fallback_algorithms = BTreeSet::new();
        if !upload.fallback_keys.is_empty() {
            let stored = one_time_keys::fallback_keys(conn, device).await?;
            // A key that is uploaded again stays as it is, used or not.
            let is_new = |key: &UploadedKey| {
                !stored.iter().any(|(algorithm, key_id, json)| {
                    (algorithm.as_str(), key_id.as_str(), json.as_str()) == (&*key.algorithm, &*key.key_id, &*key.json)
                })
            };
            fallback_keys.extend(upload.fallback_keys.into_iter().filter(is_new));
            fallback_algorithms.extend(stored.into_iter().map(|(algorithm, _, _)| algorithm));
            fallback_algorithms.extend(fallback_keys.iter().map(|key| key.algorithm.to_string()));
        }
        if algorithms.len() > MAX_ALGORITHMS || fallback_algorithms.len() > MAX_ALGORITHMS {
            return Err(UploadError::TooManyAlgorithms);
        }
        let mut device_keys = upload.device_keys;
        if let Some(json) = &device_keys
            && device_keys::find_device_key(conn, device).await?.as_deref() == Some(&**json)
        {
            device_keys = None;
        }
        Ok(UploadKeys { user: caller.user.nid, device, device_keys, one_time_keys, fallback_keys })
    }
}

/// The one-time keys that are neither stored nor were handed out before.
async fn new_one_time_keys(
    conn: &mut Conn<'_>,
    device: DeviceNid,
    uploaded: Vec<UploadedKey>,
) -> Result<Vec<UploadedKey>, UploadError> {
    let names: Vec<(&str, &str)> = uploaded.iter().map(|key| (&*key.algorithm, &*key.key_id)).collect();
    let stored = one_time_keys::named(conn, device, &names).await?;
    let by_name: HashMap<(&str, &str), &str> =
        stored.iter().map(|(algorithm, key_id, json)| ((algorithm.as_str(), key_id.as_str()), json.as_str())).collect();
    let digests: Vec<[u8; 32]> = uploaded.iter().map(|key| key.digest).collect();
    let known = one_time_keys::known(conn, device, &digests).await?;
    let mut known: HashSet<[u8; 32]> =
        known.into_iter().filter_map(|digest| <[u8; 32]>::try_from(digest).ok()).collect();
    let mut new = Vec::new();
    for key in &uploaded {
        match by_name.get(&(&*key.algorithm, &*key.key_id)) {
            Some(json) if *json == &*key.json => {}
            Some(_) => {
                let key_id = format!("{}:{}", key.algorithm, key.key_id);
                return Err(UploadError::KeyChanged { key_id });
            }
            None if known.insert(key.digest) => new.push(key.clone()),
            None => {}
        }
    }
    Ok(new)
}

impl Transaction for UploadKeys {
    type Output = Result<(), UploadError>;

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<Self::Output, Error> {
        if !devices::existing(conn, &[self.device]).await?.contains(&self.device) {
            return Ok(Err(UploadError::DeviceGone));
        }
        let Self { one_time_keys, fallback_keys, .. } = self;
        let mut rows: Vec<Row> = Vec::with_capacity(one_time_keys.len() + fallback_keys.len() + 2);
        for (seq, key) in (position.0 * SEQ_PER_UPLOAD..).zip(one_time_keys) {
            rows.push(
                OneTimeKeyColumns {
                    device_nid: self.device,
                    algorithm: Arc::clone(&key.algorithm),
                    key_id: Arc::clone(&key.key_id),
                    seq,
                    digest: key.digest.to_vec(),
                    json: Arc::clone(&key.json),
                }
                .row(),
            );
        }
        for key in fallback_keys {
            rows.push(
                FallbackKeyColumns {
                    device_nid: self.device,
                    algorithm: Arc::clone(&key.algorithm),
                    key_id: Arc::clone(&key.key_id),
                    json: Arc::clone(&key.json),
                    used: false,
                }
                .row(),
            );
        }
        if let Some(json) = &self.device_keys {
            rows.push(DeviceKeyColumns { device_nid: self.device, user_nid: self.user, json: Arc::clone(json) }.row());
            rows.push(list_change(conn, self.user, position));
        }
        if !one_time_keys.is_empty() || !fallback_keys.is_empty() {
            conn.touch(Touch::KeyCounts { user: self.user, device: self.device });
        }
        insert_rows(conn, &rows).await?;
        Ok(Ok(()))
    }
}
