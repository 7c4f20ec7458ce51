//! Templates as other servers could send them, and what comes of them into our events.

use ruma::{room_id, server_name, user_id};
use serde_json::json;

use super::*;
use crate::{
    test_room::{TestRoom, alice},
    verify_own,
};

const KINDS: [TemplateKind; 3] = [TemplateKind::Join, TemplateKind::Knock, TemplateKind::Leave];

fn id(letter: char) -> OwnedEventId {
    EventId::parse(format!("${}", String::from(letter).repeat(43))).unwrap()
}

fn resident() -> &'static ServerName {
    server_name!("resident.org")
}

fn wanted(kind: TemplateKind) -> Wanted<'static> {
    Wanted { kind, room_id: room_id!("!room:resident.org"), user: alice() }
}

/// The answer of an honest server.
fn answer(kind: TemplateKind, version: &RoomVersionId) -> JsonValue {
    json!({
        "room_version": version,
        "event": {
            "type": "m.room.member", "room_id": "!room:resident.org", "sender": alice(), "state_key": alice(),
            "content": { "membership": kind.as_str() }, "prev_events": [id('p')], "auth_events": [id('c'), id('l')],
            "depth": 12, "origin": "resident.org", "origin_server_ts": 1,
        },
    })
}

fn read(kind: TemplateKind, answer: &JsonValue) -> Result<Template, TemplateError> {
    Template::read(&wanted(kind), resident(), None, &to_raw_value(answer).unwrap())
}

/// Reads a template of each kind in which something is changed, in room version 11.
#[track_caller]
fn check(change: impl Fn(&mut JsonValue), expected: Option<&str>) {
    for kind in KINDS {
        let mut changed = answer(kind, &RoomVersionId::V11);
        change(&mut changed);
        let found = read(kind, &changed).err().map(|error| error.to_string());
        assert_eq!(found.as_deref(), expected, "{kind:?} {changed}");
    }
}

#[test]
fn a_kind_is_that_of_its_membership() {
    for kind in KINDS {
        assert_eq!(TemplateKind::of(kind.membership()), Some(kind));
    }
    assert_eq!([Membership::Invite, Membership::Ban].map(TemplateKind::of), [None, None]);
}

#[test]
fn a_template_gives_five_fields() {
    for version in crate::supported_room_versions() {
        for kind in KINDS {
            let mut honest = answer(kind, version);
            honest["event"]["content"][AUTHORISER] = "@mod:resident.org".into();
            let template = read(kind, &honest).unwrap();
            let rules = room_version::rules(version).unwrap();
            let is_restricted = kind == TemplateKind::Join && rules.authorization.restricted_join_rule;
            let authoriser = is_restricted.then(|| user_id!("@mod:resident.org").to_owned());
            let expected = Template {
                room_version: version.clone(),
                prev_events: vec![id('p')],
                auth_events: vec![id('c'), id('l')],
                depth: 12,
                authoriser,
            };
            assert_eq!(template, expected, "{version} {kind:?}");
        }
    }
}

#[test]
fn a_template_for_something_else_is_refused() {
    let differs = |field: &str| format!("`{field}` is not what was asked for");
    for wrong in [json!("!other:resident.org"), json!(null), json!(1), json!("")] {
        check(|answer| answer["event"]["room_id"] = wrong.clone(), Some(&differs("room_id")));
    }
    for wrong in [json!("@bob:example.org"), json!("@alice:resident.org"), json!(null), json!(["@alice:example.org"])] {
        check(|answer| answer["event"]["sender"] = wrong.clone(), Some(&differs("sender")));
        check(|answer| answer["event"]["state_key"] = wrong.clone(), Some(&differs("state_key")));
    }
    for wrong in [json!("m.room.power_levels"), json!("m.room.message"), json!(null), json!("m.room.member ")] {
        check(|answer| answer["event"]["type"] = wrong.clone(), Some(&differs("type")));
    }
    for wrong in [json!("ban"), json!("invite"), json!("Join"), json!(null), json!({})] {
        check(|answer| answer["event"]["content"]["membership"] = wrong.clone(), Some(&differs("membership")));
    }
    for field in ["room_id", "sender", "state_key", "type"] {
        let remove = |answer: &mut JsonValue| answer["event"].as_object_mut().unwrap().remove(field).is_some();
        check(|answer| assert!(remove(answer)), Some(&differs(field)));
    }
    for (asked, answered) in [(TemplateKind::Join, TemplateKind::Knock), (TemplateKind::Leave, TemplateKind::Join)] {
        let error = read(asked, &answer(answered, &RoomVersionId::V11)).unwrap_err();
        assert_eq!(error.to_string(), differs("membership"));
    }
}

