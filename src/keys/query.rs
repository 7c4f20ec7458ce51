//! Querying: the keys of other users' devices, with the signatures that the requester may see.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId,
    encryption::{CrossSigningKey, DeviceKeys},
    serde::Raw,
};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    Keys,
    cross_signing::{Usage, public_key_of},
};
use crate::{
    shares::large_answers::{LARGE_BYTES, LargeAnswers, NoTurn, Turn},
    store::{
        Error, UserNid,
        cross_signing::{self, SignatureRow},
        device_keys::{self, DeviceKeyRow},
        vocabulary::User,
    },
};

/// Maximum number of users in one query. Clients ask for some hundreds at once; the specification has no limit, and Synapse
/// none but the size of a request.
pub const MAX_QUERIED_USERS: usize = 10_000;

/// Maximum number of devices that one query names, of all users together. Clients name none, which means all.
pub const MAX_QUERIED_DEVICES: usize = 10_000;

/// Maximum bytes of the keys and signatures in one answer: ten thousand users with two devices each, which take 1.5 kB. They
/// are in memory several times while the answer is made.
pub const MAX_QUERIED_BYTES: usize = 32 << 20;

/// Maximum bytes of one user's keys and signatures if the answer has no space for everybody's: 80 devices with 1.5 kB. Users
/// with more are left out then. Otherwise a few of them would keep all others from being asked for in the same query.
const MAX_BYTES_OF_USER: usize = 128 << 10;

/// The time that a large answer waits for its turn. The request holds its memory meanwhile, for which other users' requests
/// wait twice as long.
const WAIT: Duration = Duration::from_secs(10);

/// Why a query was refused.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("at most {MAX_QUERIED_USERS} users and {MAX_QUERIED_DEVICES} devices can be asked for at once")]
    TooMany,
    #[error("the keys of these users have more than {MAX_QUERIED_BYTES} bytes; query fewer users at once")]
    TooLarge,
    #[error(transparent)]
    NoTurn(#[from] NoTurn),
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
    /// The turn of a large answer, to be held until the answer is complete.
    pub turn: Option<Turn>,
}

/// Signatures by the key that they sign.
struct Signatures {
    by_key: HashMap<(UserNid, String), Vec<SignatureRow>>,
    signers: HashMap<UserNid, OwnedUserId>,
}

/// The rows that were read for a query.
#[derive(Default)]
struct Rows {
    devices: Vec<DeviceKeyRow>,
    cross_signing: Vec<(UserNid, String, String)>,
    signatures: Vec<SignatureRow>,
    bytes: usize,
    by_user: HashMap<UserNid, usize>,
    /// The users who were left out.
    left_out: Vec<UserNid>,
}

impl Rows {
    fn add(
        &mut self,
        devices: Vec<DeviceKeyRow>,
        cross_signing: Vec<(UserNid, String, String)>,
        signatures: Vec<SignatureRow>,
    ) {
        let of_devices = devices.iter().map(|row| (UserNid(row.user_nid), row.json.len()));
        let of_cross_signing = cross_signing.iter().map(|(user, _, json)| (*user, json.len()));
        let of_signatures =
            signatures.iter().map(|row| (UserNid(row.user_nid), row.signer_key_id.len() + row.signature.len()));
        for (user, bytes) in of_devices.chain(of_cross_signing).chain(of_signatures) {
            self.bytes += bytes;
            *self.by_user.entry(user).or_default() += bytes;
        }
        self.devices.extend(devices);
        self.cross_signing.extend(cross_signing);
        self.signatures.extend(signatures);
    }

    /// Leaves out the users who have more than [`MAX_BYTES_OF_USER`].
    fn leave_out_large(&mut self) {
        let large: HashMap<UserNid, usize> = self.by_user.extract_if(|_, bytes| *bytes > MAX_BYTES_OF_USER).collect();
        self.bytes -= large.values().sum::<usize>();
        let stays = |user: UserNid| !large.contains_key(&user);
        self.devices.retain(|row| stays(UserNid(row.user_nid)));
        self.cross_signing.retain(|(user, ..)| stays(*user));
        self.signatures.retain(|row| stays(UserNid(row.user_nid)));
        self.left_out.extend(large.into_keys());
    }
}

