//! The keys that a server publishes at `/_matrix/key/v2/server`: ours, and those of others, checked.
//! Server-server API, [Publishing Keys](https://spec.matrix.org/v1.19/server-server-api/#publishing-keys).

use std::collections::BTreeMap;

use ed25519_dalek::{PUBLIC_KEY_LENGTH, SIGNATURE_LENGTH};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, Int, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId,
    SigningKeyAlgorithm,
    api::federation::discovery::ServerSigningKeys,
    serde::{Base64, base64::Standard},
    signatures::to_canonical_json_string_for_signing,
};
use serde_json::value::RawValue;

use crate::{
    received::{Ed25519, Signatures as _},
    signing::{ServerSigner, SignJsonError},
};

/// Maximum number of current keys. Servers usually publish one or two, and each costs a verification. An answer with
/// more is refused.
const MAX_KEYS: usize = 16;

/// Maximum number of former keys, which are kept for old events. Some servers have had many.
pub const MAX_OLD_KEYS: usize = 256;

/// Maximum length of a key's ID. A longer one is ignored, as no database could have it in an index.
const MAX_KEY_ID_BYTES: usize = 255;

/// Maximum validity of keys, as in the specification. We ask again after this time, even if the server says more.
pub const MAX_VALIDITY_MS: i64 = 7 * 24 * 3600 * 1000;

/// An Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; PUBLIC_KEY_LENGTH]);

impl PublicKey {
    pub(crate) fn new(bytes: [u8; PUBLIC_KEY_LENGTH]) -> Self {
        Self(bytes)
    }

    /// Takes the key's bytes. Returns `None` if there are not 32 of them. Only a verification shows whether they are a
    /// point on the curve.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The public half of the signing key that we use.
    pub fn of(signer: &ServerSigner) -> Self {
        signer.current().public_key()
    }

    /// The key in unpadded base64, as it is published.
    pub fn to_base64(self) -> Base64 {
        Base64::new(self.0.to_vec())
    }
}

/// The published keys of a server.
#[derive(Debug, Clone)]
pub struct PublishedKeys {
    /// Keys that it signs with. Each has signed this answer.
    pub current: BTreeMap<OwnedServerSigningKeyId, PublicKey>,
    /// Keys that it no longer signs with, and their end, in milliseconds since 1970. Valid for old events only.
    pub old: BTreeMap<OwnedServerSigningKeyId, (PublicKey, i64)>,
    /// The time until which the current keys are valid, in milliseconds since 1970: as the server says, and 7 days from
    /// now at most. It may be in the past: then the answer is a witness for old events only.
    pub valid_until_ms: i64,
    /// The whole answer.
    object: CanonicalJsonObject,
}

/// Why an answer with keys was refused.
#[derive(Debug, thiserror::Error)]
pub enum PublishedKeysError {
    #[error("the answer is not a list of keys")]
    Malformed(#[source] serde_json::Error),
    #[error("the keys are another server's")]
    OtherServer,
    #[error("there are too many keys")]
    TooMany,
    #[error("no current key has signed the answer")]
    NotSigned,
}

impl PublishedKeys {
    /// Checks an answer with the keys of `server_name`, received at `now_ms`.
    ///
    /// # Errors
    /// [`PublishedKeysError`].
    pub fn parse(server_name: &ServerName, answer: &[u8], now_ms: i64) -> Result<Self, PublishedKeysError> {
        let object: CanonicalJsonObject = serde_json::from_slice(answer).map_err(PublishedKeysError::Malformed)?;
        let keys: ServerSigningKeys = serde_json::from_slice(answer).map_err(PublishedKeysError::Malformed)?;
        if keys.server_name != *server_name {
            return Err(PublishedKeysError::OtherServer);
        }
        if keys.verify_keys.len() > MAX_KEYS || keys.old_verify_keys.len() > MAX_OLD_KEYS {
            return Err(PublishedKeysError::TooMany);
        }
        let is_known = |id: &OwnedServerSigningKeyId| {
            id.algorithm() == SigningKeyAlgorithm::Ed25519 && id.as_str().len() <= MAX_KEY_ID_BYTES
        };
        // A key that has not signed the answer could be anybody's: the server does not prove that it has the private
        // half.
        let signed = Signed::of(&object).ok_or(PublishedKeysError::NotSigned)?;
        let current: BTreeMap<_, _> = keys
            .verify_keys
            .into_iter()
            .filter(|(id, _)| is_known(id))
            .filter_map(|(id, key)| Some((id, PublicKey::from_bytes(key.key.as_bytes())?)))
            .filter(|(id, key)| signed.is_signed_by(server_name, id, *key))
            .collect();
        if current.is_empty() {
            return Err(PublishedKeysError::NotSigned);
        }
        let old = keys
            .old_verify_keys
            .into_iter()
            .filter(|(id, _)| is_known(id) && !current.contains_key(id))
            .filter_map(|(id, key)| {
                let expired_ms = i64::from(key.expired_ts.0).min(now_ms);
                Some((id, (PublicKey::from_bytes(key.key.as_bytes())?, expired_ms)))
            })
            .collect();
        let valid_until_ms = i64::from(keys.valid_until_ts.0).min(now_ms.saturating_add(MAX_VALIDITY_MS));
        Ok(Self { current, old, valid_until_ms, object })
    }

    /// The keys with which `server` seems to have signed the answer, at most 16.
    pub fn signers(&self, server: &ServerName) -> Vec<OwnedServerSigningKeyId> {
        let signed = Signed::of(&self.object);
        let of_server = signed.and_then(|signed| signed.signatures_of(server)).into_iter().flatten();
        of_server.filter_map(|(id, _)| OwnedServerSigningKeyId::try_from(id.as_str()).ok()).take(MAX_KEYS).collect()
    }