#[test]
fn a_field_of_the_wrong_form_is_refused() {
    let no_object = |field: &str| format!("`{field}` is missing or not an object");
    for wrong in [json!(null), json!([]), json!("x")] {
        check(|answer| answer["event"] = wrong.clone(), Some(&no_object("event")));
        check(|answer| answer["event"]["content"] = wrong.clone(), Some(&no_object("content")));
    }
    for field in ["prev_events", "auth_events"] {
        let no_list = format!("`{field}` is missing or not a list");
        for wrong in [json!(null), json!({}), json!(id('p'))] {
            check(|answer| answer["event"][field] = wrong.clone(), Some(&no_list));
        }
        let no_id = format!("`{field}` holds something that is not the ID of an event");
        let other_than_a_hash =
            [json!("$short"), json!("$event:resident.org"), json!(1), json!([id('p'), { "sha256": "x" }]), json!("")];
        let almost = [
            json!(format!("!{}", "a".repeat(43))),
            json!(format!("${}", "a".repeat(44))),
            json!(format!("${}\n", "a".repeat(42))),
            json!(format!("${}/", "a".repeat(42))),
        ];
        for wrong in other_than_a_hash.into_iter().chain(almost) {
            check(|answer| answer["event"][field] = json!([id('a'), wrong]), Some(&no_id));
        }
        let twice = format!("`{field}` names an event twice");
        check(|answer| answer["event"][field] = json!([id('a'), id('b'), id('a')]), Some(&twice));
    }
    let many = |count: u8| -> Vec<OwnedEventId> { (0..count).map(|index| id(char::from(b'A' + index))).collect() };
    check(|answer| answer["event"]["prev_events"] = json!(many(20)), None);
    let too_many = "`prev_events` has 21 events, more than 20";
    check(|answer| answer["event"]["prev_events"] = json!(many(21)), Some(too_many));
    check(|answer| answer["event"]["auth_events"] = json!(many(10)), None);
    let too_many = "`auth_events` has 11 events, more than 10";
    check(|answer| answer["event"]["auth_events"] = json!(many(11)), Some(too_many));
    let none = "`prev_events` is empty, as only that of a create event may be";
    check(|answer| answer["event"]["prev_events"] = json!([]), Some(none));

    let no_depth = "`depth` is missing or not a depth of an event";
    for wrong in [json!(-1), json!(1.5), json!("12"), json!(null), json!(1_u64 << 53), json!(u64::MAX), json!([1])] {
        check(|answer| answer["event"]["depth"] = wrong.clone(), Some(no_depth));
    }
    check(|answer| answer["event"]["depth"] = json!(0), None);
    check(|answer| answer["event"]["depth"] = json!(MAX_INTEGER), None);
}

#[test]
fn only_a_user_of_the_answering_server_authorises_a_restricted_join() {
    let mods = |user: JsonValue| {
        move |kind: TemplateKind, version: &RoomVersionId| {
            let mut changed = answer(kind, version);
            changed["event"]["content"][AUTHORISER] = user.clone();
            read(kind, &changed)
        }
    };
    let wrong = [
        json!("@mod:elsewhere.org"),
        json!("@mod:resident.org:8448"),
        json!(alice()),
        json!("mod"),
        json!(null),
        json!(["@mod:resident.org"]),
        json!(format!("@{}:resident.org", "m".repeat(255))),
    ];
    for user in wrong {
        let read = mods(user.clone());
        let error = read(TemplateKind::Join, &RoomVersionId::V8);
        assert!(matches!(error, Err(TemplateError::ForeignAuthoriser)), "{user}: {error:?}");
        // Where nobody authorises, nobody looks at the field, and it does not come into the event.
        for (kind, version) in [(TemplateKind::Leave, RoomVersionId::V11), (TemplateKind::Join, RoomVersionId::V7)] {
            assert_eq!(read(kind, &version).unwrap().authoriser, None, "{user}");
        }
    }
    let right = mods(json!("@mod:resident.org"))(TemplateKind::Join, &RoomVersionId::V8).unwrap();
    assert_eq!(right.authoriser.as_deref(), Some(user_id!("@mod:resident.org")));
}

#[test]
fn the_room_version_must_be_one_that_we_have_and_the_one_of_the_room() {
    let unsupported = |version: &str| format!("the room has the version {version:?}, which is not supported");
    for version in ["1", "2", "5", "13", "org.example.x", ""] {
        check(|answer| answer["room_version"] = version.into(), Some(&unsupported(version)));
    }
    let remove = |answer: &mut JsonValue| answer.as_object_mut().unwrap().remove("room_version").is_some();
    check(|answer| assert!(remove(answer)), Some(&unsupported("1")));
    let no_text = "`room_version` is missing or not a string";
    for wrong in [json!(11), json!(null), json!(["11"])] {
        check(|answer| answer["room_version"] = wrong.clone(), Some(no_text));
    }
    let answer = to_raw_value(&answer(TemplateKind::Leave, &RoomVersionId::V11)).unwrap();
    let known = |version| Template::read(&wanted(TemplateKind::Leave), resident(), Some(&version), &answer);
    known(RoomVersionId::V11).unwrap();
    assert!(matches!(known(RoomVersionId::V10), Err(TemplateError::OtherVersion { .. })));
}

