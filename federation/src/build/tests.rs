use proptest::prelude::*;
use ruma::{
    CanonicalJsonValue, OwnedEventId, UserId, event_id, owned_event_id, room_id,
    serde::{Base64, base64::Standard},
    signatures::{Ed25519KeyPair, hash_and_sign_event, reference_hash},
    state_res::check_pdu_format,
    user_id,
};
use serde_json::{Value as JsonValue, json};

use super::*;
use crate::{
    VerifyError, rules, supported_room_versions,
    test_room::{TestRoom, alice, draft},
    verify_own,
};

fn parse(json: &str) -> CanonicalJsonObject {
    serde_json::from_str(json).unwrap()
}

/// Signs the same event again with ruma alone, and expects the same bytes and ID.
fn assert_ruma_builds_the_same(rules: &RoomVersionRules, signer: &ServerSigner, pdu: &Pdu) {
    let file = signer.to_key_file();
    let seed = Base64::<Standard>::parse(file.split_whitespace().last().unwrap()).unwrap();
    let key_name = signer.key_id().key_name().to_string();
    let key = Ed25519KeyPair::new(ed25519_dalek::pkcs8::ALGORITHM_OID, seed.as_bytes(), None, key_name).unwrap();

    let mut event = parse(&pdu.json);
    event.remove("hashes").unwrap();
    event.remove("signatures").unwrap();
    hash_and_sign_event(signer.server_name().as_str(), &key, &mut event, &rules.redaction).unwrap();
    assert_eq!(serde_json::to_string(&event).unwrap(), *pdu.json);
    assert_eq!(format!("${}", reference_hash(&event, rules).unwrap()), pdu.event_id);
    check_pdu_format(&event, &rules.event_format).unwrap();
}

