//! The keys that a server publishes at `/_matrix/key/v2/server`: ours, and those of others, checked.
//! Server-server API, [Publishing Keys](https://spec.matrix.org/v1.19/server-server-api/#publishing-keys).

use std::collections::BTreeMap;

use ed25519_dalek::PUBLIC_KEY_LENGTH;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, Int, OwnedServerSigningKeyId, ServerName, SigningKeyAlgorithm,
    api::federation::discovery::ServerSigningKeys,
    serde::Base64,
    signatures::{PublicKeyMap, PublicKeySet, verify_json},
};
use serde_json::value::RawValue;

use crate::{
    broken_keys::is_broken,
    signing::{ServerSigner, SignJsonError},
};

/// Maximum number of current keys. Servers usually publish one or two, and each costs a verification. An answer with
/// more is refused.
const MAX_KEYS: usize = 16;

/// Maximum number of former keys, which are kept for old events. Some servers have had many.
const MAX_OLD_KEYS: usize = 256;

/// Maximum validity of keys, as in the specification. We ask again after this time, even if the server says more.
pub const MAX_VALIDITY_MS: i64 = 7 * 24 * 3600 * 1000;

/// An Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; PUBLIC_KEY_LENGTH]);

impl PublicKey {
    /// Takes the key's bytes. Returns `None` if there are not 32 of them. Only a verification shows whether they are a
    /// point on the curve.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The public half of our own signing key.
    pub fn of(signer: &ServerSigner) -> Self {
        Self(signer.public_key())
    }

    pub(crate) fn to_base64(self) -> Base64 {
        Base64::new(self.0.to_vec())
    }
}

/// The published keys of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedKeys {
    /// Keys that it signs with. Each has signed this answer.
    pub current: BTreeMap<OwnedServerSigningKeyId, PublicKey>,
    /// Keys that it no longer signs with, and their end, in milliseconds since 1970. Valid for old events only.
    pub old: BTreeMap<OwnedServerSigningKeyId, (PublicKey, i64)>,
    /// The time until which the current keys are valid, in milliseconds since 1970: as the server says, and 7 days at
    /// most.
    pub valid_until_ms: i64,
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
    #[error("the keys are no longer valid")]
    Expired,
    #[error("no current key has signed the answer")]
    NotSigned,
}

impl PublishedKeys {
    /// Checks the answer of `server_name`, received at `now_ms`.
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
        let valid_until_ms = i64::from(keys.valid_until_ts.0).min(now_ms.saturating_add(MAX_VALIDITY_MS));
        if valid_until_ms <= now_ms {
            return Err(PublishedKeysError::Expired);
        }
        let is_known = |id: &OwnedServerSigningKeyId| id.algorithm() == SigningKeyAlgorithm::Ed25519;
        // A key that has not signed the answer could be anybody's: the server does not prove that it has the private
        // half.
        let signed_by = |id: &OwnedServerSigningKeyId, key: PublicKey| has_signed(server_name, id, key, &object);
        let current: BTreeMap<_, _> = keys
            .verify_keys
            .into_iter()
            .filter(|(id, _)| is_known(id))
            .filter_map(|(id, key)| Some((id, PublicKey::from_bytes(key.key.as_bytes())?)))
            .filter(|(id, key)| signed_by(id, *key))
            .collect();
        if current.is_empty() {
            return Err(PublishedKeysError::NotSigned);
        }
        let old = keys
            .old_verify_keys
            .into_iter()
            .filter(|(id, _)| is_known(id) && !current.contains_key(id))
            .filter_map(|(id, key)| {
                let ended_ms = i64::from(key.expired_ts.0).min(now_ms);
                Some((id, (PublicKey::from_bytes(key.key.as_bytes())?, ended_ms)))
            })
            .collect();
        Ok(Self { current, old, valid_until_ms })
    }
}

/// Returns whether this key has signed the object, and nobody else can have. Ignores other signatures on it.
fn has_signed(
    server_name: &ServerName,
    id: &OwnedServerSigningKeyId,
    key: PublicKey,
    object: &CanonicalJsonObject,
) -> bool {
    if is_broken(&key) {
        return false;
    }
    let signature = object.get("signatures").and_then(|all| all.as_object()?.get(server_name.as_str()));
    let Some(signature) = signature.and_then(|of_server| of_server.as_object()?.get(id.as_str())) else {
        return false;
    };
    let mut alone = object.clone();
    let of_server = CanonicalJsonObject::from([(id.to_string(), signature.clone())]);
    let signatures = CanonicalJsonObject::from([(server_name.to_string(), CanonicalJsonValue::Object(of_server))]);
    alone.insert("signatures".to_owned(), CanonicalJsonValue::Object(signatures));
    let keys = PublicKeySet::from([(id.to_string(), key.to_base64())]);
    verify_json(&PublicKeyMap::from([(server_name.to_string(), keys)]), &alone).is_ok()
}

