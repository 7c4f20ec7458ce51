//! Whether an event of ours still carries the hash, the signature and the ID that we gave it.
//!
//! For tests and for checking a database: events of other servers need their keys, and more checks than these.

use ruma::{
    CanonicalJsonObject,
    room_version_rules::RoomVersionRules,
    signatures::{self, Verified, reference_hash, verify_event},
};

use crate::{pdu::Pdu, signing::ServerSigner};

/// Checks the event's bytes with ruma: content hash, `signer`'s signature, and reference hash against the ID.
///
/// # Errors
/// When one of them does not hold.
pub fn verify_own(rules: &RoomVersionRules, pdu: &Pdu, signer: &ServerSigner) -> Result<(), VerifyError> {
    let event: CanonicalJsonObject = serde_json::from_str(&pdu.json).map_err(VerifyError::Malformed)?;
    match verify_event(&signer.public_key_map(), &event, rules).map_err(VerifyError::Signature)? {
        Verified::All => {}
        Verified::Signatures => return Err(VerifyError::ContentHash),
    }
    let hash = reference_hash(&event, rules).map_err(VerifyError::Unhashable)?;
    if pdu.event_id.as_str().strip_prefix('$') == Some(&*hash) { Ok(()) } else { Err(VerifyError::EventId) }
}

/// What does not hold.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the event is not an object of canonical JSON")]
    Malformed(#[source] serde_json::Error),
    #[error("the event carries no valid signature of its sender's server")]
    Signature(#[source] signatures::VerificationError),
    #[error("the content hash does not hold: the event was changed or redacted")]
    ContentHash,
    #[error("the reference hash could not be computed")]
    Unhashable(#[source] signatures::JsonError),
    #[error("the event's ID is not its reference hash")]
    EventId,
}
