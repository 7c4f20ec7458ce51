//! Reading the fields of events, also of malformed ones.

use ruma::{RoomVersionId, event_id};
use sabha_federation::standing::Standing;
use serde_json::{json, value::RawValue};

use super::*;
use crate::room::event::StoredEvent;

fn event(content: &str) -> StoredEvent {
    let rules = sabha_federation::room_version::rules(&RoomVersionId::V11).expect("a known version");
    let json = json!({
        "type": "m.room.message", "room_id": "!r:x", "sender": "@a:x", "content": {}, "depth": 1,
        "origin_server_ts": 1, "prev_events": [], "auth_events": [], "hashes": { "sha256": "" }, "signatures": {},
    });
    let event_id = event_id!("$e").to_owned();
    let mut pdu = sabha_federation::Pdu::from_stored(&rules, event_id, json.to_string()).expect("an event");
    pdu.content = RawValue::from_string(content.to_owned()).expect("it is JSON");
    StoredEvent::new(EventNid(1), RoomNid(1), Standing::OUTLIER, 0, None, Arc::new(pdu), None, None)
}

#[test]
fn long_names_are_not_repeated_for_what_is_below_them() {
    let below: Vec<String> = (0..3_400).map(|number| format!("\"{number}\":1")).collect();
    let content = format!("{{\"{}\":{{{}}}}}", "k".repeat(30_000), below.join(","));
    let fields = Fields::new(fields(&event(&content)));
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
        let fields = Fields::new(fields(&event(&content)));
        assert!(fields.bytes < CACHED_EVENT_BYTES / 2, "{}", fields.bytes);
    }
}

#[test]
fn content_that_is_nested_too_deep_is_no_error() {
    let nested = |depth: usize| "{\"a\":".repeat(depth - 1) + "{}" + &"}".repeat(depth - 1);
    assert!(fields(&event(&nested(127))).is_some(), "as deep as JSON is read");
    assert!(fields(&event(&nested(10_000))).is_none());
    let evaluator = Evaluator::default();
    assert!(evaluator.fields(&event(&nested(10_000))).value.is_none());
}
