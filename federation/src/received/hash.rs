//! The hashes of an event, and the bytes that its signatures cover.

use ruma::{
    CanonicalJsonObject, canonical_json::RedactingSerializer, room_version_rules::RoomVersionRules, serde::Base64,
    signatures::content_hash,
};

use super::FormatError;

/// Fields of a redacted event that neither the signatures nor the reference hash cover. `unsigned` is already left out.
const NOT_SIGNED: &[&str] = &["signatures"];

/// The redacted event without `signatures`. The signatures cover these bytes, and their hash is the event's ID.
pub(super) fn signed_bytes(rules: &RoomVersionRules, event: &CanonicalJsonObject) -> Result<String, FormatError> {
    RedactingSerializer::new()
        .rules(&rules.redaction)
        .custom_redacted_root_fields(NOT_SIGNED)
        .serialize(event)
        .map_err(FormatError::NotCanonical)
}

/// Returns whether the content hash in the event is right. A text that is no hash is a wrong one.
pub(super) fn matches(event: &CanonicalJsonObject) -> bool {
    let said = event.get("hashes").and_then(|hashes| hashes.as_object()?.get("sha256")?.as_str());
    let said = said.and_then(|said| Base64::<ruma::serde::base64::Standard, [u8; 32]>::parse(said).ok());
    // Ruma refuses to hash more than 65,535 bytes. An event has at least 39 bytes that are not hashed, so it never does.
    content_hash(event).is_ok_and(|hash| Some(hash) == said)
}
