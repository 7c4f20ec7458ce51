//! Cross-signing: a user's master key, and the keys with which the user vouches for their devices and for other users.
//!
//! Promise: replacing a key needs a new authentication and the signature of the user's master key. It deletes the
//! signatures on and by the old key.

use ruma::{CanonicalJsonObject, CanonicalJsonValue, UserId, encryption::CrossSigningKey, serde::Raw};
use serde_json::{Map, Value};

use super::{
    Keys,
    changes::list_change,
    signatures::{self, Stored},
    validate,
};
use crate::{
    account::LocalDevice,
    store::{
        Conn, Error, Position, Row, Transaction, UserNid,
        committer::insert_rows,
        cross_signing::{self, CrossSigningKeyColumns},
        devices,
    },
};

/// Maximum size of one cross-signing key with its signatures: a kilobyte, and a line for each device that signs.
pub const MAX_SIGNING_KEY_BYTES: usize = 8 * 1024;

/// The purpose of a cross-signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Master,
    SelfSigning,
    UserSigning,
}

impl Usage {
    /// The name of the usage in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }

    pub(super) fn from_stored(text: &str) -> Option<Self> {
        [Self::Master, Self::SelfSigning, Self::UserSigning].into_iter().find(|usage| usage.as_str() == text)
    }
}

/// Why cross-signing keys were refused.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeysError {
    #[error("the {} key is malformed: {detail}", usage.as_str())]
    Malformed { usage: Usage, detail: String },
    #[error("the {} key is not for this user", .0.as_str())]
    NotOwn(Usage),
    #[error("the {} key is not signed by the master key", .0.as_str())]
    NotSigned(Usage),
    #[error("there is no master key")]
    NoMasterKey,
    #[error("the {} key is the same as one of the user's device IDs", .0.as_str())]
    SameAsDevice(Usage),
    /// The keys would replace others. Call again with `authenticated` after the user has authenticated.
    #[error("replacing cross-signing keys needs authentication")]
    NeedsAuthentication,
    #[error("could not store the keys")]
    Storage(#[from] Error),
}

/// A cross-signing key that passed the checks that need no other key.
#[derive(Debug, Clone)]
pub struct SigningKey {
    usage: Usage,
    public_key: String,
    object: CanonicalJsonObject,
}

/// The cross-signing keys of an upload.
#[derive(Debug, Clone, Default)]
pub struct SigningKeys(Vec<SigningKey>);

impl SigningKeys {
    /// Checks the shapes of uploaded keys.
    ///
    /// # Errors
    /// [`SigningKeysError::Malformed`] and [`SigningKeysError::NotOwn`].
    pub fn check(
        user_id: &UserId,
        master: Option<&Raw<CrossSigningKey>>,
        self_signing: Option<&Raw<CrossSigningKey>>,
        user_signing: Option<&Raw<CrossSigningKey>>,
    ) -> Result<Self, SigningKeysError> {
        let keys = [(Usage::Master, master), (Usage::SelfSigning, self_signing), (Usage::UserSigning, user_signing)];
        let present = keys.into_iter().filter_map(|(usage, key)| Some((usage, key?)));
        Ok(Self(present.map(|(usage, key)| SigningKey::check(user_id, usage, key)).collect::<Result<_, _>>()?))
    }

    fn get(&self, usage: Usage) -> Option<&SigningKey> {
        self.0.iter().find(|key| key.usage == usage)
    }
}

