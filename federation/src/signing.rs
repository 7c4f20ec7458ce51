//! This server's signing keys: the one in use, which signs every event and request, and those before it.
//!
//! Promises: a secret comes from a cryptographic generator, is wiped from memory when it is dropped, and never shows in
//! `Debug` or in an error. A rotation replaces the key in use at one moment: what was signed before stays valid.
//! [`crate::build`] signs events. [`ServerSigner::sign_json`] signs other JSON (keys, requests, devices).
//! [`crate::key_file`] reads and writes files of keys.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use ed25519_dalek::{PUBLIC_KEY_LENGTH, SECRET_KEY_LENGTH, Signer as _, SigningKey};
use rand::{Rng as _, RngExt as _, distr::Alphanumeric};
use ruma::{
    CanonicalJsonObject, OwnedServerName, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId,
    ServerSigningKeyVersion, SigningKeyAlgorithm, SigningKeyId,
    serde::{
        Base64,
        base64::{Standard, UrlSafe},
    },
    signatures::{self, KeyPair, PublicKeyMap, PublicKeySet, Signature},
};
use zeroize::Zeroizing;

use crate::{
    key_file::{self, KeyFileError},
    published_keys::PublicKey,
};

/// Maximum number of replaced keys that are still published as valid. Other servers refuse more than a few keys, and nobody
/// replaces a key several times within the minutes for which requests are on their way.
const MAX_RETIRING: usize = 4;

/// An Ed25519 key of ours with its secret and its ID.
pub struct OwnKey {
    key_id: OwnedServerSigningKeyId,
    // Wipes itself on drop (dalek's `zeroize` feature, on by default).
    key: SigningKey,
}

impl OwnKey {
    /// Generates a new key with a random name, from a cryptographic random generator.
    pub fn generate() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a key must be one that nobody can repeat, in a simulation too")]
        let mut random = rand::rng();
        let mut seed = Zeroizing::new([0; SECRET_KEY_LENGTH]);
        random.fill_bytes(seed.as_mut());
        let name: String = random.sample_iter(Alphanumeric).take(6).map(char::from).collect();
        Self::from_seed(&format!("a_{name}"), &seed).expect("letters and digits make a valid key name")
    }

    /// Makes the key of this name and seed. Returns `None` if the name is not one.
    pub(crate) fn from_seed(name: &str, seed: &[u8; SECRET_KEY_LENGTH]) -> Option<Self> {
        let name = <&ServerSigningKeyVersion>::try_from(name).ok()?;
        let key_id = ServerSigningKeyId::from_parts(SigningKeyAlgorithm::Ed25519, name);
        Some(Self { key_id, key: SigningKey::from_bytes(seed) })
    }

    pub(crate) fn seed(&self) -> Zeroizing<[u8; SECRET_KEY_LENGTH]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The ID of the key, such as `ed25519:a_AbCd`.
    pub fn key_id(&self) -> &ServerSigningKeyId {
        &self.key_id
    }

    pub fn public_key(&self) -> PublicKey {
        PublicKey::new(self.public_bytes())
    }

    /// The public key in unpadded base64, as it is published in `/_matrix/key/v2/server`.
    pub fn public_key_base64(&self) -> String {
        Base64::<Standard, _>::new(self.public_bytes()).encode()
    }

    pub(crate) fn public_bytes(&self) -> [u8; PUBLIC_KEY_LENGTH] {
        self.key.verifying_key().to_bytes()
    }

    /// The signature of `message`.
    pub(crate) fn sign_bytes(&self, message: &[u8]) -> Base64 {
        Base64::new(self.key.sign(message).to_bytes().to_vec())
    }

    /// Adds the signature of `server_name` to `object`: see [`ServerSigner::sign_json`].
    pub(crate) fn sign_json(
        &self,
        server_name: &ServerName,
        object: &mut CanonicalJsonObject,
    ) -> Result<(), SignJsonError> {
        signatures::sign_json(server_name.as_str(), &JsonKey(self), object).map_err(SignJsonError)
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OwnKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A key of ours that a later one has replaced.
#[derive(Clone, Debug)]
pub struct FormerKey {
    pub key_id: OwnedServerSigningKeyId,
    pub key: PublicKey,
    /// The end of its validity, in milliseconds since 1970: what is dated later is not signed with it.
    pub expired_ms: i64,
    /// The secret, for as long as this process publishes the key as valid.
    secret: Option<Arc<OwnKey>>,
}

impl FormerKey {
    /// A key whose secret is gone.
    pub fn new(key_id: OwnedServerSigningKeyId, key: PublicKey, expired_ms: i64) -> Self {
        Self { key_id, key, expired_ms, secret: None }
    }

    /// The secret of a key that is valid at this moment, because requests with it may still be on their way.
    pub(crate) fn still_signs(&self, now_ms: i64) -> Option<&Arc<OwnKey>> {
        self.secret.as_ref().filter(|_| now_ms < self.expired_ms)
    }
}

/// A server name with the keys that sign for it.
pub struct ServerSigner {
    server_name: OwnedServerName,
    /// Locked for a few lines.
    keys: RwLock<Keys>,
}

#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) current: Arc<OwnKey>,
    pub(crate) former: Vec<FormerKey>,
}