    /// Returns whether `server` has signed the answer with this key.
    pub fn is_signed_by(&self, server: &ServerName, key_id: &ServerSigningKeyId, key: PublicKey) -> bool {
        Signed::of(&self.object).is_some_and(|signed| signed.is_signed_by(server, key_id, key))
    }

    /// The whole answer, as canonical JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.object).expect("canonical JSON is JSON")
    }
}

/// The signed text of an answer, with its signatures.
struct Signed<'a> {
    message: String,
    signatures: Option<&'a CanonicalJsonObject>,
}

impl<'a> Signed<'a> {
    /// Returns `None` for an object that is too large to be signed.
    fn of(object: &'a CanonicalJsonObject) -> Option<Self> {
        let message = to_canonical_json_string_for_signing(object).ok()?;
        Some(Self { message, signatures: object.get("signatures").and_then(CanonicalJsonValue::as_object) })
    }

    fn signatures_of(&self, server_name: &ServerName) -> Option<&'a CanonicalJsonObject> {
        self.signatures?.get(server_name.as_str())?.as_object()
    }

    /// Returns whether this key has signed. Other signatures do not matter.
    fn is_signed_by(&self, server_name: &ServerName, id: &ServerSigningKeyId, key: PublicKey) -> bool {
        let text = self.signatures_of(server_name).and_then(|of_server| of_server.get(id.as_str())?.as_str());
        let signature = text.and_then(|text| Base64::<Standard, [u8; SIGNATURE_LENGTH]>::parse(text).ok());
        signature.is_some_and(|signature| Ed25519.verify(&key, self.message.as_bytes(), &signature.into_inner()))
    }
}

/// The time for which others may cache our published keys. Far above an hour, below which they would ask all the time,
/// and far below the 7 days that they would accept. After that time a stolen key is worthless.
const VALID_FOR_MS: i64 = 24 * 3600 * 1000;

/// As [`VALID_FOR_MS`], while a key that was just replaced is still among those in use. So nobody believes it much
/// longer than we say.
const VALID_FOR_AFTER_ROTATION_MS: i64 = 3600 * 1000;

/// Builds the answer that we publish at `now_ms`, signed with each key in it that is valid now.
///
/// # Errors
/// Never in practice. Signing is fallible because other objects may have malformed signatures.
pub fn publish(signer: &ServerSigner, now_ms: i64) -> Result<Box<RawValue>, SignJsonError> {
    let keys = signer.keys();
    let retiring = keys.former.iter().filter_map(|former| former.still_signs(now_ms));
    let signing: Vec<_> = std::iter::once(&keys.current).chain(retiring).collect();
    let valid_for_ms = if signing.len() == 1 { VALID_FOR_MS } else { VALID_FOR_AFTER_ROTATION_MS };

    let text = |text: &str| CanonicalJsonValue::String(text.to_owned());
    let number = |number: i64| CanonicalJsonValue::Integer(Int::new_saturating(number));
    let base64 = |key: PublicKey| CanonicalJsonValue::String(Base64::<Standard, _>::new(key.as_bytes()).encode());
    let verify_keys = signing.iter().map(|key| {
        let entry = CanonicalJsonObject::from([("key".to_owned(), base64(key.public_key()))]);
        (key.key_id().to_string(), CanonicalJsonValue::Object(entry))
    });
    let old_verify_keys = keys.former.iter().filter(|former| former.still_signs(now_ms).is_none()).map(|former| {
        let entry = [("key".to_owned(), base64(former.key)), ("expired_ts".to_owned(), number(former.expired_ms))];
        (former.key_id.to_string(), CanonicalJsonValue::Object(CanonicalJsonObject::from(entry)))
    });
    let mut object = CanonicalJsonObject::from([
        ("server_name".to_owned(), text(signer.server_name().as_str())),
        ("verify_keys".to_owned(), CanonicalJsonValue::Object(verify_keys.collect())),
        ("old_verify_keys".to_owned(), CanonicalJsonValue::Object(old_verify_keys.collect())),
        ("valid_until_ts".to_owned(), number(now_ms.saturating_add(valid_for_ms))),
    ]);
    for key in signing {
        key.sign_json(signer.server_name(), &mut object)?;
    }
    Ok(serde_json::value::to_raw_value(&object).expect("canonical JSON is JSON"))
}

/// Adds our signature to another server's answer, which [`PublishedKeys::to_json`] has written: we are its notary.
///
/// # Errors
/// [`PublishedKeysError::Malformed`], when the text is not such an answer.
pub fn countersign(signer: &ServerSigner, answer: &str) -> Result<Box<RawValue>, PublishedKeysError> {
    let malformed = |error: &dyn std::fmt::Display| {
        PublishedKeysError::Malformed(<serde_json::Error as serde::de::Error>::custom(error))
    };
    let mut object: CanonicalJsonObject = serde_json::from_str(answer).map_err(PublishedKeysError::Malformed)?;
    // Nobody else writes in our name.
    if let Some(CanonicalJsonValue::Object(signatures)) = object.get_mut("signatures") {
        signatures.remove(signer.server_name().as_str());
    }
    signer.sign_json(&mut object).map_err(|error| malformed(&error))?;
    Ok(serde_json::value::to_raw_value(&object).expect("canonical JSON is JSON"))
}

#[cfg(test)]
mod tests;