impl SigningKey {
    fn check(user_id: &UserId, usage: Usage, raw: &Raw<CrossSigningKey>) -> Result<Self, SigningKeysError> {
        let malformed = |detail: String| SigningKeysError::Malformed { usage, detail };
        let json = raw.json().get();
        if json.len() > MAX_SIGNING_KEY_BYTES {
            return Err(malformed(format!("it is larger than {MAX_SIGNING_KEY_BYTES} bytes")));
        }
        let key = raw.deserialize().map_err(|error| malformed(error.to_string()))?;
        if key.user_id != user_id {
            return Err(SigningKeysError::NotOwn(usage));
        }
        if !key.usage.iter().any(|other| other.as_ref() == usage.as_str()) {
            return Err(malformed("it has another usage".to_owned()));
        }
        let object = serde_json::from_str(json).map_err(|error| malformed(error.to_string()))?;
        // The spec: "The object must have exactly one property, whose name is in the form
        // `<algorithm>:<unpadded_base64>`".
        let mut keys = key.keys.iter();
        let (Some((id, public_key)), None) = (keys.next(), keys.next()) else {
            return Err(malformed("it must hold exactly one key".to_owned()));
        };
        if id.as_str().strip_prefix("ed25519:") != Some(public_key) || validate::public_key(public_key).is_none() {
            return Err(malformed("its key must be Ed25519, and named as its base64".to_owned()));
        }
        Ok(Self { usage, public_key: public_key.clone(), object })
    }

    /// Keeps only the valid signatures by the user: by the master key, and by their devices.
    fn keep_valid_signatures(&mut self, user_id: &UserId, signers: &[(String, [u8; 32])]) {
        let Some(CanonicalJsonValue::Object(all)) = self.object.remove("signatures") else {
            return;
        };
        let Some(CanonicalJsonValue::Object(own)) = all.get(user_id.as_str()) else {
            return;
        };
        let kept: CanonicalJsonObject = own
            .iter()
            .take(signatures::MAX_SIGNATURES_OF_KEY)
            .filter(|(key_id, signature)| {
                let signer = signers.iter().find(|(name, _)| name == key_id.as_str());
                signer
                    .zip(signature.as_str())
                    .is_some_and(|((_, public_key), signature)| signatures::verify(&self.object, public_key, signature))
            })
            .map(|(key_id, signature)| (key_id.clone(), signature.clone()))
            .collect();
        if !kept.is_empty() {
            let all = CanonicalJsonObject::from([(user_id.as_str().into(), CanonicalJsonValue::Object(kept))]);
            self.object.insert("signatures".into(), CanonicalJsonValue::Object(all));
        }
    }

    fn is_signed_by(&self, user_id: &UserId, public_key: &str) -> bool {
        let signature = signatures::signature_of(&self.object, user_id, &format!("ed25519:{public_key}"));
        signature
            .zip(validate::public_key(public_key))
            .is_some_and(|(signature, public_key)| signatures::verify(&self.object, &public_key, signature))
    }
}

/// The public key of a stored cross-signing key.
pub(super) fn public_key_of(key: &Map<String, Value>) -> Option<&str> {
    key.get("keys")?.as_object()?.values().next()?.as_str()
}

/// Maximum number of checks of one upload. It is checked again when the user's stored keys have changed meanwhile. Only
/// requests of the same user change them.
const MAX_TRIES: usize = 8;

/// Keys that replace those in `stored`. All checks are done.
struct UploadSigningKeys {
    user: UserNid,
    stored: Stored,
    /// Usage and public key of the keys that are deleted.
    replaced: Vec<(Usage, String)>,
    rows: Vec<Row>,
}

impl Keys {
    /// Stores cross-signing keys. `authenticated` means that the user has just authenticated, which replacing keys
    /// needs. The caller's rooms should be in memory: the commit marks their members, or else everyone.
    ///
    /// # Errors
    /// [`SigningKeysError`]. Nothing is stored then.
    pub async fn upload_signing_keys(
        &self,
        caller: &LocalDevice,
        keys: SigningKeys,
        authenticated: bool,
    ) -> Result<(), SigningKeysError> {
        for _ in 0..MAX_TRIES {
            let Some(transaction) = self.prepare_signing_keys(caller, &keys, authenticated).await? else {
                return Ok(());
            };
            if self.db.committer().transact(transaction).await? {
                return Ok(());
            }
        }
        Err(SigningKeysError::Storage(Error::Overloaded))
    }

