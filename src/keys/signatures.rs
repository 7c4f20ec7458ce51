//! Signatures that are added to keys: a user vouches for their devices, and for other users.
//!
//! Promise: only a signature that holds, by a key that may sign that key, is stored. What is wrong with one key does not
//! concern the others of the same upload.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedUserId, SigningKeyAlgorithm, UserId,
    serde::Base64,
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};

use super::{Keys, changes::DeviceChange, cross_signing::Usage, validate};
use crate::{
    account::LocalDevice,
    store::{
        Conn, Error, Position, RoomNid, Row, Transaction, UserNid,
        committer::insert_rows,
        cross_signing::{self, KEY_SIGNATURE},
        device_keys,
    },
};

/// Signed keys in one upload: verifying users in bulk is rare, and each takes a check of an Ed25519 signature.
pub const MAX_SIGNED_KEYS: usize = 256;

/// Signatures checked on one key; the others are ignored.
const MAX_SIGNATURES_OF_KEY: usize = 16;

/// Size of one signed key.
const MAX_SIGNED_KEY_BYTES: usize = 16 * 1024;

/// A signed key as it was uploaded: whose it is, its ID, its JSON.
#[derive(Debug, Clone)]
pub struct SignedKey {
    pub user_id: OwnedUserId,
    /// A device ID or a public cross-signing key.
    pub key_id: String,
    pub json: String,
}

/// What was wrong with one of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFailure {
    #[error("there is no such key, or it cannot be signed")]
    NotFound,
    #[error("the signed key is not the one that was published")]
    OtherKey,
    #[error("there is no valid signature by a key of yours that may sign this one")]
    InvalidSignature,
    #[error("the signed key is malformed or too large")]
    Malformed,
}

/// Why an upload of signatures was refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum SignaturesError {
    #[error("at most {MAX_SIGNED_KEYS} signed keys can be uploaded at once")]
    TooMany,
    #[error("could not store the signatures")]
    Storage(#[from] Error),
}

/// What was wrong, by user and key ID; everything else was stored.
pub type Failures = BTreeMap<OwnedUserId, BTreeMap<String, SignatureFailure>>;

/// Whether this is the signature of `object` by the Ed25519 key.
pub fn verify(object: &CanonicalJsonObject, public_key: &[u8; 32], signature: &str) -> bool {
    let Ok(signature) = Base64::<ruma::serde::base64::Standard>::parse(signature) else {
        return false;
    };
    to_canonical_json_string_for_signing(object).is_ok_and(|json| {
        verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, public_key, signature.as_bytes(), json.as_bytes())
            .is_ok()
    })
}

/// The signature by this user's key that the object carries.
pub(super) fn signature_of<'a>(object: &'a CanonicalJsonObject, signer: &UserId, key_id: &str) -> Option<&'a str> {
    signatures_of(object, signer)?.get(key_id)?.as_str()
}

fn signatures_of<'a>(object: &'a CanonicalJsonObject, signer: &UserId) -> Option<&'a CanonicalJsonObject> {
    object.get("signatures")?.as_object()?.get(signer.as_str())?.as_object()
}

/// The Ed25519 keys of the user's devices, by key ID.
pub(super) async fn signing_keys_of_devices(
    conn: &mut Conn<'_>,
    user: UserNid,
) -> Result<Vec<(String, [u8; 32])>, Error> {
    let mut keys = Vec::new();
    for row in device_keys::device_keys(conn, &[user]).await? {
        let object = parse_stored(&row.json)?;
        let key_id = format!("ed25519:{}", row.device_id);
        let key = object.get("keys").and_then(CanonicalJsonValue::as_object).and_then(|keys| keys.get(&*key_id));
        keys.extend(key.and_then(CanonicalJsonValue::as_str).and_then(validate::public_key).map(|key| (key_id, key)));
    }
    Ok(keys)
}

fn parse_stored(json: &str) -> Result<CanonicalJsonObject, Error> {
    serde_json::from_str(json).map_err(|error| Error::damaged("key", error))
}

/// A key that others may sign, as it was published.
struct Published {
    object: CanonicalJsonObject,
    /// Keys of the caller that may sign it.
    signers: Vec<(String, [u8; 32])>,
}

struct UploadSignatures {
    user: UserNid,
    user_id: OwnedUserId,
    /// Each with the short id of its owner, if that user exists.
    keys: Vec<(Option<UserNid>, SignedKey)>,
    change: DeviceChange,
}

/// What was stored and what was not.
#[derive(Default)]
pub(super) struct Outcome {
    failures: Failures,
    changed: BTreeSet<UserNid>,
}

impl Keys {
    /// Stores the caller's signatures on these keys. `rooms` are those that the caller has joined; they hear of signatures
    /// on the caller's own keys.
    ///
    /// # Errors
    /// [`SignaturesError`]; nothing is stored then. What is wrong with single keys is in the answer.
    pub async fn upload_signatures(
        &self,
        caller: &LocalDevice,
        signed: Vec<SignedKey>,
        rooms: Vec<RoomNid>,
    ) -> Result<Failures, SignaturesError> {
        if signed.len() > MAX_SIGNED_KEYS {
            return Err(SignaturesError::TooMany);
        }
        let mut keys = Vec::with_capacity(signed.len());
        for key in signed {
            let owner = if self.is_local(&key.user_id) { self.db.find_user(&key.user_id).await? } else { None };
            keys.push((owner.map(|owner| owner.nid), key));
        }
        let touches_own = keys.iter().any(|(owner, _)| *owner == Some(caller.user.nid));
        let rooms = if touches_own { rooms } else { Vec::new() };
        let transaction = UploadSignatures {
            user: caller.user.nid,
            user_id: caller.user_id().to_owned(),
            keys,
            change: self.device_change(caller.user.nid, rooms),
        };
        Ok(self.db.committer().transact(transaction).await?.failures)
    }
}

