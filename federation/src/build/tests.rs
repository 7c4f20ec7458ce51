//! Every kind of event verifies, and is what Ruma builds.

mod any_content;
mod limits;

use ruma::{
    CanonicalJsonValue, event_id, owned_event_id,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, hash_and_sign_event, reference_hash},
    state_res::check_pdu_format,
};
use serde_json::json;

use super::*;
use crate::{
    VerifyError,
    test_room::{TestRoom, alice, draft},
    verify_own,
};

/// JSON objects that canonical JSON cannot say.
pub(crate) const NOT_CANONICAL: [&str; 8] = [
    r#"{"a":1.5}"#,
    r#"{"a":1.0}"#,
    r#"{"a":1e3}"#,
    r#"{"a":-0}"#,
    r#"{"a":[{"b":9007199254740992}]}"#,
    r#"{"a":-9007199254740992}"#,
    r#"{"a":123456789012345678901234567890}"#,
    r#"{"a":"\ud800"}"#,
];

fn parse(json: &str) -> CanonicalJsonObject {
    serde_json::from_str(json).unwrap()
}

/// Adds the content hash and the signature of `signer` with ruma alone.
pub(crate) fn hash_and_sign_with_ruma(
    rules: &RoomVersionRules,
    signer: &ServerSigner,
    event: &mut CanonicalJsonObject,
) {
    let file = signer.to_key_file();
    let seed = Base64::<Standard>::parse(file.split_whitespace().last().unwrap()).unwrap();
    let key_name = signer.key_id().key_name().to_string();
    let key = Ed25519KeyPair::new(ed25519_dalek::pkcs8::ALGORITHM_OID, seed.as_bytes(), None, key_name).unwrap();
    hash_and_sign_event(signer.server_name().as_str(), &key, event, &rules.redaction).unwrap();
}

/// Signs the same event again with ruma alone, and expects the same bytes and ID.
fn assert_ruma_builds_the_same(rules: &RoomVersionRules, signer: &ServerSigner, pdu: &Pdu) {
    let mut event = parse(&pdu.json);
    event.remove("hashes").unwrap();
    event.remove("signatures").unwrap();
    hash_and_sign_with_ruma(rules, signer, &mut event);
    assert_eq!(serde_json::to_string(&event).unwrap(), *pdu.json);
    assert_eq!(format!("${}", reference_hash(&event, rules).unwrap()), pdu.event_id);
    check_pdu_format(&event, &rules.event_format).unwrap();
}

/// An event of every type that redaction treats specially, and some of other types.
pub(crate) fn drafts() -> Vec<EventDraft> {
    let mut redaction = draft("m.room.redaction", None, json!({ "reason": "spam", "redacts": "$mine" }));
    redaction.redacts = Some(owned_event_id!("$redacted"));
    let third_party = json!({ "display_name": "b", "signed": { "mxid": "@b:c", "token": "t", "signatures": {} } });
    vec![
        redaction,
        draft("m.room.message", None, json!({ "body": "hé \"\\\n\u{1}\u{7f}\u{1f600}", "msgtype": "m.text" })),
        draft("m.room.encrypted", None, json!({ "ciphertext": "x" })),
        draft("org.example.\"type\"", Some("a \"state\\key\n"), json!({ "z": [1, null, { "b": true, "a": -1 }] })),
        draft(
            "m.room.member",
            Some(alice().as_str()),
            json!({
                "membership": "invite", "displayname": "A", "reason": "r", "third_party_invite": third_party,
            }),
        ),
        draft(
            "m.room.member",
            Some(alice().as_str()),
            json!({
                "membership": "join", "join_authorised_via_users_server": alice(),
            }),
        ),
        draft("m.room.join_rules", Some(""), json!({ "join_rule": "restricted", "allow": [{ "type": "t" }], "x": 1 })),
        draft(
            "m.room.power_levels",
            Some(""),
            json!({
                "ban": 1, "events": { "a": 1 }, "events_default": 1, "kick": 1, "redact": 1, "state_default": 1,
                "users": { "@alice:example.org": 100 }, "users_default": 0, "invite": 5, "notifications": { "room": 50 },
            }),
        ),
        draft("m.room.history_visibility", Some(""), json!({ "history_visibility": "shared", "x": 1 })),
        draft("m.room.aliases", Some("example.org"), json!({ "aliases": ["#a:example.org"] })),
        draft("m.room.server_acl", Some(""), json!({ "allow": ["*"], "deny": ["evil"] })),
        draft("m.room.name", Some(""), json!({})),
    ]
}

