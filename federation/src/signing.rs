//! This server's signing key: generated once, stored in a file, used for every event and request.
//!
//! Promise: the secret comes from a cryptographic generator, is wiped from memory when the signer is dropped, and never
//! shows in `Debug` or in an error. [`crate::build`] signs events. [`ServerSigner::sign_json`] signs other JSON (keys,
//! requests, devices).

use std::fmt;

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

/// A server name with the Ed25519 key that signs for it.
pub struct ServerSigner {
    server_name: OwnedServerName,
    key_id: OwnedServerSigningKeyId,
    // Wipes itself on drop (dalek's `zeroize` feature, on by default).
    key: SigningKey,
}

impl ServerSigner {
    /// Generates a new key with a random name, from a cryptographic random generator.
    pub fn generate(server_name: OwnedServerName) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a key must be one that nobody can repeat, in a simulation too")]
        let mut random = rand::rng();
        let mut seed = Zeroizing::new([0; SECRET_KEY_LENGTH]);
        random.fill_bytes(seed.as_mut());
        let name: String = random.sample_iter(Alphanumeric).take(4).map(char::from).collect();
        let key_id = server_key_id(&format!("a_{name}")).expect("letters and digits make a valid key name");
        Self { server_name, key_id, key: SigningKey::from_bytes(&seed) }
    }

    /// Reads the first key of a key file in Synapse's format: `ed25519 a_AbCd <unpadded base64 of the seed>`.
    ///
    /// # Errors
    /// When the first line that is not blank is not an Ed25519 key.
    pub fn from_key_file(server_name: OwnedServerName, text: &str) -> Result<Self, KeyFileError> {
        let line = text.lines().find(|line| !line.trim().is_empty()).ok_or(KeyFileError::Empty)?;
        let mut words = line.split_whitespace();
        let (Some(algorithm), Some(name), Some(seed), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(KeyFileError::Malformed);
        };
        if algorithm != "ed25519" {
            return Err(KeyFileError::UnknownAlgorithm);
        }
        let key_id = server_key_id(name).ok_or(KeyFileError::InvalidName)?;
        let seed = Base64::<Standard, [u8; SECRET_KEY_LENGTH]>::parse(seed).map_err(|_| KeyFileError::InvalidSeed)?;
        let seed = Zeroizing::new(seed.into_inner());
        Ok(Self { server_name, key_id, key: SigningKey::from_bytes(&seed) })
    }

    /// The text of the key file, with a line end. It contains the secret: write it where only the server can read it.
    pub fn to_key_file(&self) -> Zeroizing<String> {
        let seed = Base64::<Standard, _>::new(Zeroizing::new(self.key.to_bytes()));
        let seed = Zeroizing::new(seed.encode());
        Zeroizing::new(format!("ed25519 {} {}\n", self.key_id.key_name(), *seed))
    }

    /// The server that this key signs for.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// The ID of the key, such as `ed25519:a_AbCd`.
    pub fn key_id(&self) -> &ServerSigningKeyId {
        &self.key_id
    }

    /// The public key in unpadded base64, as it is published in `/_matrix/key/v2/server`.
    pub fn public_key_base64(&self) -> String {
        Base64::<Standard, _>::new(self.public_key()).encode()
    }

    /// Our name and public key in the form that ruma's verifying functions take.
    pub fn public_key_map(&self) -> PublicKeyMap {
        let public_key = Base64::new(self.public_key().to_vec());
        let keys = PublicKeySet::from([(self.key_id.to_string(), public_key)]);
        PublicKeyMap::from([(self.server_name.to_string(), keys)])
    }

    /// Adds our signature to `object`. The signature does not cover the fields `signatures` and `unsigned`. Never for
    /// events: see [`crate::build`]. Server-server API, [Signing
    /// JSON](https://spec.matrix.org/v1.19/appendices/#signing-json).
    ///
    /// # Errors
    /// When `object` has a `signatures` field of the wrong form.
    pub fn sign_json(&self, object: &mut CanonicalJsonObject) -> Result<(), SignJsonError> {
        signatures::sign_json(self.server_name.as_str(), &JsonKey(self), object).map_err(SignJsonError)
    }

    /// The signature of `message` in unpadded base64.
    pub(crate) fn sign_bytes(&self, message: &[u8]) -> String {
        Base64::<Standard, _>::new(self.key.sign(message).to_bytes()).encode()
    }

    /// The signature of `message`.
    pub(crate) fn sign_raw(&self, message: &[u8]) -> Base64 {
        Base64::new(self.key.sign(message).to_bytes().to_vec())
    }

    pub(crate) fn public_key(&self) -> [u8; PUBLIC_KEY_LENGTH] {
        self.key.verifying_key().to_bytes()
    }
}

