//! Step 3: the content hash. An event with a wrong one is redacted, and keeps its ID and its signatures.

use ruma::CanonicalJsonValue;

use super::*;

#[test]
fn an_event_with_a_wrong_content_hash_is_redacted() {
    for room in TestRoom::of_every_version() {
        for draft in drafts() {
            let event = room.build(alice(), draft).unwrap();
            let mut forged = object(&event.json);
            // No version keeps a field of this name, wherever it is.
            forged.insert("org.example.extra".to_owned(), true.into());
            let Some(CanonicalJsonValue::Object(content)) = forged.get_mut("content") else { panic!("no content") };
            content.insert("org.example.extra".to_owned(), true.into());

            let accepted = accept(&room, serde_json::to_string(&forged).unwrap());
            let redacted = crate::redact(&room.rules, &event.json, None).unwrap();
            // Some of them hold nothing that a redaction removes.
            let form = if *event.json == redacted { Form::Whole } else { Form::Redacted };
            assert_eq!((accepted.form(), &*accepted.pdu().json), (form, &*redacted), "{}", room.version);
            assert_eq!(accepted.pdu().event_id, event.event_id);

            // A redacted copy of a redacted event is the same.
            let again = accept(&room, redacted.clone());
            assert_eq!((again.form(), &*again.pdu().json), (form, &*redacted));
        }
    }
}

#[test]
fn a_text_that_is_no_hash_is_a_wrong_one() {
    for room in TestRoom::of_every_version() {
        for hash in ["", "*", "c2hvcnQ", "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncosXXXX"] {
            let mut event = object(&message(&room).json);
            event.insert("hashes".to_owned(), CanonicalJsonObject::from([("sha256".to_owned(), hash.into())]).into());
            // The signature covers the hash, so its server must have made it.
            let signed = serde_json::to_string(&signed_with(&room, event)).unwrap();
            assert_eq!(accept(&room, signed).form(), Form::Redacted, "{hash}");
        }
    }
}

/// Signs an event over its hash, whatever that is.
fn signed_with(room: &TestRoom, mut event: CanonicalJsonObject) -> CanonicalJsonObject {
    let message = super::super::hash::signed_bytes(&room.rules, &event).unwrap();
    let signature = room.signer.current().sign_bytes(message.as_bytes()).encode();
    let of_server = CanonicalJsonObject::from([(room.signer.key_id().to_string(), signature.into())]);
    let signatures = CanonicalJsonObject::from([(room.signer.server_name().to_string(), of_server.into())]);
    event.insert("signatures".to_owned(), signatures.into());
    event
}

#[test]
fn a_change_of_what_redaction_keeps_breaks_the_signature() {
    for room in TestRoom::of_every_version() {
        let event = room.build(alice(), draft("m.room.name", Some("k"), json!({ "name": "n" }))).unwrap();
        for (field, value) in [
            ("type", CanonicalJsonValue::from("m.room.topic")),
            ("state_key", "other".into()),
            ("sender", "@mallory:example.org".into()),
            ("depth", ruma::int!(1).into()),
            ("origin_server_ts", ruma::int!(1).into()),
            ("prev_events", CanonicalJsonValue::Array(Vec::new())),
            ("auth_events", CanonicalJsonValue::Array(Vec::new())),
            ("hashes", CanonicalJsonObject::from([("sha256".to_owned(), "AAAA".into())]).into()),
        ] {
            let mut forged = object(&event.json);
            forged.insert(field.to_owned(), value);
            let unverified = read_in(&room, serde_json::to_string(&forged).unwrap()).unwrap();
            assert_ne!(*unverified.event_id(), *event.event_id, "{field}");
            let result = verify_with(unverified, &[&room.signer]);
            assert!(matches!(result, Err(SignatureError::Wrong { .. })), "{} {field}: {result:?}", room.version);
        }
    }
}
