//! The content and the positions that an event may have, up to the limits.

use ruma::{OwnedEventId, UserId, room_id, user_id};
use serde_json::{Value as JsonValue, json};

use super::*;

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
    for content in NOT_CANONICAL.into_iter().chain(["[]", "null", "1", r#""text""#]) {
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
        let content = RawValue::from_string(content).unwrap();
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
    for origin_server_ts in [1 << 53, -(1 << 53), i64::MIN] {
        let position = EventPosition { origin_server_ts, ..fitting };
        assert!(matches!(build(&version_11, "m.test", position), Err(BuildError::TimeOutOfRange { .. })));
    }

    let ids: Vec<OwnedEventId> = (0..21).map(|n| format!("${n}").try_into().unwrap()).collect();
    let most = EventPosition { prev_events: &ids[..20], auth_events: &ids[..10], ..fitting };
    assert_eq!(build(&version_11, "m.test", most).unwrap().prev_events.len(), 20);
    let many = EventPosition { prev_events: &ids, ..fitting };
    assert!(matches!(build(&version_11, "m.test", many), Err(BuildError::TooMany { field: "prev_events", .. })));
    let many = EventPosition { auth_events: &ids[..11], ..fitting };
    assert!(matches!(build(&version_11, "m.test", many), Err(BuildError::TooMany { field: "auth_events", .. })));
}