    /// Checks the keys against the stored ones. Returns `None` if none of them is new.
    async fn prepare_signing_keys(
        &self,
        caller: &LocalDevice,
        keys: &SigningKeys,
        authenticated: bool,
    ) -> Result<Option<UploadSigningKeys>, SigningKeysError> {
        let (user, user_id) = (caller.user.nid, caller.user_id());
        let signing = keys.0.iter().flat_map(|key| signatures::signing_devices(&key.object, user_id));
        // A cross-signing key must not have a device's ID as its name, so devices of these names are looked up too.
        let named = signing.chain(keys.0.iter().map(|key| key.public_key.clone()));
        let device_ids: Vec<String> = named.filter(|device_id| validate::is_plain(device_id)).collect();
        let mut reader = self.db.read().await?;
        let mut conn = reader.conn();
        let stored = Stored::read(&mut conn, user, &device_ids, &[]).await?;
        for key in &keys.0 {
            if devices::find_device(&mut conn, user, &key.public_key).await?.is_some() {
                return Err(SigningKeysError::SameAsDevice(key.usage));
            }
        }
        drop(reader);
        let mut known = Vec::new();
        for usage in [Usage::Master, Usage::SelfSigning, Usage::UserSigning] {
            known.extend(stored.own_key(usage)?.map(|key| (usage, key)));
        }
        let stored_key = |usage| known.iter().find(|(other, _)| *other == usage).map(|(_, key)| key.as_str());
        let stored_master = stored_key(Usage::Master);
        let new_master = keys.get(Usage::Master).map(|key| key.public_key.as_str());
        let Some(master) = new_master.or(stored_master) else {
            return Err(SigningKeysError::NoMasterKey);
        };
        if keys.0.iter().all(|key| stored_key(key.usage) == Some(&key.public_key)) {
            return Ok(None);
        }
        if stored_master.is_some() && !authenticated {
            return Err(SigningKeysError::NeedsAuthentication);
        }
        for key in &keys.0 {
            if key.usage != Usage::Master && !key.is_signed_by(user_id, master) {
                return Err(SigningKeysError::NotSigned(key.usage));
            }
        }
        let mut signers = stored.device_keys()?;
        signers.extend(validate::public_key(master).map(|bytes| (format!("ed25519:{master}"), bytes)));
        let mut rows: Vec<Row> = Vec::new();
        for key in &keys.0 {
            let mut key = key.clone();
            key.keep_valid_signatures(user_id, &signers);
            let json = serde_json::to_string(&CanonicalJsonValue::Object(key.object))
                .map_err(|error| Error::damaged("cross-signing key", error))?;
            rows.push(
                CrossSigningKeyColumns { user_nid: user, usage: key.usage.as_str().into(), json: json.into() }.row(),
            );
        }
        let is_replaced = |usage: Usage, old: &str| match keys.get(usage) {
            Some(key) => key.public_key != old,
            // Signatures by the old master key are worth nothing under a new one.
            None => new_master.is_some_and(|new| Some(new) != stored_master),
        };
        let replaced = known.iter().filter(|(usage, old)| is_replaced(*usage, old)).cloned().collect();
        Ok(Some(UploadSigningKeys { user, replaced, rows, stored }))
    }
}

impl Transaction for UploadSigningKeys {
    /// Whether the keys were stored. `false` means that the stored keys, against which they were checked, have changed.
    type Output = bool;

    async fn run(&self, conn: &mut Conn<'_>, position: Position) -> Result<bool, Error> {
        if self.stored.read_again(conn).await? != self.stored {
            return Ok(false);
        }
        for (usage, old) in &self.replaced {
            cross_signing::delete_key(conn, self.user, usage.as_str()).await?;
            cross_signing::delete_signatures(conn, self.user, old).await?;
        }
        let mut rows = self.rows.clone();
        rows.push(list_change(conn, self.user, position));
        insert_rows(conn, &rows).await?;
        Ok(true)
    }
}
