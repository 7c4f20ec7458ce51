//! Reading the fields of events, also of malformed ones.

use ruma::{RoomVersionId, event_id};
use serde_json::{json, value::RawValue};

use super::*;

fn pdu(content: &str) -> Pdu {
    let rules = sabha_federation::room_version::rules(&RoomVersionId::V11).expect("a known version");
    let json = json!({
        "type": "m.room.message", "room_id": "!r:x", "sender": "@a:x", "content": {}, "depth": 1,
        "origin_server_ts": 1, "prev_events": [], "auth_events": [], "hashes": { "sha256": "" }, "signatures": {},
    });
    let event_id = event_id!("$e").to_owned();
    let mut pdu = Pdu::from_stored(&rules, event_id, json.to_string()).expect("an event");
    pdu.content = RawValue::from_string(content.to_owned()).expect("it is JSON");
    pdu
}

#[test]
fn long_names_are_not_repeated_for_what_is_below_them() {
    let below: Vec<String> = (0..3_400).map(|number| format!("\"{number}\":1")).collect();
    let content = format!("{{\"{}\":{{{}}}}}", "k".repeat(30_000), below.join(","));
    let fields = Fields::new(fields(&pdu(&content)));
    assert!(fields.value.is_some());
    assert!(fields.bytes > 60_000, "{}", fields.bytes);
    assert!(fields.bytes < 1_000_000, "{}", fields.bytes);
    assert!(CACHED_EVENT_BYTES / fields.bytes > 10, "the others stay");
}

#[test]
fn no_event_takes_more_than_its_share() {
    for content in
        [format!("{{\"a\":[{}1]}}", "1,".repeat(32_000)), format!("{{\"a\":[{}1]}}", "{\"\":1},".repeat(9_000))]
    {
        let fields = Fields::new(fields(&pdu(&content)));
        assert!(fields.bytes < CACHED_EVENT_BYTES / 2, "{}", fields.bytes);
    }
}

#[test]
fn content_that_is_nested_too_deep_is_no_error() {
    let nested = |depth: usize| "{\"a\":".repeat(depth - 1) + "{}" + &"}".repeat(depth - 1);
    assert!(fields(&pdu(&nested(127))).is_some(), "as deep as JSON is read");
    assert!(fields(&pdu(&nested(10_000))).is_none());
    let pdu = Arc::new(pdu(&nested(10_000)));
    let event = PlainEvent { pos: Position::BEFORE_ALL, nid: EventNid(1), pdu, is_redacted: false };
    assert!(Evaluator::default().fields(&event).value.is_none());
}