/// Builds the answer that we publish: our key, signed with itself, valid until `valid_until_ms`.
///
/// # Errors
/// Never in practice. Signing is fallible because other objects may have malformed signatures.
pub fn publish(signer: &ServerSigner, valid_until_ms: i64) -> Result<Box<RawValue>, SignJsonError> {
    let text = |text: &str| CanonicalJsonValue::String(text.to_owned());
    let object = |key: &str, value| CanonicalJsonValue::Object(CanonicalJsonObject::from([(key.to_owned(), value)]));
    let valid_until = Int::try_from(valid_until_ms).unwrap_or(Int::MAX);
    let mut keys = CanonicalJsonObject::from([
        ("server_name".to_owned(), text(signer.server_name().as_str())),
        ("verify_keys".to_owned(), object(signer.key_id().as_str(), object("key", text(&signer.public_key_base64())))),
        ("old_verify_keys".to_owned(), CanonicalJsonValue::Object(CanonicalJsonObject::new())),
        ("valid_until_ts".to_owned(), CanonicalJsonValue::Integer(valid_until)),
    ]);
    signer.sign_json(&mut keys)?;
    Ok(serde_json::value::to_raw_value(&keys).expect("canonical JSON is JSON"))
}

#[cfg(test)]
mod tests {
    use ruma::{owned_server_name, server_name};
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn signer() -> ServerSigner {
        ServerSigner::generate(owned_server_name!("a.test"))
    }

    fn published(signer: &ServerSigner, valid_until_ms: i64) -> Value {
        serde_json::from_str(publish(signer, valid_until_ms).unwrap().get()).unwrap()
    }

    fn parse(answer: &Value) -> Result<PublishedKeys, PublishedKeysError> {
        PublishedKeys::parse(server_name!("a.test"), answer.to_string().as_bytes(), NOW)
    }

    /// Signs a changed `answer` again.
    fn signed(signer: &ServerSigner, mut answer: Value) -> Value {
        answer.as_object_mut().unwrap().remove("signatures");
        let mut object: CanonicalJsonObject = serde_json::from_value(answer).unwrap();
        signer.sign_json(&mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }

    #[test]
    fn what_we_publish_is_believed() {
        let signer = signer();
        let keys = parse(&published(&signer, NOW + 1000)).unwrap();
        assert_eq!(keys.current, BTreeMap::from([(signer.key_id().to_owned(), PublicKey::of(&signer))]));
        assert!(keys.old.is_empty());
        assert_eq!(keys.valid_until_ms, NOW + 1000);
    }

    #[test]
    fn keys_are_valid_for_seven_days_at_most() {
        assert_eq!(
            parse(&published(&signer(), NOW + 10 * MAX_VALIDITY_MS)).unwrap().valid_until_ms,
            NOW + MAX_VALIDITY_MS
        );
    }

    #[test]
    fn what_is_not_shown_to_be_the_servers_is_refused() {
        let (signer, thief) = (signer(), signer());
        let good = published(&signer, NOW + 1000);
        assert!(matches!(parse(&published(&signer, NOW)), Err(PublishedKeysError::Expired)));
        assert!(matches!(parse(&json!({})), Err(PublishedKeysError::Malformed(_))));
        assert!(matches!(parse(&json!([])), Err(PublishedKeysError::Malformed(_))));
        let other = ServerSigner::generate(owned_server_name!("b.test"));
        assert!(matches!(parse(&published(&other, NOW + 1000)), Err(PublishedKeysError::OtherServer)));

        let mut changed = good.clone();
        changed["valid_until_ts"] = json!(NOW + 2000);
        assert!(matches!(parse(&changed), Err(PublishedKeysError::NotSigned)));
        let mut unsigned = good.clone();
        unsigned["signatures"] = json!({});
        assert!(matches!(parse(&unsigned), Err(PublishedKeysError::NotSigned)));
        // Signed with a key that is not published.
        assert!(matches!(parse(&signed(&thief, good.clone())), Err(PublishedKeysError::NotSigned)));

        let mut many = good;
        many["verify_keys"] = (0..=MAX_KEYS)
            .map(|n| (format!("ed25519:{n}"), json!({ "key": "AAAA" })))
            .collect::<serde_json::Map<_, _>>()
            .into();
        assert!(matches!(parse(&many), Err(PublishedKeysError::TooMany)));
    }

    #[test]
    fn a_listed_key_that_has_not_signed_is_left_out_and_other_signatures_do_not_matter() {
        let (signer, silent) = (signer(), signer());
        let mut answer = published(&signer, NOW + 1000);
        answer["verify_keys"][silent.key_id().as_str()] = json!({ "key": silent.public_key_base64() });
        answer["verify_keys"]["ed25519:short"] = json!({ "key": "AAAA" });
        answer["verify_keys"]["rsa:1"] = json!({ "key": "AAAA" });
        answer["old_verify_keys"] = json!({ "ed25519:before": { "key": silent.public_key_base64(), "expired_ts": 5 } });
        let mut answer = signed(&signer, answer);
        answer["signatures"]["notary.test"] = json!({ "ed25519:x": "AAAA" });
        let keys = parse(&answer).unwrap();
        assert_eq!(keys.current.into_keys().collect::<Vec<_>>(), [signer.key_id().to_owned()]);
        assert_eq!(keys.old.into_values().collect::<Vec<_>>(), [(PublicKey::of(&silent), 5)]);
    }
}
