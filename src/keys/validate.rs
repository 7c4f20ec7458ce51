//! Validation of keys: every object is checked, and converted to canonical JSON, before it is stored.
//!
//! Promise: other clients and servers can read everything that is stored. A faulty upload harms only the client that
//! sent it. (Synapse's CVE-2025-61672 was an upload that was not validated.)

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, DeviceId, OneTimeKeyId, OwnedOneTimeKeyId, UserId,
    encryption::{DeviceKeys, OneTimeKey, SignedKey},
    serde::{Base64, Raw},
};
use sha2::{Digest as _, Sha256};

/// Maximum size of a device's keys. A few keys and signatures take a kilobyte, and every member of a room gets those of
/// all others.
pub const MAX_DEVICE_KEYS_BYTES: usize = 8 * 1024;

/// Maximum number of the owner's signatures on a device's keys: by the device, and by one or two of their other keys.
pub const MAX_SIGNATURES_OF_DEVICE: usize = 16;

/// Maximum number of keys and of algorithms of one device. Today's clients have two of each.
pub const MAX_KEYS_OF_DEVICE: usize = 32;

/// Maximum size of one one-time or fallback key. Today's take 250 bytes; post-quantum keys take 2 KiB more.
pub const MAX_KEY_BYTES: usize = 4 * 1024;

/// Maximum length of a key's ID, algorithm included.
pub const MAX_KEY_ID_BYTES: usize = 255;

/// Maximum number of one-time keys in one upload. Clients send at most a hundred. Each is parsed and compared with the stored
/// ones, and so takes many times the memory of its bytes.
pub const MAX_ONE_TIME_KEYS: usize = 1_000;

/// Maximum number of fallback keys in one upload: one for each algorithm.
pub const MAX_FALLBACK_KEYS: usize = super::upload::MAX_ALGORITHMS;

/// Why uploaded keys were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeys {
    #[error("{what} is too large: at most {limit} bytes")]
    TooLarge { what: &'static str, limit: usize },
    #[error("too many {what}: at most {limit}")]
    TooMany { what: &'static str, limit: usize },
    #[error("the device keys are not for this user and device")]
    NotOwn,
    #[error("there are two fallback keys of the algorithm {algorithm}")]
    TwoFallbackKeys { algorithm: String },
    #[error("{what} is malformed: {detail}")]
    Malformed { what: String, detail: String },
}

fn malformed(what: impl Into<String>, detail: impl ToString) -> InvalidKeys {
    InvalidKeys::Malformed { what: what.into(), detail: detail.to_string() }
}

/// A one-time or fallback key, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedKey {
    pub algorithm: Arc<str>,
    /// The ID without its algorithm.
    pub key_id: Arc<str>,
    /// Canonical JSON.
    pub json: Arc<str>,
    pub digest: [u8; 32],
}

/// The checked upload of a device.
#[derive(Debug, Default)]
pub struct Upload {
    /// Canonical JSON.
    pub device_keys: Option<Arc<str>>,
    pub one_time_keys: Vec<UploadedKey>,
    pub fallback_keys: Vec<UploadedKey>,
}