#[test]
fn an_answer_that_is_no_object_or_too_large_is_refused() {
    let read = |json: String| {
        Template::read(&wanted(TemplateKind::Join), resident(), None, &RawValue::from_string(json).unwrap())
    };
    for json in ["[]", "null", "1", &format!("{}1{}", "[".repeat(100), "]".repeat(100))] {
        assert!(matches!(read(json.to_owned()), Err(TemplateError::NotAnObject(_))), "{json}");
    }
    let large = answer(TemplateKind::Join, &RoomVersionId::V11).to_string();
    let padded = |bytes: usize| large.replacen('{', &format!("{{{}", " ".repeat(bytes - large.len())), 1);
    read(padded(MAX_TEMPLATE_BYTES)).unwrap();
    assert!(matches!(read(padded(MAX_TEMPLATE_BYTES + 1)), Err(TemplateError::TooLarge { size_bytes: 65_537 })));
}

#[test]
fn nothing_else_of_a_template_comes_into_the_event() {
    for room in TestRoom::of_every_version() {
        for kind in KINDS {
            // A template in which everything that may be wrong without a refusal is wrong.
            let mut evil = answer(kind, &room.version);
            evil["event"]["room_id"] = room.room_id.as_str().into();
            evil["event"]["content"]["displayname"] = "evil".into();
            evil["event"]["content"]["third_party_invite"] = json!({ "evil": true });
            evil["event"]["origin_server_ts"] = 666.into();
            for field in ["hashes", "signatures", "unsigned", "redacts", "event_id", "origin", "evil"] {
                evil["event"][field] = json!("evil");
            }
            evil["evil"] = "evil".into();
            let wanted = Wanted { room_id: &room.room_id, ..wanted(kind) };
            let template = Template::read(&wanted, resident(), None, &to_raw_value(&evil).unwrap()).unwrap();
            let content = json!({
                "displayname": "Alice", "membership": "ban", "third_party_invite": {}, AUTHORISER: "@evil:evil.org",
            });
            let content = to_raw_value(&content).unwrap();
            let event = build_from_template(&room.rules, &room.signer, &wanted, &content, &template, 1_700_000_000_000)
                .unwrap();
            verify_own(&room.rules, &event, &room.signer).unwrap();
            let mut json: JsonValue = serde_json::from_str(&event.json).unwrap();
            for field in ["hashes", "signatures"] {
                json.as_object_mut().unwrap().remove(field).unwrap();
            }
            let expected = json!({
                "type": "m.room.member", "room_id": room.room_id, "sender": alice(), "state_key": alice(),
                "content": { "membership": kind.as_str(), "displayname": "Alice" }, "prev_events": [id('p')],
                "auth_events": [id('c'), id('l')], "depth": 12, "origin_server_ts": 1_700_000_000_000_i64,
            });
            assert_eq!(json, expected, "{} {kind:?}", room.version);
        }
    }
}

#[test]
fn the_user_who_authorises_is_named_in_the_event() {
    let room = TestRoom::new(RoomVersionId::V11);
    let template = Template {
        authoriser: Some(user_id!("@mod:resident.org").to_owned()),
        ..read(TemplateKind::Join, &answer(TemplateKind::Join, &RoomVersionId::V11)).unwrap()
    };
    let build = |content: &str| {
        let content = RawValue::from_string(content.to_owned()).unwrap();
        build_from_template(&room.rules, &room.signer, &wanted(TemplateKind::Join), &content, &template, 1)
    };
    let event = build("{}").unwrap();
    let content = json!({ "membership": "join", AUTHORISER: "@mod:resident.org" });
    assert_eq!(serde_json::from_str::<JsonValue>(event.content.get()).unwrap(), content);
    // Content of ours that cannot be an event's.
    assert!(matches!(build("[]"), Err(BuildError::NotCanonical(_))));
    assert!(matches!(build(r#"{"a":1.5}"#), Err(BuildError::NotCanonical(_))));
    let large = format!(r#"{{"displayname":"{}"}}"#, "a".repeat(70_000));
    assert!(matches!(build(&large), Err(BuildError::TooLarge { .. })));
    // A user of another server is not ours to sign for.
    let foreign = Wanted { user: user_id!("@bob:elsewhere.org"), ..wanted(TemplateKind::Join) };
    let content = RawValue::from_string("{}".to_owned()).unwrap();
    let refused = build_from_template(&room.rules, &room.signer, &foreign, &content, &template, 1);
    assert!(matches!(refused, Err(BuildError::ForeignSender { .. })), "{refused:?}");
}

#[test]
fn from_version_12_the_implied_create_event_is_left_out() {
    let room = TestRoom::new(RoomVersionId::V12);
    let create = crate::pdu::create_event_id_of(&room.rules, &room.room_id).unwrap();
    let mut answer = answer(TemplateKind::Join, &room.version);
    answer["event"]["room_id"] = room.room_id.as_str().into();
    answer["event"]["auth_events"] = json!([create, id('l')]);
    let wanted = Wanted { room_id: &room.room_id, ..wanted(TemplateKind::Join) };
    let template = Template::read(&wanted, resident(), None, &to_raw_value(&answer).unwrap()).unwrap();
    let content = RawValue::from_string("{}".to_owned()).unwrap();
    let event = build_from_template(&room.rules, &room.signer, &wanted, &content, &template, 1).unwrap();
    assert_eq!(event.auth_events, [id('l')]);
}
