//! Signatures that are added to keys: a user vouches for their devices, and for other users.
//!
//! Promise: a signature is stored only if it is valid and made by a key that may sign that key. A mistake in one key
//! does not affect the other keys of the same upload.
//!
//! Everything is read, parsed and verified before the commit ([`Stored`]). The commit only compares the texts of these
//! keys with the stored ones. If a text is the same, its checks still hold.

mod stored;

use std::collections::{BTreeMap, BTreeSet};

use ruma::{
    CanonicalJsonObject, OwnedUserId, SigningKeyAlgorithm, UserId,
    serde::Base64,
    signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};

pub(super) use self::stored::Stored;
use self::stored::{KeyPlace, Signer, public_key_of};
use super::{Keys, changes::list_change, cross_signing::Usage, validate};
use crate::{
    account::LocalDevice,
    store::{
        Conn, Error, Position, Row, Transaction, UserNid, committer::insert_rows, cross_signing::KeySignatureColumns,
    },
};

/// Maximum number of signed keys in one upload. Users rarely verify many others at once, and each key costs the check
/// of an Ed25519 signature.
pub const MAX_SIGNED_KEYS: usize = 256;

/// Maximum number of signatures checked on one key. The others are ignored.
pub(super) const MAX_SIGNATURES_OF_KEY: usize = 16;

/// Maximum size of one signed key: the largest published key, with its signatures.
const MAX_SIGNED_KEY_BYTES: usize = 16 * 1024;

/// A signed key as it was uploaded: its owner, its ID, its JSON.
#[derive(Debug, Clone)]
pub struct SignedKey {
    pub user_id: OwnedUserId,
    /// A device ID or a public cross-signing key.
    pub key_id: String,
    pub json: String,
}

/// The mistake in one of the keys.
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

/// Why a whole upload of signatures was refused.
#[derive(Debug, thiserror::Error)]
pub enum SignaturesError {
    #[error("at most {MAX_SIGNED_KEYS} signed keys can be uploaded at once")]
    TooMany,
    #[error("could not store the signatures")]
    Storage(#[from] Error),
}

/// The mistakes, by user and key ID. Everything else was stored.
pub type Failures = BTreeMap<OwnedUserId, BTreeMap<String, SignatureFailure>>;

/// Returns whether `signature` is the signature of `object` by the Ed25519 key.
pub fn verify(object: &CanonicalJsonObject, public_key: &[u8; 32], signature: &str) -> bool {
    let Ok(signature) = Base64::<ruma::serde::base64::Standard>::parse(signature) else {
        return false;
    };
    to_canonical_json_string_for_signing(object).is_ok_and(|json| {
        verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, public_key, signature.as_bytes(), json.as_bytes())
            .is_ok()
    })
}

/// The object's signature by this key of this user.
pub(super) fn signature_of<'a>(object: &'a CanonicalJsonObject, signer: &UserId, key_id: &str) -> Option<&'a str> {
    signatures_of(object, signer)?.get(key_id)?.as_str()
}

fn signatures_of<'a>(object: &'a CanonicalJsonObject, signer: &UserId) -> Option<&'a CanonicalJsonObject> {
    object.get("signatures")?.as_object()?.get(signer.as_str())?.as_object()
}

/// The IDs of the devices with which the user signed the object. Only the first [`MAX_SIGNATURES_OF_KEY`] signatures
/// count.
pub(super) fn signing_devices(object: &CanonicalJsonObject, user_id: &UserId) -> Vec<String> {
    let names = signatures_of(object, user_id).into_iter().flatten().take(MAX_SIGNATURES_OF_KEY);
    names.filter_map(|(key_id, _)| key_id.strip_prefix("ed25519:").map(str::to_owned)).collect()
}

/// A valid signature, and the keys with which it was checked.
struct Valid {
    owner: UserNid,
    owner_id: OwnedUserId,
    key_id: String,
    signer_key_id: String,
    signature: String,
    relies_on: [KeyPlace; 2],
}

