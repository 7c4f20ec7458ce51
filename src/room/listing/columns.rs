//! The columns of `room_head` that show a field of a state event.

use std::sync::Arc;

use sabha_federation::Pdu;
use serde_json::{Map, Value};

/// The number of columns with a text.
const TEXTS: usize = 9;

/// The text that each column shows: the event's type, whose state key is empty, and the field of its content.
const SHOWN: [(&str, &str); TEXTS] = [
    ("m.room.name", "name"),
    ("m.room.topic", "topic"),
    ("m.room.avatar", "url"),
    ("m.room.canonical_alias", "alias"),
    ("m.room.encryption", "algorithm"),
    ("m.room.create", "type"),
    ("m.room.join_rules", "join_rule"),
    ("m.room.history_visibility", "history_visibility"),
    ("m.room.guest_access", "guest_access"),
];

/// The largest text of a column; a longer one is cut. The row is written again with each message, and an event may hold
/// 64 KiB. No client shows more of a topic in a list.
const MAX_BYTES: usize = 1_024;

/// The types of events for which clients move a room up in their list ([MSC4186]).
///
/// [MSC4186]: https://github.com/matrix-org/matrix-spec-proposals/pull/4186
const BUMPS: [&str; 7] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "m.beacon_info",
];

/// The types of the state events that a column shows.
pub(in crate::room) fn shown_types() -> impl Iterator<Item = &'static str> {
    SHOWN.iter().map(|(event_type, _)| *event_type)
}

/// Returns whether an event of this type moves its room up.
pub(in crate::room) fn bumps(event_type: &str) -> bool {
    BUMPS.contains(&event_type)
}

/// The columns that a write changes. `None` leaves a column as it is; an empty text stands for nothing.
#[derive(Debug, Default)]
pub(in crate::room) struct Columns {
    /// In the order of [`SHOWN`].
    pub(in crate::room) texts: [Option<Arc<str>>; TEXTS],
    /// 0 if users of other servers may never join, else 1.
    pub(in crate::room) federates: Option<i64>,
}

impl Columns {
    /// Returns whether no column changes.
    pub(in crate::room) fn is_unchanged(&self) -> bool {
        self.federates.is_none() && self.texts.iter().all(Option::is_none)
    }

    /// Takes over the fields of an event that has become the current one of its key, or that is it and was redacted.
    /// `None`: the key has no event any more.
    pub(in crate::room) fn show(&mut self, (event_type, state_key): (&str, &str), event: Option<&Pdu>) {
        let is_shown = state_key.is_empty() && SHOWN.iter().any(|(kind, _)| event_type == *kind);
        if !is_shown {
            return;
        }
        let content = event.map(|event| serde_json::from_str(event.content.get()).unwrap_or_default());
        let content: Map<String, Value> = content.unwrap_or_default();
        for (column, (kind, field)) in self.texts.iter_mut().zip(SHOWN) {
            if event_type == kind {
                *column = Some(text(content.get(field)));
            }
        }
        if event_type == "m.room.create" {
            let federates = content.get("m.federate").and_then(Value::as_bool).unwrap_or(true);
            self.federates = Some(i64::from(federates));
        }
    }
}

/// The text of a field, cut, and without NUL, which PostgreSQL cannot store. A field that is no text counts as empty.
fn text(field: Option<&Value>) -> Arc<str> {
    let text = field.and_then(Value::as_str).unwrap_or_default();
    let text = &text[..text.floor_char_boundary(MAX_BYTES)];
    text.replace('\0', "").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_column_shows_a_text_that_every_database_can_store() {
        let check = |field: Value, expected: &str| assert_eq!(&*text(Some(&field)), expected, "{field}");
        check(json!("Tea"), "Tea");
        check(json!(""), "");
        check(json!(7), "");
        check(json!(null), "");
        check(json!({ "name": "Tea" }), "");
        check(json!("T\0ea\0"), "Tea");
        check(json!("x".repeat(2_000)), &"x".repeat(MAX_BYTES));
        // A character of three bytes does not fit where one byte is left.
        check(json!("茶".repeat(1_000)), &"茶".repeat(MAX_BYTES / 3));
        assert_eq!(&*text(None), "");
    }
}