impl ServerSigner {
    /// Signs with `current`. The `former` keys are only published.
    pub fn new(server_name: OwnedServerName, current: OwnKey, former: Vec<FormerKey>) -> Self {
        Self { server_name, keys: RwLock::new(Keys { current: Arc::new(current), former }) }
    }

    /// Generates a new key, from a cryptographic random generator.
    pub fn generate(server_name: OwnedServerName) -> Self {
        Self::new(server_name, OwnKey::generate(), Vec::new())
    }

    /// Signs with the first key of a key file.
    ///
    /// # Errors
    /// When the text is not a key file.
    pub fn from_key_file(server_name: OwnedServerName, text: &str) -> Result<Self, KeyFileError> {
        let first = key_file::read(text.as_bytes())?.into_iter().next().ok_or(KeyFileError::Empty)?;
        Ok(Self::new(server_name, first, Vec::new()))
    }

    /// The text of the file of the key in use; see [`key_file::write`].
    pub fn to_key_file(&self) -> Zeroizing<String> {
        key_file::write(&self.current())
    }

    /// Replaces the key in use. The one before stays valid until `expired_ms`, which is later than the time of everything
    /// that it signs: an event takes its time before its signature, and a request is verified soon.
    pub fn rotate(&self, next: OwnKey, expired_ms: i64) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut keys.current, Arc::new(next));
        let with_secret = keys.former.iter_mut().rev().filter(|former| former.secret.is_some());
        with_secret.skip(MAX_RETIRING - 1).for_each(|former| former.secret = None);
        keys.former.push(FormerKey {
            key_id: before.key_id.clone(),
            key: before.public_key(),
            expired_ms,
            secret: Some(before),
        });
    }

    /// Publishes more keys that were in use before.
    pub fn add_former(&self, former: Vec<FormerKey>) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).former.extend(former);
    }

    /// The server that the keys sign for.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// The key in use. A rotation does not wait for signatures with it.
    pub fn current(&self) -> Arc<OwnKey> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner).current)
    }

    pub(crate) fn keys(&self) -> Keys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ID of the key in use.
    pub fn key_id(&self) -> OwnedServerSigningKeyId {
        self.current().key_id.clone()
    }

    /// The public half of the key in use, in unpadded base64.
    pub fn public_key_base64(&self) -> String {
        self.current().public_key_base64()
    }

    /// The key of ours that has this ID, if it was valid at this moment; `None`: at any.
    pub fn key_at(&self, key_id: &ServerSigningKeyId, at_ms: Option<i64>) -> Option<PublicKey> {
        let keys = self.keys();
        if keys.current.key_id() == key_id {
            return Some(keys.current.public_key());
        }
        let former = keys.former.iter().find(|former| *former.key_id == *key_id)?;
        at_ms.is_none_or(|at_ms| at_ms <= former.expired_ms).then_some(former.key)
    }

    /// Our name and all our public keys, in the form that ruma's verifying functions take.
    pub fn public_key_map(&self) -> PublicKeyMap {
        let Keys { current, former } = self.keys();
        let former = former.into_iter().map(|former| (former.key_id.to_string(), former.key.to_base64()));
        let current = (current.key_id.to_string(), current.public_key().to_base64());
        let keys: PublicKeySet = former.chain([current]).collect();
        PublicKeyMap::from([(self.server_name.to_string(), keys)])
    }

    /// Adds our signature to `object`. The signature does not cover the fields `signatures` and `unsigned`. Never for
    /// events: see [`crate::build`]. Server-server API, [Signing
    /// JSON](https://spec.matrix.org/v1.19/appendices/#signing-json).
    ///
    /// # Errors
    /// When `object` has a `signatures` field of the wrong form.
    pub fn sign_json(&self, object: &mut CanonicalJsonObject) -> Result<(), SignJsonError> {
        self.current().sign_json(&self.server_name, object)
    }
}

impl fmt::Debug for ServerSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerSigner")
            .field("server_name", &self.server_name)
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}

/// A key for ruma's signing functions. Private, so that not everyone with a [`ServerSigner`] can sign events: that
/// happens in one place.
struct JsonKey<'a>(&'a OwnKey);