struct UploadSignatures {
    user: UserNid,
    stored: Stored,
    valid: Vec<Valid>,
    failures: Failures,
}

impl Keys {
    /// Stores the caller's signatures on these keys. The rooms of the keys' owners should be in memory: the commit marks
    /// their members, or else everyone.
    ///
    /// # Errors
    /// [`SignaturesError`]. Nothing is stored then. The mistakes in single keys are in the answer.
    pub async fn upload_signatures(
        &self,
        caller: &LocalDevice,
        signed: Vec<SignedKey>,
    ) -> Result<Failures, SignaturesError> {
        if signed.len() > MAX_SIGNED_KEYS {
            return Err(SignaturesError::TooMany);
        }
        let mut keys = Vec::with_capacity(signed.len());
        for key in signed {
            let owner = if self.is_local(&key.user_id) { self.db.find_user(&key.user_id).await? } else { None };
            keys.push((owner.map(|owner| owner.nid), key));
        }
        let stored = self.stored_for(caller, &keys).await?;
        let mut transaction =
            UploadSignatures { user: caller.user.nid, valid: Vec::new(), failures: Failures::new(), stored };
        for (owner, key) in keys {
            match transaction.check(caller.user_id(), owner, &key)? {
                Ok(valid) => transaction.valid.extend(valid),
                Err(failure) => {
                    transaction.failures.entry(key.user_id).or_default().insert(key.key_id, failure);
                }
            }
        }
        if transaction.valid.is_empty() {
            return Ok(transaction.failures);
        }
        Ok(self.db.committer().transact(transaction).await?)
    }

    /// Reads the stored texts of the keys in the upload, and of the keys that may have signed them.
    async fn stored_for(
        &self,
        caller: &LocalDevice,
        keys: &[(Option<UserNid>, SignedKey)],
    ) -> Result<Stored, SignaturesError> {
        let own = caller.user.nid;
        let of_own = || keys.iter().filter(|(owner, _)| *owner == Some(own)).map(|(_, key)| key);
        let mut others: Vec<UserNid> =
            keys.iter().filter_map(|(owner, _)| *owner).filter(|owner| *owner != own).collect();
        others.dedup();
        let mut reader = self.db.read().await?;
        let cross_signing = Stored::read(&mut reader.conn(), own, &[], &[]).await?;
        let master = cross_signing.own_key(Usage::Master)?;
        let mut device_ids: Vec<String> = of_own().map(|key| key.key_id.clone()).collect();
        for key in of_own().filter(|key| Some(&key.key_id) == master.as_ref()) {
            device_ids.extend(key.parse().iter().flat_map(|object| signing_devices(object, caller.user_id())));
        }
        // PostgreSQL cannot look up a NUL, and no device ID contains one.
        device_ids.retain(|device_id| validate::is_plain(device_id));
        Ok(Stored::read(&mut reader.conn(), own, &device_ids, &others).await?)
    }
}

impl SignedKey {
    fn parse(&self) -> Option<CanonicalJsonObject> {
        if self.json.len() > MAX_SIGNED_KEY_BYTES { None } else { serde_json::from_str(&self.json).ok() }
    }
}

impl UploadSignatures {
    /// The published key with this ID, and the caller's keys that may sign it: the self-signing key for their devices,
    /// their devices for their master key, and the user-signing key for other users' master keys.
    fn published(
        &self,
        owner: UserNid,
        key_id: &str,
    ) -> Result<Option<(KeyPlace, CanonicalJsonObject, Vec<Signer>)>, Error> {
        let device = KeyPlace::Device(key_id.to_owned());
        let place = if owner != self.user {
            KeyPlace::Master(owner)
        } else if self.stored.get(&device).is_some() {
            device
        } else {
            KeyPlace::Own(Usage::Master)
        };
        let Some(object) = self.stored.parsed(&place)? else {
            return Ok(None);
        };
        if !matches!(place, KeyPlace::Device(_)) && public_key_of(&object).as_deref() != Some(key_id) {
            return Ok(None);
        }
        let signers = match place {
            KeyPlace::Device(_) => self.stored.own_signer(Usage::SelfSigning)?.into_iter().collect(),
            KeyPlace::Master(_) => self.stored.own_signer(Usage::UserSigning)?.into_iter().collect(),
            KeyPlace::Own(_) => self.stored.device_signers()?,
        };
        Ok(Some((place, object, signers)))
    }

