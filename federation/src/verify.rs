//! Checks that an event of ours still has the hash, the signature and the ID that we gave it.
//!
//! Used in tests, and to check a database. Events of other servers need their keys, and more checks than these: see
//! [`crate::received`]. These are ruma's checks, so that they do not share a mistake with ours.

use ruma::{
    CanonicalJsonObject, SigningKeyAlgorithm,
    canonical_json::{CanonicalJsonFieldError, redact},
    room_version_rules::RoomVersionRules,
    serde::Base64,
    signatures::{
        self, Verified, reference_hash, to_canonical_json_string_for_signing, verify_canonical_json_bytes, verify_event,
    },
};

use crate::{pdu::Pdu, published_keys::PublicKey, signing::ServerSigner};

/// Checks the event's bytes with ruma: its content hash, the signature of one of `signer`'s keys, and its ID against the reference hash.
///
/// # Errors
/// When one of them is wrong.
pub fn verify_own(rules: &RoomVersionRules, pdu: &Pdu, signer: &ServerSigner) -> Result<(), VerifyError> {
    let event: CanonicalJsonObject = serde_json::from_str(&pdu.json).map_err(VerifyError::Malformed)?;
    let keys = signer.public_key_map();
    match verify_event(&keys, &event, rules).map_err(VerifyError::Signature)? {
        Verified::All => {}
        Verified::Signatures => return Err(VerifyError::ContentHash),
    }
    let hash = reference_hash(&event, rules).map_err(VerifyError::Unhashable)?;
    if pdu.event_id.as_str().strip_prefix('$') != Some(&*hash) {
        return Err(VerifyError::EventId);
    }
    // An invite by third-party ID needs no signature of its sender's server, so `verify_event` did not check one there.
    // `verify_json` is not enough either, because it accepts an event without any signature.
    let redacted = redact(event, &rules.redaction, None).map_err(VerifyError::Unredactable)?;
    let (key, signature) = signature_of(&redacted, signer, pdu.origin_server_ts).ok_or(VerifyError::NotSigned)?;
    let message = to_canonical_json_string_for_signing(&redacted).map_err(VerifyError::Unhashable)?;
    verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, key.as_bytes(), signature.as_bytes(), message.as_bytes())
        .map_err(VerifyError::Signature)
}

/// The signature with one of our keys that was valid at the time of the event, and that key.
fn signature_of(
    event: &CanonicalJsonObject,
    signer: &ServerSigner,
    origin_server_ts: i64,
) -> Option<(PublicKey, Base64)> {
    let by_server = event.get("signatures")?.as_object()?.get(signer.server_name().as_str())?.as_object()?;
    by_server.iter().find_map(|(key_id, signature)| {
        let key = signer.key_at(key_id.as_str().try_into().ok()?, Some(origin_server_ts))?;
        Some((key, Base64::parse(signature.as_str()?).ok()?))
    })
}

/// The check that failed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the event is not an object of canonical JSON")]
    Malformed(#[source] serde_json::Error),
    #[error("the event carries no valid signature of its sender's server")]
    Signature(#[source] signatures::VerificationError),
    #[error("the event carries no signature with a key that this server had then")]
    NotSigned,
    #[error("the content hash does not hold: the event was changed or redacted")]
    ContentHash,
    #[error("the reference hash could not be computed")]
    Unhashable(#[source] signatures::JsonError),
    #[error("the event could not be redacted")]
    Unredactable(#[source] CanonicalJsonFieldError),
    #[error("the event's ID is not its reference hash")]
    EventId,
}
