//! Uploading: a device publishes its keys, and one-time keys for others to claim.
//!
//! Promise: an upload is taken as a whole or not at all, and repeating it changes nothing. A one-time key that was once
//! handed out is taken and thrown away: it can never be handed out again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Keys,
    changes::DeviceChange,
    counts::{Counts, KeyCounts},
    validate::{Upload, UploadedKey, digest_of_stored},
};
use crate::{
    account::LocalDevice,
    bus::Bus,
    store::{
        Conn, DeviceNid, Error, Position, RoomNid, Row, Transaction, UserNid,
        committer::insert_rows,
        device_keys::{self, DEVICE_KEY},
        devices,
        one_time_keys::{self, FALLBACK_KEY, KeyRow, ONE_TIME_KEY},
    },
};

/// Places in the order of upload that one upload may use; the limit on keys of a device is below it.
const SEQ_PER_UPLOAD: i64 = 1 << 14;

/// Why an upload was refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("the one-time key {key_id} was uploaded before with other content")]
    KeyChanged { key_id: String },
    #[error("the device would have more than {limit} one-time keys")]
    TooManyKeys { limit: usize },
    #[error("the device was signed out meanwhile")]
    DeviceGone,
    #[error("could not store the keys")]
    Storage(#[from] Error),
}

/// What an upload changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uploaded {
    device_keys: bool,
    counts: bool,
}

struct UploadKeys {
    user: UserNid,
    device: DeviceNid,
    upload: Upload,
    limit: usize,
    change: DeviceChange,
    counts: Arc<Counts>,
    bus: Arc<Bus>,
}

impl Keys {
    /// Stores what the device uploads, and says how many one-time keys it has then. `rooms` are those that its user has
    /// joined; they hear of new device keys.
    ///
    /// # Errors
    /// [`UploadError`]; nothing of the upload is stored then.
    pub async fn upload(
        &self,
        caller: &LocalDevice,
        upload: Upload,
        rooms: Vec<RoomNid>,
    ) -> Result<Arc<KeyCounts>, UploadError> {
        if !upload.is_empty() {
            let transaction = UploadKeys {
                user: caller.user.nid,
                device: caller.device_nid,
                upload,
                limit: self.one_time_keys_per_device,
                change: self.device_change(caller.user.nid, rooms),
                counts: Arc::clone(&self.counts),
                bus: Arc::clone(&self.bus),
            };
            self.db.committer().transact(transaction).await??;
        }
        Ok(self.counts(caller.device_nid).await?)
    }
}

impl UploadKeys {
    /// The one-time keys that are new. Those that are there or were handed out before are left out.
    async fn new_one_time_keys(&self, conn: &mut Conn<'_>) -> Result<Result<Vec<&UploadedKey>, UploadError>, Error> {
        let uploaded = &self.upload.one_time_keys;
        if uploaded.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let stored = one_time_keys::one_time_keys(conn, self.device, self.limit + 1).await?;
        let by_id: HashMap<(&str, &str), &str> = stored
            .iter()
            .map(|(algorithm, key_id, json)| ((algorithm.as_str(), key_id.as_str()), json.as_str()))
            .collect();
        let mut known: HashSet<[u8; 32]> = stored
            .iter()
            .map(|(algorithm, _, json)| digest_of_stored(algorithm, json))
            .collect::<Result<_, Error>>()?;
        let digests: Vec<[u8; 32]> = uploaded.iter().map(|key| key.digest).collect();
        let claimed = one_time_keys::claimed(conn, self.device, &digests).await?;
        known.extend(claimed.into_iter().filter_map(|digest| <[u8; 32]>::try_from(digest).ok()));

        let mut new = Vec::new();
        for key in uploaded {
            match by_id.get(&(&*key.algorithm, &*key.key_id)) {
                Some(json) if *json == &*key.json => {}
                Some(_) => {
                    let key_id = format!("{}:{}", key.algorithm, key.key_id);
                    return Ok(Err(UploadError::KeyChanged { key_id }));
                }
                None if known.insert(key.digest) => new.push(key),
                None => {}
            }
        }
        if !new.is_empty() && stored.len() + new.len() > self.limit {
            return Ok(Err(UploadError::TooManyKeys { limit: self.limit }));
        }
        Ok(Ok(new))
    }

    /// The fallback keys that replace others. One that is uploaded again stays as it is, used or not.
    async fn new_fallback_keys(&self, conn: &mut Conn<'_>) -> Result<Vec<&UploadedKey>, Error> {
        let uploaded = &self.upload.fallback_keys;
        if uploaded.is_empty() {
            return Ok(Vec::new());
        }
        let stored = one_time_keys::fallback_keys(conn, self.device).await?;
        let is_stored = |key: &UploadedKey| {
            stored.iter().any(|(algorithm, key_id, json): &KeyRow| {
                **algorithm == *key.algorithm && **key_id == *key.key_id && **json == *key.json
            })
        };
        Ok(uploaded.iter().filter(|key| !is_stored(key)).collect())
    }
}

impl Transaction for UploadKeys {
    type Output = Result<Uploaded, UploadError>;

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<Self::Output, Error> {
        if !devices::existing(conn, &[self.device]).await?.contains(&self.device) {
            return Ok(Err(UploadError::DeviceGone));
        }
        let one_time_keys = match self.new_one_time_keys(conn).await? {
            Ok(keys) => keys,
            Err(refused) => return Ok(Err(refused)),
        };
        let fallback_keys = self.new_fallback_keys(conn).await?;
        let mut uploaded =
            Uploaded { device_keys: false, counts: !one_time_keys.is_empty() || !fallback_keys.is_empty() };
        let mut rows: Vec<Row> = Vec::with_capacity(one_time_keys.len() + fallback_keys.len() + 2);
        for (seq, key) in (position.0 * SEQ_PER_UPLOAD..).zip(one_time_keys) {
            rows.push(ONE_TIME_KEY.row([
                self.device.into(),
                key.algorithm.clone().into(),
                key.key_id.clone().into(),
                seq.into(),
                key.json.clone().into(),
            ]));
        }
        for key in fallback_keys {
            rows.push(FALLBACK_KEY.row([
                self.device.into(),
                key.algorithm.clone().into(),
                key.key_id.clone().into(),
                key.json.clone().into(),
                false.into(),
            ]));
        }
        if let Some(json) = &self.upload.device_keys
            && device_keys::find_device_key(conn, self.device).await?.as_deref() != Some(&**json)
        {
            uploaded.device_keys = true;
            rows.push(DEVICE_KEY.row([self.device.into(), self.user.into(), json.clone().into()]));
            rows.extend(self.change.rows(position));
        }
        insert_rows(conn, &rows).await?;
        Ok(Ok(uploaded))
    }

    fn committed(&self, output: &Self::Output, position: Position) {
        let Ok(uploaded) = output else {
            return;
        };
        if uploaded.device_keys {
            self.change.committed(position);
        }
        if uploaded.counts {
            self.counts.changed(self.device, position);
            self.bus.mark_user(self.user, position);
        }
    }
}