impl KeyPair for JsonKey<'_> {
    fn sign(&self, message: &[u8]) -> Signature {
        let key_id = SigningKeyId::from_parts(SigningKeyAlgorithm::Ed25519, self.0.key_id.key_name().as_str().into());
        Signature::new(key_id, self.0.key.sign(message).to_bytes().to_vec())
    }
}

/// The object to sign has a `signatures` field that is not a map of maps.
#[derive(Debug, thiserror::Error)]
#[error("could not add a signature to the object")]
pub struct SignJsonError(#[source] signatures::JsonError);

/// Unpadded URL-safe base64, as in event IDs.
pub(crate) fn url_safe_base64(bytes: [u8; 32]) -> String {
    Base64::<UrlSafe, _>::new(bytes).encode()
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, owned_server_name, signatures::verify_json};
    use serde_json::json;

    use super::*;
    use crate::{
        test_room::{TestRoom, alice, draft},
        verify_own,
    };

    fn signer() -> ServerSigner {
        ServerSigner::generate(owned_server_name!("example.org"))
    }

    #[test]
    fn the_specs_test_key_gives_the_specs_public_key_and_signature() {
        // Appendices, "Cryptographic Test Vectors".
        let file = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n";
        let signer = ServerSigner::from_key_file(owned_server_name!("domain"), file).unwrap();
        assert_eq!(signer.public_key_base64(), "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI");
        let mut object = CanonicalJsonObject::new();
        signer.sign_json(&mut object).unwrap();
        let signature = object["signatures"].as_object().unwrap()["domain"].as_object().unwrap()["ed25519:1"].as_str();
        assert_eq!(
            signature,
            Some("K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        );
    }

    #[test]
    fn two_keys_are_never_the_same() {
        assert_ne!(signer().public_key_base64(), signer().public_key_base64());
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let signer = signer();
        let file = signer.to_key_file();
        let seed = file.split_whitespace().last().unwrap();
        signer.rotate(OwnKey::generate(), 1);
        let shown = format!("{signer:?} {:?}", signer.keys());
        assert!(shown.contains("example.org") && !shown.contains(seed));
        let former = signer.keys().former[0].secret.clone().unwrap();
        assert!(!shown.contains(&format!("{:?}", former.key.to_bytes())));
    }

    #[test]
    fn signed_json_verifies_until_it_is_changed() {
        let signer = signer();
        let mut object: CanonicalJsonObject =
            serde_json::from_value(json!({ "valid_until_ts": 1, "unsigned": { "age": 1 } })).unwrap();
        signer.sign_json(&mut object).unwrap();
        verify_json(&signer.public_key_map(), &object).unwrap();
        object.remove("unsigned");
        verify_json(&signer.public_key_map(), &object).unwrap();
        object.insert("valid_until_ts".to_owned(), ruma::int!(2).into());
        assert!(verify_json(&signer.public_key_map(), &object).is_err());
    }

    #[test]
    fn an_object_with_broken_signatures_is_not_signed() {
        let mut object: CanonicalJsonObject = serde_json::from_value(json!({ "signatures": 1 })).unwrap();
        assert!(signer().sign_json(&mut object).is_err());
    }

    #[test]
    fn events_that_are_built_while_the_key_is_rotated_have_a_signature_of_their_time() {
        let room = TestRoom::new(RoomVersionId::V11);
        let build = |n: usize| {
            let draft = draft("m.room.message", None, json!({ "msgtype": "m.text", "body": n.to_string() }));
            room.build(alice(), draft).unwrap()
        };
        let events = std::thread::scope(|scope| {
            let building = scope.spawn(|| (0..300).map(build).collect::<Vec<_>>());
            for _ in 0..30 {
                // After the time of all events of the test's room.
                room.signer.rotate(OwnKey::generate(), 1_800_000_000_000);
            }
            building.join().unwrap()
        });
        for event in events {
            verify_own(&room.rules, &event, &room.signer).unwrap();
        }
        let late = build(0);
        room.signer.rotate(OwnKey::generate(), late.origin_server_ts - 1);
        assert!(verify_own(&room.rules, &late, &room.signer).is_err());
    }

    #[test]
    fn a_rotation_changes_the_key_in_use_and_keeps_the_one_before_for_its_time() {
        let signer = signer();
        let first = signer.current();
        signer.rotate(OwnKey::generate(), 1000);
        let second = signer.current();
        assert_ne!(first.key_id(), second.key_id());
        let check = |key: &OwnKey, at_ms: Option<i64>, is_valid: bool| {
            let found = signer.key_at(key.key_id(), at_ms);
            assert_eq!(found, is_valid.then(|| key.public_key()), "{at_ms:?}");
        };
        check(&first, Some(1000), true);
        check(&first, Some(-5), true);
        check(&first, Some(1001), false);
        check(&first, None, true);
        check(&second, Some(1001), true);
        check(&second, None, true);
        check(&OwnKey::generate(), None, false);
    }
}