/// An event of every type that redaction treats specially, and some of other types.
fn drafts() -> Vec<EventDraft> {
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

/// Builds an event with the given content in every version. All versions must agree.
fn build_content(content: &str) -> Result<String, BuildError> {
    let mut last = None;
    for room in TestRoom::of_every_version() {
        let content = RawValue::from_string(content.to_owned()).unwrap();
        let event = room.build(alice(), EventDraft { content, ..draft("m.test", None, json!({})) })?;
        let written = event.content.get().to_owned();
        assert!(event.json.contains(&written));
        assert!(last.is_none_or(|last| last == written));
        last = Some(written);
    }
    Ok(last.unwrap())
}

#[test]
fn content_is_written_canonically() {
    let check = |content: &str, expected: &str| {
        assert_eq!(build_content(content).unwrap(), expected, "{content}");
    };
    check(r#"{ "b" : 1 , "a" : [ true , null ] }"#, r#"{"a":[true,null],"b":1}"#);
    check(r#"{"a":"\u0041\/\u00e9\u2028"}"#, "{\"a\":\"A/é\u{2028}\"}");
    check(r#"{"a":"\u0000\u001f\b\t\n\f\r\"\\"}"#, r#"{"a":"\u0000\u001f\b\t\n\f\r\"\\"}"#);
    check(r#"{"😀":1,"｡":2}"#, r#"{"｡":2,"😀":1}"#);
    check(r#"{"a":9007199254740991,"b":-9007199254740991}"#, r#"{"a":9007199254740991,"b":-9007199254740991}"#);
    // Of two equal keys the last one counts, as in all JSON parsers of Matrix servers.
    check(r#"{"a":1,"a":2}"#, r#"{"a":2}"#);
}

#[test]
fn content_that_canonical_json_cannot_say_is_refused() {
    for content in [
        r#"{"a":1.5}"#,
        r#"{"a":1.0}"#,
        r#"{"a":1e3}"#,
        r#"{"a":-0}"#,
        r#"{"a":[{"b":9007199254740992}]}"#,
        r#"{"a":-9007199254740992}"#,
        r#"{"a":123456789012345678901234567890}"#,
        r#"{"a":"\ud800"}"#,
        "[]",
        "null",
        "1",
        r#""text""#,
    ] {
        let result = build_content(content);
        assert!(matches!(result, Err(BuildError::NotCanonical(_))), "{content}: {result:?}");
    }
}

#[test]
fn content_may_be_as_deep_as_every_reader_can_follow_and_no_deeper() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!("{{\"[[{{\\\"[\":{open}{close}}}")
    };
    let room = TestRoom::of_every_version().last().unwrap();
    let build = |content: String| {
        let content = serde_json::value::RawValue::from_string(content).unwrap();
        room.build(alice(), EventDraft { content, ..draft("m.test", None, json!({})) })
    };
    for levels in [101, 127, 128, 10_000] {
        assert!(matches!(build(nested(levels)), Err(BuildError::TooDeep)), "{levels}");
    }
    let event = build(nested(MAX_NESTING)).unwrap();
    let redaction = build(nested(MAX_NESTING)).unwrap();
    crate::redact::redact(&room.rules, &event.json, Some(&redaction)).unwrap();
    serde_json::from_str::<JsonValue>(&format!("{{\"a\":[[[{}]]]}}", event.json)).unwrap();
}

#[test]
fn an_event_may_have_the_greatest_size_and_not_one_byte_more() {
    for room in TestRoom::of_every_version() {
        let build = |length| room.build(alice(), draft("m.test", None, json!({ "body": "x".repeat(length) })));
        let rest = build(0).unwrap().json.len();
        let event = build(MAX_EVENT_BYTES - rest).unwrap();
        assert_eq!(event.json.len(), MAX_EVENT_BYTES);
        verify_own(&room.rules, &event, &room.signer).unwrap();
        for length in [MAX_EVENT_BYTES - rest + 1, 10 * MAX_EVENT_BYTES] {
            let result = build(length);
            assert!(matches!(result, Err(BuildError::TooLarge { field: "event", .. })), "{result:?}");
        }
    }
}

#[test]
fn a_field_may_have_255_bytes_and_not_one_more() {
    let room = TestRoom::new(ruma::RoomVersionId::V12);
    let check = |draft: EventDraft, refused: Option<&str>| match (room.build(alice(), draft), refused) {
        (Ok(event), None) => verify_own(&room.rules, &event, &room.signer).unwrap(),
        (Err(BuildError::TooLarge { field, .. }), Some(expected)) => {
            assert_eq!(field, expected);
        }
        (result, _) => panic!("{refused:?}: {result:?}"),
    };
    check(draft(&"t".repeat(255), None, json!({})), None);
    check(draft(&"t".repeat(256), None, json!({})), Some("type"));
    check(draft("t", Some(&"é".repeat(127)), json!({})), None);
    check(draft("t", Some(&"é".repeat(128)), json!({})), Some("state_key"));
    let mut redaction = draft("m.room.redaction", None, json!({}));
    redaction.redacts = Some(format!("${}", "x".repeat(255)).try_into().unwrap());
    check(redaction, Some("redacts"));
    let long_name = UserId::parse(format!("@{}:example.org", "a".repeat(250))).unwrap();
    let result = room.build(&long_name, draft("t", None, json!({})));
    assert!(matches!(result, Err(BuildError::TooLarge { field: "sender", .. })), "{result:?}");
}

#[test]
fn a_position_that_does_not_fit_is_refused() {
    let version_12 = TestRoom::new(ruma::RoomVersionId::V12);
    let version_11 = TestRoom::new(ruma::RoomVersionId::V11);
    let fitting = EventPosition {
        room_id: Some(room_id!("!room:example.org")),
        sender: alice(),
        prev_events: &[],
        auth_events: &[],
        depth: u64::MAX,
        origin_server_ts: 1,
    };
    let build = |room: &TestRoom, event_type, position| {
        build_and_sign(&room.rules, &room.signer, draft(event_type, Some(""), json!({})), position)
    };
    let event = build(&version_11, "m.room.create", fitting).unwrap();
    assert_eq!(event.depth, 9_007_199_254_740_991, "a depth beyond canonical JSON becomes its greatest integer");

    let foreign = EventPosition { sender: user_id!("@alice:elsewhere.org"), ..fitting };
    assert!(matches!(build(&version_11, "m.test", foreign), Err(BuildError::ForeignSender { .. })));
    let nowhere = EventPosition { room_id: None, ..fitting };
    assert!(matches!(build(&version_11, "m.room.create", nowhere), Err(BuildError::MissingRoomId)));
    assert!(matches!(build(&version_12, "m.test", nowhere), Err(BuildError::MissingRoomId)));
    assert!(matches!(build(&version_12, "m.room.create", fitting), Err(BuildError::UnexpectedRoomId)));
    let late = EventPosition { origin_server_ts: 1 << 53, ..fitting };
    assert!(matches!(build(&version_11, "m.test", late), Err(BuildError::TimeOutOfRange { .. })));

    let ids: Vec<OwnedEventId> = (0..21).map(|n| format!("${n}").try_into().unwrap()).collect();
    let most = EventPosition { prev_events: &ids[..20], auth_events: &ids[..10], ..fitting };
    assert_eq!(build(&version_11, "m.test", most).unwrap().prev_events.len(), 20);
    let many = EventPosition { prev_events: &ids, ..fitting };
    assert!(matches!(build(&version_11, "m.test", many), Err(BuildError::TooMany { field: "prev_events", .. })));
    let many = EventPosition { auth_events: &ids[..11], ..fitting };
    assert!(matches!(build(&version_11, "m.test", many), Err(BuildError::TooMany { field: "auth_events", .. })));
}

#[test]
fn an_unstable_type_is_signed_as_it_was_written() {
    let room = TestRoom::new(ruma::RoomVersionId::V11);
    let unstable = "org.matrix.call.sdp_stream_metadata_changed";
    let event = room.build(alice(), draft(unstable, None, json!({}))).unwrap();
    assert_eq!(event.event_type, unstable);
    assert_eq!(parse(&event.json)["type"], unstable);
}

fn any_json() -> impl Strategy<Value = JsonValue> {
    let leaf = prop_oneof![
        Just(JsonValue::Null),
        any::<bool>().prop_map(JsonValue::from),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(JsonValue::from),
        any::<String>().prop_map(JsonValue::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(JsonValue::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| JsonValue::Object(map.into_iter().collect())),
        ]
    })
}

fn any_type() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "m.room.message",
            "m.room.member",
            "m.room.power_levels",
            "m.room.join_rules",
            "m.room.redaction",
            "m.room.create",
            "m.room.history_visibility",
            "m.room.aliases",
            "m.room.canonical_alias",
        ])
        .prop_map(str::to_owned),
        "[a-z.\"\\\\\u{1}é]{0,40}",
    ]
}

