//! The memory of compiled filters, which the caches and the waiting syncs count.

use std::sync::Arc;

use sabha::{
    filter::{Definition, MAX_ENTRIES, MAX_PATTERNS, SyncFilter},
    memory::cache::HasBytes as _,
};
use serde_json::{Value, json};

use crate::allocations;

/// Memory for the verdicts of a list of many patterns, which a filter counts before it holds them.
const VERDICTS_BYTES: usize = 8 << 10;

/// Memory that a filter takes without any entries, at most.
const EMPTY_BYTES: usize = 4 << 10;

fn check(filter: &Value, verdicts_bytes: usize) {
    let definition = Definition::read(&filter.to_string()).expect("a filter");
    let (held, compiled) = allocations::held_by(|| {
        let compiled = Arc::new(SyncFilter::new(&definition).expect("it is within the limits"));
        for number in 0..1_000 {
            compiled.room.timeline.accepts_type(&format!("m.{number}"));
        }
        compiled
    });
    let said = usize::try_from(compiled.bytes()).expect("it fits into memory");
    let text = filter.to_string();
    let shown = &text[..text.len().min(80)];
    assert!(held <= said, "{shown}: {held} bytes, and not {said}");
    assert!(said <= held + held / 2 + verdicts_bytes, "{shown}: only {held} bytes, and not {said}");
    let most = text.len() + text.len() / 2 + EMPTY_BYTES + verdicts_bytes;
    assert!(held <= most, "{shown}: {held} bytes for {}", text.len());
}

#[test]
fn a_compiled_filter_takes_as_much_memory_as_it_says() {
    let named = |prefix: &str, suffix: &str, count: usize| {
        (0..count).map(|number| format!("{prefix}{number}{suffix}")).collect::<Vec<_>>()
    };
    let types = named("org.example.", "", MAX_ENTRIES);
    let users = named("@user", ":sabha.test", MAX_ENTRIES);
    let rooms = named("!room", ":sabha.test", MAX_ENTRIES);
    let patterns = named(&"x".repeat(250), "*", MAX_PATTERNS);
    check(&json!({}), 0);
    check(&json!({ "presence": { "types": types } }), 0);
    check(&json!({ "presence": { "not_types": vec![""; MAX_ENTRIES] } }), 0);
    check(&json!({ "account_data": { "senders": users } }), 0);
    check(&json!({ "room": { "not_rooms": rooms } }), 0);
    check(&json!({ "room": { "timeline": { "types": ["m.*"] } } }), 0);
    check(&json!({ "room": { "timeline": { "types": named("m.", "*", 10) } } }), VERDICTS_BYTES);
    check(&json!({ "room": { "timeline": { "not_types": patterns } } }), VERDICTS_BYTES);
    check(
        &json!({ "room": { "timeline": {
        "types": types[..200], "not_types": types[200..400], "senders": users[..200], "not_senders": users[200..400],
        "rooms": rooms[..100], "not_rooms": rooms[100..200],
    } } }),
        0,
    );
    check(
        &json!({ "room": { "timeline": {
        "related_by_rel_types": types[..16], "related_by_senders": users[..16],
    } } }),
        0,
    );
}