#[test]
fn every_kind_of_event_verifies_and_is_what_ruma_builds() {
    for room in TestRoom::of_every_version() {
        for draft in drafts() {
            let event = room.build(alice(), draft).unwrap();
            verify_own(&room.rules, &event, &room.signer).unwrap();
            assert_ruma_builds_the_same(&room.rules, &room.signer, &event);
        }
        for event in room.state.values() {
            verify_own(&room.rules, event, &room.signer).unwrap();
            assert_ruma_builds_the_same(&room.rules, &room.signer, event);
        }
    }
}

#[test]
fn changing_any_field_breaks_the_event() {
    for room in TestRoom::of_every_version() {
        for draft in drafts().into_iter().chain([draft("org.example", Some("k"), json!({}))]) {
            let event = room.build(alice(), draft).unwrap();
            for key in parse(&event.json).keys() {
                let mut object = parse(&event.json);
                match object.get_mut(key).unwrap() {
                    CanonicalJsonValue::String(text) => text.push('x'),
                    CanonicalJsonValue::Integer(number) => *number += ruma::int!(1),
                    CanonicalJsonValue::Array(items) => items.push("$x".into()),
                    CanonicalJsonValue::Object(map) if key == "signatures" => map.clear(),
                    CanonicalJsonValue::Object(map) => {
                        assert!(map.insert("new".to_owned(), true.into()).is_none());
                    }
                    other => panic!("an event has no {other:?} at {key}"),
                }
                let json = serde_json::to_string(&object).unwrap();
                let changed = Pdu { json: json.into(), ..event.clone() };
                assert!(verify_own(&room.rules, &changed, &room.signer).is_err(), "{} {key}", room.version);
            }
            let renamed = Pdu { event_id: owned_event_id!("$other"), ..event };
            let result = verify_own(&room.rules, &renamed, &room.signer);
            assert!(matches!(result, Err(VerifyError::EventId)), "{result:?}");
        }
    }
}

#[test]
fn redacts_goes_where_the_room_version_wants_it() {
    for room in TestRoom::of_every_version() {
        let mut redaction = draft("m.room.redaction", None, json!({ "reason": "spam" }));
        redaction.redacts = Some(owned_event_id!("$redacted"));
        let event = room.build(alice(), redaction).unwrap();
        let object = parse(&event.json);
        let in_content = object["content"].as_object().unwrap().contains_key("redacts");
        let from_11 = room.rules.redaction.content_field_redacts;
        assert_eq!((in_content, object.contains_key("redacts")), (from_11, !from_11), "{}", room.version);
        assert_eq!(event.redacts.as_deref(), Some(event_id!("$redacted")));

        let in_content_only = draft("m.room.redaction", None, json!({ "redacts": "$redacted" }));
        let event = room.build(alice(), in_content_only).unwrap();
        assert_eq!(event.redacts.is_some(), from_11, "{}", room.version);

        let mut message = draft("m.room.message", None, json!({}));
        message.redacts = Some(owned_event_id!("$redacted"));
        let event = room.build(alice(), message).unwrap();
        assert!(event.redacts.is_none() && !event.json.contains("redacts"));
    }
}

#[test]
fn from_version_12_the_create_event_is_the_room_and_is_implied() {
    for room in TestRoom::of_every_version() {
        let create = &room.state[&("m.room.create".to_owned(), String::new())];
        let from_12 = room.rules.authorization.room_create_event_id_as_room_id;
        let hash = create.event_id.as_str().strip_prefix('$');
        assert_eq!(create.room_id.as_str().strip_prefix('!') == hash, from_12, "{}", room.version);
        assert_eq!(!create.json.contains("room_id"), from_12, "{}", room.version);

        let position = EventPosition {
            room_id: Some(&room.room_id),
            sender: alice(),
            prev_events: &[],
            auth_events: &[create.event_id.clone(), owned_event_id!("$levels")],
            depth: 2,
            origin_server_ts: 1,
        };
        let event = build_and_sign(&room.rules, &room.signer, draft("m.test", None, json!({})), position).unwrap();
        assert_eq!(!event.auth_events.contains(&create.event_id), from_12, "{}", room.version);
        assert_eq!(!event.json.contains(create.event_id.as_str()), from_12, "{}", room.version);
        assert!(event.auth_events.contains(&owned_event_id!("$levels")));
    }
}

#[test]
fn an_unstable_type_is_signed_as_it_was_written() {
    let room = TestRoom::new(ruma::RoomVersionId::V11);
    let unstable = "org.matrix.call.sdp_stream_metadata_changed";
    let event = room.build(alice(), draft(unstable, None, json!({}))).unwrap();
    assert_eq!(event.event_type, unstable);
    assert_eq!(parse(&event.json)["type"], unstable);
}