/// Content with some of the keys that redaction keeps, holding anything.
fn any_content() -> impl Strategy<Value = JsonValue> {
    let known = prop::sample::select(vec![
        "membership",
        "third_party_invite",
        "join_rule",
        "allow",
        "users",
        "invite",
        "redacts",
        "creator",
        "aliases",
        "history_visibility",
    ]);
    let key = prop_oneof![known.prop_map(str::to_owned), any::<String>()];
    prop::collection::btree_map(key, any_json(), 0..6).prop_map(|map| JsonValue::Object(map.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_content_is_built_as_ruma_builds_it_and_reads_back(
        version in prop::sample::select(supported_room_versions().to_vec()),
        event_type in any_type(),
        state_key in prop::option::of("[ -~é\n]{0,40}"),
        content in any_content(),
        redacts in prop::option::of("\\$[ -~]{1,60}"),
        depth in any::<u64>(),
        origin_server_ts in 0..=MAX_INTEGER,
    ) {
        let rules = rules(&version).unwrap();
        let signer = ServerSigner::generate(ruma::owned_server_name!("example.org"));
        let makes_its_room = event_type == "m.room.create" && rules.authorization.room_create_event_id_as_room_id;
        // `redacts` may name any event, but ruma refuses strings that are no event IDs.
        let redacts = redacts.and_then(|id| OwnedEventId::try_from(id).ok());
        let position = EventPosition {
            room_id: (!makes_its_room).then_some(room_id!("!room:example.org")),
            sender: alice(),
            prev_events: &[owned_event_id!("$prev")],
            auth_events: &[owned_event_id!("$one"), owned_event_id!("$two")],
            depth,
            origin_server_ts,
        };
        let draft = EventDraft {
            event_type,
            state_key,
            content: to_raw_value(&content).unwrap(),
            redacts,
        };
        let event = build_and_sign(&rules, &signer, draft, position).unwrap();
        assert_ruma_builds_the_same(&rules, &signer, &event);
        // A member event may need the signature of another server, which we cannot make.
        if event.event_type != "m.room.member" {
            verify_own(&rules, &event, &signer).unwrap();
        }

        let mut expected = content;
        if event.redacts.is_some() && rules.redaction.content_field_redacts {
            expected["redacts"] = event.redacts.as_ref().unwrap().as_str().into();
        }
        prop_assert_eq!(serde_json::from_str::<JsonValue>(event.content.get()).unwrap(), expected);
        crate::pdu::tests::assert_reads_back(&rules, &event);
    }
}