impl Upload {
    /// Checks an upload of the device `device_id` of `user_id`.
    ///
    /// # Errors
    /// [`InvalidKeys`] for the first mistake. Nothing of the upload is stored then.
    pub fn check(
        (user_id, device_id): (&UserId, &DeviceId),
        device_keys: Option<&Raw<DeviceKeys>>,
        one_time_keys: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
        fallback_keys: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    ) -> Result<Self, InvalidKeys> {
        if one_time_keys.len() > MAX_ONE_TIME_KEYS {
            return Err(InvalidKeys::TooMany { what: "one-time keys in one upload", limit: MAX_ONE_TIME_KEYS });
        }
        if fallback_keys.len() > MAX_FALLBACK_KEYS {
            return Err(InvalidKeys::TooMany { what: "fallback keys", limit: MAX_FALLBACK_KEYS });
        }
        let check_all = |keys: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>| {
            keys.iter().map(|(id, raw)| uploaded_key(id, raw)).collect::<Result<Vec<_>, _>>()
        };
        let fallback_keys = check_all(fallback_keys)?;
        // With two keys of one algorithm, nobody could tell which one would be handed out.
        let mut algorithms = BTreeSet::new();
        if let Some(second) = fallback_keys.iter().find(|key| !algorithms.insert(&key.algorithm)) {
            return Err(InvalidKeys::TwoFallbackKeys { algorithm: second.algorithm.to_string() });
        }
        Ok(Self {
            device_keys: device_keys.map(|raw| check_device_keys(user_id, device_id, raw)).transpose()?,
            one_time_keys: check_all(one_time_keys)?,
            fallback_keys,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.device_keys.is_none() && self.one_time_keys.is_empty() && self.fallback_keys.is_empty()
    }
}

fn check_device_keys(user_id: &UserId, device_id: &DeviceId, raw: &Raw<DeviceKeys>) -> Result<Arc<str>, InvalidKeys> {
    const WHAT: &str = "device_keys";
    let json = raw.json().get();
    if json.len() > MAX_DEVICE_KEYS_BYTES {
        return Err(InvalidKeys::TooLarge { what: WHAT, limit: MAX_DEVICE_KEYS_BYTES });
    }
    let keys = raw.deserialize().map_err(|error| malformed(WHAT, error))?;
    if keys.user_id != user_id || keys.device_id != device_id {
        return Err(InvalidKeys::NotOwn);
    }
    if keys.keys.len() > MAX_KEYS_OF_DEVICE || keys.algorithms.len() > MAX_KEYS_OF_DEVICE {
        return Err(InvalidKeys::TooMany { what: "keys or algorithms of a device", limit: MAX_KEYS_OF_DEVICE });
    }
    for (id, key) in &keys.keys {
        if let Some(name) = id.as_str().strip_prefix("ed25519:").or_else(|| id.as_str().strip_prefix("curve25519:")) {
            if name != device_id.as_str() {
                return Err(malformed(WHAT, format!("the key {id} names another device")));
            }
            public_key(key).ok_or_else(|| malformed(WHAT, format!("the key {id} is not 32 bytes of base64")))?;
        }
    }
    let mut object: CanonicalJsonObject = serde_json::from_str(json).map_err(|error| malformed(WHAT, error))?;
    // The server sets `unsigned`. Of the signatures, only the owner's are for everyone to see.
    object.remove("unsigned");
    if let Some(CanonicalJsonValue::Object(signatures)) = object.get_mut("signatures") {
        signatures.retain(|signer, _| signer.as_str() == user_id);
        let own = signatures.get(user_id.as_str()).and_then(CanonicalJsonValue::as_object);
        if own.is_some_and(|own| own.len() > MAX_SIGNATURES_OF_DEVICE) {
            return Err(InvalidKeys::TooMany {
                what: "signatures on a device's keys",
                limit: MAX_SIGNATURES_OF_DEVICE,
            });
        }
    }
    canonical(WHAT, &CanonicalJsonValue::Object(object))
}

fn uploaded_key(id: &OneTimeKeyId, raw: &Raw<OneTimeKey>) -> Result<UploadedKey, InvalidKeys> {
    let json = raw.json().get();
    if json.len() > MAX_KEY_BYTES {
        return Err(InvalidKeys::TooLarge { what: "a key", limit: MAX_KEY_BYTES });
    }
    if id.as_str().len() > MAX_KEY_ID_BYTES {
        return Err(InvalidKeys::TooLarge { what: "a key ID", limit: MAX_KEY_ID_BYTES });
    }
    let what = || format!("the key {id}");
    let (algorithm, key_id) =
        id.as_str().split_once(':').ok_or_else(|| malformed(what(), "its ID has no algorithm"))?;
    if algorithm.is_empty() || key_id.is_empty() || !is_plain(id.as_str()) {
        return Err(malformed(what(), "its ID must be an algorithm, a colon and a name"));
    }
    if algorithm.starts_with("signed_") {
        raw.deserialize_as_unchecked::<SignedKey>().map_err(|error| malformed(what(), error))?;
    } else {
        raw.deserialize().map_err(|error| malformed(what(), error))?;
    }
    let value: CanonicalJsonValue = serde_json::from_str(json).map_err(|error| malformed(what(), error))?;
    let json = canonical(&what(), &value)?;
    Ok(UploadedKey {
        algorithm: algorithm.into(),
        key_id: key_id.into(),
        digest: digest(algorithm, &value, &json),
        json,
    })
}

/// The identity of a key: its algorithm and public part. A client may sign it again or rename it.
fn digest(algorithm: &str, value: &CanonicalJsonValue, json: &str) -> [u8; 32] {
    let public = match value {
        CanonicalJsonValue::String(key) => key.trim_end_matches('='),
        CanonicalJsonValue::Object(object) => match object.get("key") {
            Some(CanonicalJsonValue::String(key)) => key.trim_end_matches('='),
            _ => json,
        },
        _ => json,
    };
    let mut hasher = Sha256::new();
    hasher.update(algorithm.as_bytes());
    hasher.update([0]);
    hasher.update(public.as_bytes());
    hasher.finalize().into()
}

fn canonical(what: &str, value: &CanonicalJsonValue) -> Result<Arc<str>, InvalidKeys> {
    Ok(serde_json::to_string(value).map_err(|error| malformed(what, error))?.into())
}

/// The 32 bytes of an Ed25519 or Curve25519 public key in base64.
pub fn public_key(base64: &str) -> Option<[u8; 32]> {
    Base64::<ruma::serde::base64::Standard, [u8; 32]>::parse(base64).ok().map(Base64::into_inner)
}

/// Returns whether the text has no control characters. No name needs them, and PostgreSQL cannot store a NUL.
pub fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
