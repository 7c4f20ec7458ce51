//! What is left of an event after its redaction.
//!
//! Promise: the event keeps its ID and its signatures, because both cover only what redaction leaves.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    canonical_json::{CanonicalJsonFieldError, RedactedBecause, redact_in_place},
    room_version_rules::RoomVersionRules,
};

use crate::pdu::Pdu;

/// The canonical JSON of the stored event `json` without what its room version's
/// [redaction](https://spec.matrix.org/v1.19/client-server-api/#redactions) removes.
///
/// With `redacted_because`, the redaction event is shown under `unsigned`: for servers and clients, not for storing.
///
/// # Errors
/// When either event is not a JSON object with a type.
pub fn redact(rules: &RoomVersionRules, json: &str, redacted_because: Option<&Pdu>) -> Result<String, RedactError> {
    let mut event: CanonicalJsonObject = serde_json::from_str(json).map_err(RedactError::Malformed)?;
    let because = match redacted_because {
        Some(redaction) => {
            let redaction = serde_json::from_str(&redaction.json).map_err(RedactError::Malformed)?;
            Some(RedactedBecause::from_json(redaction))
        }
        None => None,
    };
    redact_in_place(&mut event, &rules.redaction, because).map_err(RedactError::Untyped)?;
    Ok(CanonicalJsonValue::Object(event).to_string())
}

/// Why an event could not be redacted.
#[derive(Debug, thiserror::Error)]
pub enum RedactError {
    #[error("the event is not an object of canonical JSON")]
    Malformed(#[source] serde_json::Error),
    #[error("the event has no type")]
    Untyped(#[source] CanonicalJsonFieldError),
}
