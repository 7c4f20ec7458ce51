//! Claiming: handing out one-time keys, each of them once.
//!
//! Promise: the commit that precedes the answer deletes the key and stores its digest. A crash before the answer loses
//! the key, but no key is handed out twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedServerName, OwnedUserId, api::client::keys::claim_keys::v3::OneTimeKeys,
    encryption::OneTimeKey, serde::Raw,
};

use super::{Keys, validate};
use crate::store::{
    Conn, DeviceNid, Error, Position, Row, Transaction, UserNid,
    committer::insert_rows,
    device_keys,
    log::Touch,
    one_time_keys::{self, ClaimedKeyColumns},
};

/// Maximum number of devices in one claim: a room of a thousand people with several devices each.
pub const MAX_CLAIMED_DEVICES: usize = 5_000;

/// Devices in one transaction, so that a large claim does not delay all other writes.
const DEVICES_PER_TRANSACTION: usize = 50;

/// The devices to claim a key of, with the algorithm.
pub type Wanted = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>;

/// The keys that were handed out.
#[derive(Debug, Default)]
pub struct Claimed {
    pub keys: BTreeMap<OwnedUserId, OneTimeKeys>,
    /// Servers whose users' keys could not be fetched.
    pub unreachable: BTreeSet<OwnedServerName>,
}

/// Why a claim was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("at most {MAX_CLAIMED_DEVICES} users and devices can be asked for at once")]
    TooMany,
    #[error("could not take the keys")]
    Storage(#[from] Error),
}

#[derive(Debug, Clone)]
struct Target {
    user: UserNid,
    user_id: OwnedUserId,
    device: DeviceNid,
    device_id: OwnedDeviceId,
    algorithm: Arc<str>,
}

/// A key that was taken for the target with the index `target`.
pub(super) struct Taken {
    target: usize,
    key_id: String,
    json: String,
}

struct ClaimKeys {
    targets: Arc<[Target]>,
}

impl Keys {
    /// Hands out a key of each device: the one-time key that was uploaded first, or else the fallback key. Devices that
    /// have neither are missing from the answer.
    ///
    /// # Errors
    /// After [`ClaimError::Storage`] some keys may be used up although nobody received them. They are not handed out
    /// again.
    pub async fn claim(&self, wanted: &Wanted) -> Result<Claimed, ClaimError> {
        let devices = wanted.values().map(BTreeMap::len).sum::<usize>();
        // A user may be named without a device.
        if devices.max(wanted.len()) > MAX_CLAIMED_DEVICES {
            return Err(ClaimError::TooMany);
        }
        let mut claimed = Claimed::default();
        let targets = self.find_targets(wanted, &mut claimed).await?;
        for chunk in targets.chunks(DEVICES_PER_TRANSACTION) {
            let targets: Arc<[Target]> = chunk.into();
            let transaction = ClaimKeys { targets: Arc::clone(&targets) };
            for taken in self.db.committer().transact(transaction).await? {
                let target = &targets[taken.target];
                let id = format!("{}:{}", target.algorithm, taken.key_id);
                let id = id.as_str().try_into().map_err(|error| Error::damaged("ID of a one-time key", error))?;
                let key: Raw<OneTimeKey> =
                    Raw::from_json_string(taken.json).map_err(|error| Error::damaged("one-time key", error))?;
                let devices = claimed.keys.entry(target.user_id.clone()).or_default();
                devices.entry(target.device_id.clone()).or_default().insert(id, key);
            }
        }
        Ok(claimed)
    }

    async fn find_targets(&self, wanted: &Wanted, claimed: &mut Claimed) -> Result<Vec<Target>, Error> {
        claimed.unreachable = self.other_servers(wanted.keys());
        let users = self.find_local(wanted.keys()).await?;
        let nids: Vec<UserNid> = users.keys().copied().collect();
        let mut reader = self.db.read().await?;
        let devices = device_keys::devices(&mut reader.conn(), &nids).await?;
        let mut targets = Vec::new();
        for (user, device, device_id) in devices {
            let Some((user_id, wanted)) = users.get(&user).and_then(|user| wanted.get_key_value(&user.user_id)) else {
                continue;
            };
            let device_id = OwnedDeviceId::from(device_id);
            if let Some(algorithm) = wanted.get(&device_id)
                && validate::is_plain(algorithm.as_ref())
            {
                let algorithm = algorithm.as_ref().into();
                targets.push(Target { user, user_id: user_id.clone(), device, device_id, algorithm });
            }
        }
        Ok(targets)
    }
}

impl Transaction for ClaimKeys {
    type Output = Vec<Taken>;

    fn rows(&self) -> usize {
        self.targets.len()
    }

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, Error> {
        let mut taken = Vec::with_capacity(self.targets.len());
        let mut digests: Vec<Row> = Vec::with_capacity(self.targets.len());
        for (index, target) in self.targets.iter().enumerate() {
            if let Some((key_id, digest, json)) =
                one_time_keys::take_next(conn, target.device, &target.algorithm).await?
            {
                digests.push(ClaimedKeyColumns { device_nid: target.device, digest }.row());
                taken.push(Taken { target: index, key_id, json });
            } else if let Some((key_id, json)) =
                one_time_keys::use_fallback(conn, target.device, &target.algorithm).await?
            {
                taken.push(Taken { target: index, key_id, json });
            }
        }
        for taken in &taken {
            let Target { user, device, .. } = self.targets[taken.target];
            conn.touch(Touch::KeyCounts { user, device });
        }
        insert_rows(conn, &digests).await?;
        Ok(taken)
    }
}
