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
    assert!(Budget::new(256 << 20).share(Part::EventFields) / fields.bytes > 10, "the others stay");
}

#[test]
fn an_event_that_is_too_large_for_the_cache_is_evaluated_and_evicts_nothing() {
    let evaluator = Evaluator::new(&Budget::new(256 << 20));
    let event = |nid: i64, content: &str| PlainEvent {
        pos: Position::BEFORE_ALL,
        nid: EventNid(nid),
        pdu: Arc::new(pdu(content)),
        is_redacted: false,
    };
    evaluator.fields(&event(1, "{}"));
    let (cached, bytes) = (evaluator.events.len(), evaluator.events.weight());
    let large = format!("{{\"a\":[{}1]}}", "{\"\":1},".repeat(9_000));
    let fields = evaluator.fields(&event(2, &large));
    assert!(fields.value.is_some() && fields.bytes > 4_000_000, "{}", fields.bytes);
    assert_eq!((evaluator.events.len(), evaluator.events.weight(), cached), (1, bytes, 1));
}

#[test]
fn content_that_is_nested_too_deep_is_no_error() {
    let nested = |depth: usize| "{\"a\":".repeat(depth - 1) + "{}" + &"}".repeat(depth - 1);
    assert!(fields(&pdu(&nested(127))).is_some(), "as deep as JSON is read");
    assert!(fields(&pdu(&nested(10_000))).is_none());
    let pdu = Arc::new(pdu(&nested(10_000)));
    let event = PlainEvent { pos: Position::BEFORE_ALL, nid: EventNid(1), pdu, is_redacted: false };
    assert!(Evaluator::new(&Budget::new(64 << 20)).fields(&event).value.is_none());
}
