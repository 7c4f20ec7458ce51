//! Querying: the keys of other users' devices, with the signatures that the requester may see.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry};

use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde_json::{Map, Value};

use super::{
    Keys,
    cross_signing::{Usage, public_key_of},
};
use crate::store::{
    Error, UserNid,
    cross_signing::{self, SignatureRow},
    device_keys,
    vocabulary::User,
};

/// Maximum number of users in one query.
pub const MAX_QUERIED_USERS: usize = 10_000;

/// Maximum bytes of the keys and signatures in one answer: ten thousand users with two devices each, which take 1.5 kB. They
/// are in memory several times while the answer is made.
pub const MAX_QUERIED_BYTES: usize = 32 << 20;

/// Why a query was refused.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("at most {MAX_QUERIED_USERS} users can be asked for at once")]
    TooMany,
    #[error("the keys of these users have more than {MAX_QUERIED_BYTES} bytes; query fewer users at once")]
    TooLarge,
    #[error("could not read the keys")]
    Storage(#[from] Error),
}

/// Keys of users, by usage.
#[derive(Debug, Default)]
pub struct Queried {
    pub device_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>>,
    pub master_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    pub self_signing_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// Keys of the requester only.
    pub user_signing_keys: BTreeMap<OwnedUserId, Raw<CrossSigningKey>>,
    /// Servers whose users' keys could not be fetched.
    pub unreachable: BTreeSet<OwnedServerName>,
}

/// Signatures by the key that they sign.
struct Signatures {
    by_key: HashMap<(UserNid, String), Vec<SignatureRow>>,
    signers: HashMap<UserNid, OwnedUserId>,
}

impl Keys {
    /// Looks up the keys of these users: of all their devices, or of the devices in the list. Unknown users are missing
    /// from the answer.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query(
        &self,
        asker: &User,
        wanted: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<Queried, QueryError> {
        if wanted.len() > MAX_QUERIED_USERS {
            return Err(QueryError::TooMany);
        }
        let mut queried = Queried::default();
        let mut users = HashMap::new();
        for user_id in wanted.keys() {
            if !self.is_local(user_id) {
                queried.unreachable.insert(user_id.server_name().to_owned());
            } else if let Some(user) = self.db.find_user(user_id).await? {
                queried.device_keys.insert(user_id.clone(), BTreeMap::new());
                users.insert(user.nid, user_id);
            }
        }
        let nids: Vec<UserNid> = users.keys().copied().collect();
        let mut reader = self.db.read().await?;
        let mut conn = reader.conn();
        let (mut device_rows, mut cross_signing_rows, mut signature_rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for nids in nids.chunks(device_keys::USERS_PER_STATEMENT) {
            let devices = device_keys::device_keys(&mut conn, nids).await?;
            let cross_signing = cross_signing::cross_signing_keys(&mut conn, nids).await?;
            let signatures = cross_signing::visible_signatures(&mut conn, nids, asker.nid).await?;
            bytes += devices.iter().map(|row| row.json.len()).sum::<usize>()
                + cross_signing.iter().map(|(_, _, json)| json.len()).sum::<usize>()
                + signatures.iter().map(|row| row.signer_key_id.len() + row.signature.len()).sum::<usize>();
            if bytes > self.queried_bytes {
                return Err(QueryError::TooLarge);
            }
            device_rows.extend(devices);
            cross_signing_rows.extend(cross_signing);
            signature_rows.extend(signatures);
        }
        drop(reader);
        let signatures = self.gather(signature_rows).await?;
        // A set, because a list may repeat a device thousands of times.
        let named: HashMap<&OwnedUserId, HashSet<&OwnedDeviceId>> =
            wanted.iter().map(|(user_id, devices)| (user_id, devices.iter().collect())).collect();

        for row in device_rows {
            let (user, device_id) = (UserNid(row.user_nid), OwnedDeviceId::from(row.device_id));
            let Some(user_id) = users.get(&user) else {
                continue;
            };
            let devices = &named[*user_id];
            if !devices.is_empty() && !devices.contains(&device_id) {
                continue;
            }
            let mut keys = parse(&row.json)?;
            signatures.add_to(&mut keys, user, device_id.as_str());
            let mut unsigned = Map::new();
            if let Some(name) = row.display_name {
                unsigned.insert("device_display_name".to_owned(), name.into());
            }
            keys.insert("unsigned".to_owned(), unsigned.into());
            queried.device_keys.entry((*user_id).clone()).or_default().insert(device_id, raw(keys)?);
        }
        for (user, usage, json) in cross_signing_rows {
            let (Some(user_id), Some(usage)) = (users.get(&user), Usage::from_stored(&usage)) else {
                continue;
            };
            let keys = match usage {
                Usage::Master => &mut queried.master_keys,
                Usage::SelfSigning => &mut queried.self_signing_keys,
                Usage::UserSigning if user == asker.nid => &mut queried.user_signing_keys,
                Usage::UserSigning => continue,
            };
            let mut key = parse(&json)?;
            if let Some(public_key) = public_key_of(&key).map(str::to_owned) {
                signatures.add_to(&mut key, user, &public_key);
            }
            keys.insert((*user_id).clone(), raw(key)?);
        }
        Ok(queried)
    }

    async fn gather(&self, rows: Vec<SignatureRow>) -> Result<Signatures, Error> {
        let mut signatures = Signatures { by_key: HashMap::new(), signers: HashMap::new() };
        for row in rows {
            let signer = UserNid(row.signer_nid);
            if let Entry::Vacant(entry) = signatures.signers.entry(signer) {
                entry.insert(self.db.user_by_nid(signer).await?.user_id.clone());
            }
            signatures.by_key.entry((UserNid(row.user_nid), row.key_id.clone())).or_default().push(row);
        }
        Ok(signatures)
    }
}

impl Signatures {
    fn add_to(&self, key: &mut Map<String, Value>, user: UserNid, key_id: &str) {
        let Some(rows) = self.by_key.get(&(user, key_id.to_owned())) else {
            return;
        };
        let all = key.entry("signatures").or_insert_with(|| Map::new().into());
        for row in rows {
            let (Value::Object(all), Some(signer)) = (&mut *all, self.signers.get(&UserNid(row.signer_nid))) else {
                continue;
            };
            let of_signer = all.entry(signer.as_str()).or_insert_with(|| Map::new().into());
            if let Value::Object(of_signer) = of_signer {
                of_signer.insert(row.signer_key_id.clone(), row.signature.clone().into());
            }
        }
    }
}

fn parse(json: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(json).map_err(|error| Error::damaged("key", error))
}

fn raw<T>(object: Map<String, Value>) -> Result<Raw<T>, Error> {
    let json = serde_json::value::to_raw_value(&object).map_err(|error| Error::damaged("key", error))?;
    Ok(Raw::from_json(json))
}
