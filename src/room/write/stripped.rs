//! The room as it is shown to somebody who is invited or knocks ([spec]).
//!
//! It is stored with each of these memberships, and one request can invite hundreds of users in one commit. So its size
//! is bounded, whatever the room's state holds. [`read::stripped`](crate::room::read::stripped) reads it.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#stripped-state

use sabha_federation::Pdu;
use serde_json::{Map, Value, json};

use super::RoomWriter;
use crate::store::Error;

/// The largest content that is shown whole. Ordinary contents have a tenth of this; an event may have 64 KiB.
const MAX_CONTENT_BYTES: usize = 4_096;

/// The largest size of all events together. Above it, contents that are larger than [`MAX_VALUE_BYTES`] are cut.
const MAX_STATE_BYTES: usize = 16_384;

/// About the size that is left at worst, when contents are cut.
pub(crate) const MOST_BYTES: usize = 20 << 10;

/// The largest value, as JSON, that is left in a content that is cut. Names, addresses and IDs are shorter.
const MAX_VALUE_BYTES: usize = 1_024;

const SHOWN: [&str; 7] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
];

impl RoomWriter<'_> {
    /// The room's stripped state for an invited or knocking user, as a JSON array.
    pub(super) async fn stripped_state(&self, member: &Pdu) -> Result<String, Error> {
        let mut shown = Vec::new();
        for event_type in SHOWN {
            shown.extend(self.current(event_type, "").await?.map(|current| current.pdu));
        }
        // A user who knocks is their sender: an earlier membership of theirs is not shown.
        if member.state_key.as_deref() != Some(member.sender.as_str()) {
            shown.extend(self.current("m.room.member", member.sender.as_str()).await?.map(|current| current.pdu));
        }
        let shown: Vec<&Pdu> = shown.iter().map(|pdu| &**pdu).chain([member]).collect();
        Ok(bounded(&shown))
    }
}

/// The stripped events. Contents are whole if they are small, and cut otherwise.
fn bounded(events: &[&Pdu]) -> String {
    let stripped = |whole_upto: usize| {
        let event = |pdu: &&Pdu| {
            let content = content(pdu, whole_upto);
            json!({ "type": pdu.event_type, "state_key": pdu.state_key, "sender": pdu.sender, "content": content })
        };
        Value::from(events.iter().map(event).collect::<Vec<_>>()).to_string()
    };
    let state = stripped(MAX_CONTENT_BYTES);
    if state.len() <= MAX_STATE_BYTES { state } else { stripped(MAX_VALUE_BYTES) }
}

/// The content of an event that was redacted. A redaction may leave large contents whole.
pub(in crate::room) fn redacted_content(pdu: &Pdu) -> Value {
    content(pdu, MAX_VALUE_BYTES)
}

fn content(pdu: &Pdu, whole_upto: usize) -> Value {
    if pdu.content.get().len() <= whole_upto { json!(pdu.content) } else { cut(pdu) }
}

/// The fields of a content that clients show, or need to join the room.
fn fields(event_type: &str) -> &'static [&'static str] {
    match event_type {
        "m.room.create" => &["type", "creator", "room_version", "m.federate"],
        "m.room.name" => &["name"],
        "m.room.avatar" => &["url"],
        "m.room.topic" => &["topic"],
        "m.room.join_rules" => &["join_rule"],
        "m.room.canonical_alias" => &["alias"],
        "m.room.encryption" => &["algorithm"],
        "m.room.member" => &["membership", "displayname", "avatar_url", "reason", "is_direct"],
        _ => &[],
    }
}

fn cut(pdu: &Pdu) -> Value {
    let content: Map<String, Value> = serde_json::from_str(pdu.content.get()).unwrap_or_default();
    let is_shown = |(field, value): &(String, Value)| {
        fields(&pdu.event_type).contains(&field.as_str())
            && !matches!(value, Value::Array(_) | Value::Object(_))
            && value.to_string().len() <= MAX_VALUE_BYTES
    };
    content.into_iter().filter(is_shown).collect()
}
