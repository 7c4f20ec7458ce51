//! The signatures that an event needs, and their verification.
//!
//! Server-server API, [Validating hashes and signatures on received
//! events](https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events).

use std::collections::BTreeSet;

use ed25519_dalek::{SIGNATURE_LENGTH, Signature, VerifyingKey};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId,
    SigningKeyAlgorithm,
    room_version_rules::RoomVersionRules,
    serde::{Base64, base64::Standard},
};

use super::{
    FormatError,
    format::{object, required, text, user_id},
};
use crate::{broken_keys::is_broken, published_keys::PublicKey};

/// Maximum number of Ed25519 signatures of one server on an event. Servers sign with one key. Each signature may cost a
/// request for its key, and a verification.
const MAX_SIGNATURES: usize = 16;

/// Looks up a server's key. `None`: the key is not known, or was not valid at the time of the event.
pub type KeyOf<'a> = dyn Fn(&ServerName, &ServerSigningKeyId) -> Option<PublicKey> + 'a;

/// The signatures of a server that must have signed an event.
#[derive(Clone, Debug)]
pub struct NeededSignature {
    server: OwnedServerName,
    /// `None`: the text is not a signature.
    signatures: Vec<(OwnedServerSigningKeyId, Option<[u8; SIGNATURE_LENGTH]>)>,
}

impl NeededSignature {
    /// The server that must have signed.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// The Ed25519 keys with which it seems to have signed, at most 16.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &ServerSigningKeyId> {
        self.signatures.iter().map(|(key_id, _)| &**key_id)
    }

    /// Checks the signatures over `message`: one with a known key is correct, and none with a known key is wrong.
    pub(super) fn check(
        &self,
        message: &[u8],
        signatures: &dyn Signatures,
        key: &KeyOf<'_>,
    ) -> Result<(), SignatureError> {
        let server = || self.server.clone();
        let mut is_signed = false;
        for (key_id, signature) in &self.signatures {
            let Some(key) = key(&self.server, key_id) else { continue };
            let is_right = |signature| !is_broken(&key) && signatures.verify(&key, message, &signature);
            if !signature.is_some_and(is_right) {
                return Err(SignatureError::Wrong { server: server(), key_id: key_id.clone() });
            }
            is_signed = true;
        }
        match (is_signed, self.signatures.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => Err(SignatureError::NotSigned { server: server() }),
            (false, false) => Err(SignatureError::NoKey { server: server() }),
        }
    }
}

/// Why the signatures of an event do not prove that it is from its servers.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("{server} has not signed the event")]
    NotSigned { server: OwnedServerName },
    #[error("the signature of {server} with the key {key_id} is wrong")]
    Wrong { server: OwnedServerName, key_id: OwnedServerSigningKeyId },
    /// The event may be good: with more keys, [`super::Unverified::verify`] may succeed.
    #[error("none of the keys with which {server} has signed is known and was valid then")]
    NoKey { server: OwnedServerName },
}

impl SignatureError {
    /// Returns whether the event is proved to be invalid. Otherwise keys are missing.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::NotSigned { .. } | Self::Wrong { .. } => true,
            Self::NoKey { .. } => false,
        }
    }
}

/// Verification of single signatures.
pub trait Signatures: Send + Sync {
    /// Returns whether `signature` is that of `message` with `key`.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> bool;
}

/// Real signatures.
#[derive(Clone, Copy, Debug)]
pub struct Ed25519;

impl Signatures for Ed25519 {
    /// Strict, as libsodium is, which most servers use: a weak key, with which one signature fits many messages, proves
    /// nothing. Single, because a batch accepts signatures that are refused one by one.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> bool {
        VerifyingKey::try_from(key.as_bytes())
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

/// The servers that must have signed the event: the sender's one, unless the event is an invitation by third-party ID, and
/// the one that authorised a restricted join. The event may be in its redacted form.
pub(super) fn needed_servers(
    rules: &RoomVersionRules,
    event: &CanonicalJsonObject,
) -> Result<BTreeSet<OwnedServerName>, FormatError> {
    let mut servers = BTreeSet::new();
    let (is_third_party_invite, authoriser) = match required(text(event, "type")?, "type")? {
        "m.room.member" => of_member(rules, required(object(event, "content")?, "content")?)?,
        _ => (false, None),
    };
    if !is_third_party_invite {
        let sender = required(text(event, "sender")?, "sender")?;
        servers.insert(user_id("sender", sender)?.server_name().to_owned());
    }
    servers.extend(authoriser);
    Ok(servers)
}

/// The facts in the content of an `m.room.member` event: whether it is an invitation by third-party ID, and the server that
/// authorised the join.
fn of_member(
    rules: &RoomVersionRules,
    content: &CanonicalJsonObject,
) -> Result<(bool, Option<OwnedServerName>), FormatError> {
    // A membership of another type makes neither; the auth rules refuse it.
    match content.get("membership").and_then(CanonicalJsonValue::as_str) {
        Some("invite") => Ok((object(content, "third_party_invite")?.is_some(), None)),
        // Ruma looks at this field in events of every type; the specification only in joins.
        Some("join") if rules.signatures.check_join_authorised_via_users_server => {
            let field = "join_authorised_via_users_server";
            let user = text(content, field)?.map(|user| user_id(field, user)).transpose()?;
            Ok((false, user.map(|user| user.server_name().to_owned())))
        }
        _ => Ok((false, None)),
    }
}

/// The signatures of these servers on the event.
pub(super) fn of_servers(
    servers: BTreeSet<OwnedServerName>,
    event: &CanonicalJsonObject,
) -> Result<Vec<NeededSignature>, FormatError> {
    let all = required(object(event, "signatures")?, "signatures")?;
    let of_server = |server: OwnedServerName| {
        let signatures: Vec<_> = all
            .get(server.as_str())
            .and_then(CanonicalJsonValue::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(key_id, signature)| Some((ed25519_key_id(key_id)?, parse(signature))))
            .collect();
        if signatures.len() > MAX_SIGNATURES {
            return Err(FormatError::TooMany { field: "signatures", count: signatures.len(), limit: MAX_SIGNATURES });
        }
        Ok(NeededSignature { server, signatures })
    };
    servers.into_iter().map(of_server).collect()
}

/// The ID of a key, unless it is of another algorithm. Its signatures are ignored.
fn ed25519_key_id(key_id: &str) -> Option<OwnedServerSigningKeyId> {
    let key_id = OwnedServerSigningKeyId::try_from(key_id).ok()?;
    (key_id.algorithm() == SigningKeyAlgorithm::Ed25519).then_some(key_id)
}

fn parse(signature: &CanonicalJsonValue) -> Option<[u8; SIGNATURE_LENGTH]> {
    let signature: Base64<Standard, [u8; SIGNATURE_LENGTH]> = Base64::parse(signature.as_str()?).ok()?;
    Some(signature.into_inner())
}