impl fmt::Debug for ServerSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerSigner")
            .field("server_name", &self.server_name)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// A key for ruma's signing functions. Private, so that not everyone with a [`ServerSigner`] can sign events: that
/// happens in one place.
struct JsonKey<'a>(&'a ServerSigner);

impl KeyPair for JsonKey<'_> {
    fn sign(&self, message: &[u8]) -> Signature {
        let key_id = SigningKeyId::from_parts(SigningKeyAlgorithm::Ed25519, self.0.key_id.key_name().as_str().into());
        Signature::new(key_id, self.0.key.sign(message).to_bytes().to_vec())
    }
}

/// Why a text is not a key file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    #[error("the key file holds no key")]
    Empty,
    #[error("the key is not written as algorithm, name and seed")]
    Malformed,
    #[error("the key's algorithm is not ed25519")]
    UnknownAlgorithm,
    #[error("the key's name is not made of letters, digits and underscores")]
    InvalidName,
    #[error("the key's seed is not 32 bytes in base64")]
    InvalidSeed,
}

/// The object to sign has a `signatures` field that is not a map of maps.
#[derive(Debug, thiserror::Error)]
#[error("could not add a signature to the object")]
pub struct SignJsonError(#[source] signatures::JsonError);

fn server_key_id(name: &str) -> Option<OwnedServerSigningKeyId> {
    let name = <&ServerSigningKeyVersion>::try_from(name).ok()?;
    Some(ServerSigningKeyId::from_parts(SigningKeyAlgorithm::Ed25519, name))
}

/// Unpadded URL-safe base64, as in event IDs.
pub(crate) fn url_safe_base64(bytes: [u8; 32]) -> String {
    Base64::<UrlSafe, _>::new(bytes).encode()
}

#[cfg(test)]
mod tests {
    use ruma::{owned_server_name, signatures::verify_json};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let signer = ServerSigner::generate(owned_server_name!("example.org"));
        let file = signer.to_key_file();
        assert!(file.starts_with("ed25519 a_") && file.ends_with('\n'));
        let again = ServerSigner::from_key_file(owned_server_name!("example.org"), &file).unwrap();
        assert_eq!(again.key_id(), signer.key_id());
        assert_eq!(again.public_key_base64(), signer.public_key_base64());
        assert_eq!(*again.to_key_file(), *file);
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
        let name = owned_server_name!("example.org");
        let (one, two) = (ServerSigner::generate(name.clone()), ServerSigner::generate(name));
        assert_ne!(one.public_key_base64(), two.public_key_base64());
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let seed = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";
        let check = |text: &str, expected: KeyFileError| {
            let result = ServerSigner::from_key_file(owned_server_name!("example.org"), text);
            assert_eq!(result.err(), Some(expected), "{text:?}");
        };
        check("", KeyFileError::Empty);
        check(" \n\n", KeyFileError::Empty);
        check("ed25519 a_1", KeyFileError::Malformed);
        check(&format!("ed25519 a_1 {seed} more"), KeyFileError::Malformed);
        check(&format!("rsa a_1 {seed}"), KeyFileError::UnknownAlgorithm);
        check(&format!("ed25519 a-1 {seed}"), KeyFileError::InvalidName);
        check("ed25519 a_1 c2hvcnQ", KeyFileError::InvalidSeed);
        check("ed25519 a_1 *", KeyFileError::InvalidSeed);
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let signer = ServerSigner::generate(owned_server_name!("example.org"));
        let file = signer.to_key_file();
        let seed = file.split_whitespace().last().unwrap();
        let shown = format!("{signer:?}");
        assert!(shown.contains("example.org") && !shown.contains(seed));
        assert!(!shown.contains(&format!("{:?}", signer.key.to_bytes())));
    }

    #[test]
    fn signed_json_verifies_until_it_is_changed() {
        let signer = ServerSigner::generate(owned_server_name!("example.org"));
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
        let signer = ServerSigner::generate(owned_server_name!("example.org"));
        let mut object: CanonicalJsonObject = serde_json::from_value(json!({ "signatures": 1 })).unwrap();
        assert!(signer.sign_json(&mut object).is_err());
    }
}