impl UploadSignatures {
    /// Every key that the caller may sign: their devices, their master key, and other users' master keys.
    async fn published(&self, conn: &mut Conn<'_>) -> Result<BTreeMap<(UserNid, String), Published>, Error> {
        let owners: BTreeSet<UserNid> = self.keys.iter().filter_map(|(owner, _)| *owner).chain([self.user]).collect();
        let owners: Vec<UserNid> = owners.into_iter().collect();
        let devices = signing_keys_of_devices(conn, self.user).await?;
        let mut own = Vec::new();
        let mut masters = Vec::new();
        for (owner, usage, json) in cross_signing::cross_signing_keys(conn, &owners).await? {
            let object = parse_stored(&json)?;
            let keys = object.get("keys").and_then(CanonicalJsonValue::as_object);
            let Some(public_key) = keys.and_then(|keys| keys.values().next()).and_then(CanonicalJsonValue::as_str)
            else {
                continue;
            };
            let public_key = public_key.to_owned();
            let usage = Usage::from_stored(&usage);
            if owner == self.user {
                own.extend(
                    usage
                        .zip(validate::public_key(&public_key))
                        .map(|(usage, bytes)| (usage, (format!("ed25519:{public_key}"), bytes))),
                );
            }
            if usage == Some(Usage::Master) {
                masters.push((owner, public_key, object));
            }
        }
        let own_key = |usage| -> Vec<(String, [u8; 32])> {
            own.iter().filter(|(other, _)| *other == usage).map(|(_, key)| key.clone()).collect()
        };
        let mut published = BTreeMap::new();
        for row in device_keys::device_keys(conn, &[self.user]).await? {
            let object = parse_stored(&row.json)?;
            published.insert((self.user, row.device_id), Published { object, signers: own_key(Usage::SelfSigning) });
        }
        for (owner, public_key, object) in masters {
            let signers = if owner == self.user { devices.clone() } else { own_key(Usage::UserSigning) };
            published.insert((owner, public_key), Published { object, signers });
        }
        Ok(published)
    }

    /// The new valid signatures on one key: key ID of the signer, and signature.
    fn check(&self, key: &SignedKey, published: &Published) -> Result<Vec<(String, String)>, SignatureFailure> {
        if key.json.len() > MAX_SIGNED_KEY_BYTES {
            return Err(SignatureFailure::Malformed);
        }
        let signed: CanonicalJsonObject = serde_json::from_str(&key.json).map_err(|_| SignatureFailure::Malformed)?;
        if unsigned(&signed) != unsigned(&published.object) {
            return Err(SignatureFailure::OtherKey);
        }
        let Some(signatures) = signatures_of(&signed, &self.user_id) else {
            return Err(SignatureFailure::InvalidSignature);
        };
        let mut new = Vec::new();
        for (key_id, signature) in signatures.iter().take(MAX_SIGNATURES_OF_KEY) {
            let signature = signature.as_str().ok_or(SignatureFailure::Malformed)?;
            // Clients send the key with the signatures that they got with it.
            if signature_of(&published.object, &self.user_id, key_id) == Some(signature) {
                continue;
            }
            let signer = published.signers.iter().find(|(name, _)| name == key_id.as_str());
            if !signer.is_some_and(|(_, public_key)| verify(&published.object, public_key, signature)) {
                return Err(SignatureFailure::InvalidSignature);
            }
            new.push((key_id.to_string(), signature.to_owned()));
        }
        Ok(new)
    }
}

/// The key without what is not signed.
fn unsigned(object: &CanonicalJsonObject) -> CanonicalJsonObject {
    let mut object = object.clone();
    object.remove("signatures");
    object.remove("unsigned");
    object
}

impl Transaction for UploadSignatures {
    type Output = Outcome;

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<Self::Output, Error> {
        let published = self.published(conn).await?;
        let mut outcome = Outcome::default();
        let mut rows: Vec<Row> = Vec::new();
        for (owner, key) in &self.keys {
            let found = owner.and_then(|owner| Some((owner, published.get(&(owner, key.key_id.clone()))?)));
            let checked = match found {
                Some((owner, published)) => self.check(key, published).map(|new| (owner, new)),
                None => Err(SignatureFailure::NotFound),
            };
            match checked {
                Ok((owner, new)) => {
                    for (signer_key_id, signature) in new {
                        outcome.changed.insert(owner);
                        rows.push(KEY_SIGNATURE.row([
                            owner.into(),
                            key.key_id.clone().into(),
                            self.user.into(),
                            signer_key_id.into(),
                            signature.into(),
                        ]));
                    }
                }
                Err(failure) => {
                    outcome.failures.entry(key.user_id.clone()).or_default().insert(key.key_id.clone(), failure);
                }
            }
        }
        // Another user's list counts as changed too: the caller's other devices must fetch it to see the signature.
        rows.extend(self.change.of_users(outcome.changed.iter().copied().collect()).rows(position));
        insert_rows(conn, &rows).await?;
        Ok(outcome)
    }

    fn committed(&self, output: &Self::Output, position: Position) {
        self.change.of_users(output.changed.iter().copied().collect()).committed(position);
    }
}