impl Keys {
    /// Looks up the keys of these users: of all their devices, or of the devices in the list. Unknown users are missing
    /// from the answer, and so are users with very many keys if the answer has no space for all. A large answer waits for its
    /// turn.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query(
        &self,
        asker: &User,
        wanted: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
        large_answers: &LargeAnswers,
    ) -> Result<Queried, QueryError> {
        let named = wanted.values().map(Vec::len).sum::<usize>();
        if wanted.len() > MAX_QUERIED_USERS || named > MAX_QUERIED_DEVICES {
            return Err(QueryError::TooMany);
        }
        let mut queried = Queried { unreachable: self.other_servers(wanted.keys()), ..Queried::default() };
        let mut users = self.find_local(wanted.keys()).await?;
        queried.device_keys.extend(users.values().map(|user| (user.user_id.clone(), BTreeMap::new())));
        let nids: Vec<UserNid> = users.keys().copied().collect();
        let rows = match self.read_rows(asker, &nids, false).await? {
            Some(rows) => rows,
            None => {
                queried.turn = Some(large_answers.turn_until(asker.nid, Instant::now() + WAIT).await?);
                self.read_rows(asker, &nids, true).await?.unwrap_or_default()
            }
        };
        // Missing, not without devices: clients ask for them again.
        for user in &rows.left_out {
            if let Some(user) = users.remove(user) {
                queried.device_keys.remove(&user.user_id);
            }
        }
        let signatures = self.gather(rows.signatures).await?;
        // A set, because a list may repeat a device thousands of times.
        let devices_of = |user: &Arc<User>| wanted.get(&user.user_id).filter(|devices| !devices.is_empty());
        let named: HashMap<UserNid, HashSet<&OwnedDeviceId>> =
            users.iter().filter_map(|(nid, user)| Some((*nid, devices_of(user)?.iter().collect()))).collect();

        for row in rows.devices {
            let (user, device_id) = (UserNid(row.user_nid), OwnedDeviceId::from(row.device_id));
            let Some(owner) = users.get(&user) else {
                continue;
            };
            if named.get(&user).is_some_and(|devices| !devices.contains(&device_id)) {
                continue;
            }
            let mut keys = parse(&row.json)?;
            signatures.add_to(&mut keys, user, device_id.as_str());
            let mut unsigned = Map::new();
            if let Some(name) = row.display_name {
                unsigned.insert("device_display_name".to_owned(), name.into());
            }
            keys.insert("unsigned".to_owned(), unsigned.into());
            queried.device_keys.entry(owner.user_id.clone()).or_default().insert(device_id, raw(keys)?);
        }
        for (user, usage, json) in rows.cross_signing {
            let (Some(owner), Some(usage)) = (users.get(&user), Usage::from_stored(&usage)) else {
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
            keys.insert(owner.user_id.clone(), raw(key)?);
        }
        Ok(queried)
    }

    /// Reads the rows of these users. `None` if they are large and the answer has no turn.
    async fn read_rows(&self, asker: &User, nids: &[UserNid], has_turn: bool) -> Result<Option<Rows>, QueryError> {
        let mut rows = Rows::default();
        for nids in nids.chunks(device_keys::USERS_PER_STATEMENT) {
            // One for each piece, because others wait for a reader too.
            let mut reader = self.db.read().await?;
            let mut conn = reader.conn();
            let devices = device_keys::device_keys(&mut conn, nids).await?;
            let cross_signing = cross_signing::cross_signing_keys(&mut conn, nids).await?;
            rows.add(devices, cross_signing, cross_signing::visible_signatures(&mut conn, nids, asker.nid).await?);
            if rows.bytes > LARGE_BYTES && !has_turn {
                return Ok(None);
            }
            if rows.bytes > self.queried_bytes {
                rows.leave_out_large();
            }
            if rows.bytes > self.queried_bytes {
                return Err(QueryError::TooLarge);
            }
        }
        Ok(Some(rows))
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
