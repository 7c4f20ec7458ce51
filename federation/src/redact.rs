//! Redaction of an event.
//!
//! Promise: the event keeps its ID and its signatures, because both cover only the parts that redaction keeps.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    canonical_json::{CanonicalJsonFieldError, RedactedBecause, redact_in_place},
    room_version_rules::RoomVersionRules,
};

use crate::pdu::Pdu;

/// Redacts the stored event `json` by the rules of its room version
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#redactions)), and returns its canonical JSON.
///
/// With `redacted_because`, the redaction event is added under `unsigned`. This form is for servers and clients, not
/// for storing.
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

#[cfg(test)]
mod tests {
    use ruma::signatures::reference_hash;
    use serde_json::{Value as JsonValue, json};

    use super::*;
    use crate::{
        VerifyError,
        test_room::{TestRoom, alice, draft},
        verify_own,
    };

    #[test]
    fn a_redacted_event_keeps_its_id_and_signature() {
        for room in TestRoom::of_every_version() {
            let message = room.build(alice(), draft("m.room.message", None, json!({ "body": "hello" }))).unwrap();
            let member = json!({ "membership": "join", "displayname": "Alice" });
            let member = room.build(alice(), draft("m.room.member", Some(alice().as_str()), member)).unwrap();
            for (event, left) in [(message, json!({})), (member, json!({ "membership": "join" }))] {
                let json = redact(&room.rules, &event.json, None).unwrap();
                let object: CanonicalJsonObject = serde_json::from_str(&json).unwrap();
                assert_eq!(format!("${}", reference_hash(&object, &room.rules).unwrap()), event.event_id);
                let redacted = Pdu::from_stored(&room.rules, event.event_id, json.as_str()).unwrap();
                assert_eq!(serde_json::from_str::<JsonValue>(redacted.content.get()).unwrap(), left);
                // The signature stays valid. The missing content shows in the content hash.
                let result = verify_own(&room.rules, &redacted, &room.signer);
                assert!(matches!(result, Err(VerifyError::ContentHash)), "{}: {result:?}", room.version);
                assert_eq!(redact(&room.rules, &json, None).unwrap(), json, "redacting again changes nothing");
            }
        }
    }

    #[test]
    fn the_redaction_is_shown_under_unsigned() {
        for room in TestRoom::of_every_version() {
            let message = room.build(alice(), draft("m.room.message", None, json!({ "body": "hello" }))).unwrap();
            let mut redaction = draft("m.room.redaction", None, json!({ "reason": "spam" }));
            redaction.redacts = Some(message.event_id.clone());
            let redaction = room.build(alice(), redaction).unwrap();
            let json: JsonValue =
                serde_json::from_str(&redact(&room.rules, &message.json, Some(&redaction)).unwrap()).unwrap();
            assert_eq!(json["unsigned"]["redacted_because"]["content"]["reason"], "spam");
            assert_eq!(json["content"], json!({}));
        }
    }

    #[test]
    fn json_that_is_no_event_is_not_redacted() {
        let room = TestRoom::new(ruma::RoomVersionId::V11);
        assert!(matches!(redact(&room.rules, "[]", None), Err(RedactError::Malformed(_))));
        assert!(matches!(redact(&room.rules, "{}", None), Err(RedactError::Untyped(_))));
    }
}