    /// The new valid signatures on one key.
    fn check(
        &self,
        user_id: &UserId,
        owner: Option<UserNid>,
        key: &SignedKey,
    ) -> Result<Result<Vec<Valid>, SignatureFailure>, Error> {
        let Some(owner) = owner else {
            return Ok(Err(SignatureFailure::NotFound));
        };
        let Some((place, published, signers)) = self.published(owner, &key.key_id)? else {
            return Ok(Err(SignatureFailure::NotFound));
        };
        let Some(signed) = key.parse() else {
            return Ok(Err(SignatureFailure::Malformed));
        };
        if unsigned(&signed) != unsigned(&published) {
            return Ok(Err(SignatureFailure::OtherKey));
        }
        let Some(signatures) = signatures_of(&signed, user_id) else {
            return Ok(Err(SignatureFailure::InvalidSignature));
        };
        let mut valid = Vec::new();
        for (key_id, signature) in signatures.iter().take(MAX_SIGNATURES_OF_KEY) {
            let Some(signature) = signature.as_str() else {
                return Ok(Err(SignatureFailure::Malformed));
            };
            // Clients send the key together with the signatures that they received with it.
            if signature_of(&published, user_id, key_id) == Some(signature) {
                continue;
            }
            let signer = signers.iter().find(|signer| signer.key_id == **key_id);
            let Some(signer) = signer.filter(|signer| verify(&published, &signer.public_key, signature)) else {
                return Ok(Err(SignatureFailure::InvalidSignature));
            };
            valid.push(Valid {
                owner,
                owner_id: key.user_id.clone(),
                key_id: key.key_id.clone(),
                signer_key_id: signer.key_id.clone(),
                signature: signature.to_owned(),
                relies_on: [place.clone(), signer.place.clone()],
            });
        }
        Ok(Ok(valid))
    }
}

/// The key without its unsigned parts.
fn unsigned(object: &CanonicalJsonObject) -> CanonicalJsonObject {
    let mut object = object.clone();
    object.remove("signatures");
    object.remove("unsigned");
    object
}

impl Transaction for UploadSignatures {
    type Output = Failures;

    fn rows(&self) -> usize {
        self.valid.len()
    }

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<Self::Output, Error> {
        let now = self.stored.read_again(conn).await?;
        let (mut failures, mut changed) = (self.failures.clone(), BTreeSet::new());
        let mut rows: Vec<Row> = Vec::new();
        for valid in &self.valid {
            if valid.relies_on.iter().any(|place| now.get(place) != self.stored.get(place)) {
                let of_owner = failures.entry(valid.owner_id.clone()).or_default();
                of_owner.insert(valid.key_id.clone(), SignatureFailure::OtherKey);
                continue;
            }
            changed.insert(valid.owner);
            rows.push(
                KeySignatureColumns {
                    user_nid: valid.owner,
                    key_id: valid.key_id.clone().into(),
                    signer_nid: self.user,
                    signer_key_id: valid.signer_key_id.clone().into(),
                    signature: valid.signature.clone().into(),
                }
                .row(),
            );
        }
        // Another user's list counts as changed too: the caller's other devices must fetch it to see the signature.
        rows.extend(changed.into_iter().map(|owner| list_change(conn, owner, position)));
        insert_rows(conn, &rows).await?;
        Ok(failures)
    }
}
