//! The room as it is shown to somebody who is invited or knocks ([spec]).
//!
//! It is stored with each of these memberships, and one request can invite hundreds of users in one commit. So its size
//! is bounded, whatever the room's state holds.
//!
//! Promise: a client is shown the room as it was at the invitation or the knock, but nothing of an event that was redacted since.
//! The spec does not ask for that, and Synapse sends what it has stored. But nobody else here is shown that content any more.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#stripped-state

use std::borrow::Cow;

use sabha_federation::Pdu;
use serde_json::{Map, Value, json};

use super::RoomWriter;
use crate::{
    room::{Room, Rooms, memberships::MemberEntry},
    store::{Error, EventNid},
};

/// The largest content that is shown whole. Ordinary contents have a tenth of this; an event may have 64 KiB.
const MAX_CONTENT_BYTES: usize = 4_096;

/// The largest size of all events together. Above it, contents that are larger than [`MAX_VALUE_BYTES`] are cut. About
/// 20 KiB are left at worst.
const MAX_STATE_BYTES: usize = 16_384;

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

impl Rooms {
    /// The stripped state of an invitation or a knock, as a JSON array, without the content of events that were redacted since.
    /// Its events are those of the room's state at the membership.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it or an event cannot be read, and errors of the database.
    pub(crate) async fn stripped_state<'a>(&self, room: &Room, member: &'a MemberEntry) -> Result<Cow<'a, str>, Error> {
        let Some(stored) = member.invite_state.as_deref() else { return Ok("[]".into()) };
        let mut shown: Vec<Value> =
            serde_json::from_str(stored).map_err(|error| Error::damaged("stripped state", error))?;
        let (mut found, mut nids): (Vec<&mut Value>, Vec<EventNid>) = (Vec::new(), Vec::new());
        for event in &mut shown {
            let (Some(event_type), Some(state_key)) = (event["type"].as_str(), event["state_key"].as_str()) else {
                continue;
            };
            let Some(key) = self.find_key(room, event_type, state_key).await? else { continue };
            if let Some(entry) = self.entry_at(room, key, member.pos).await? {
                found.push(event);
                nids.push(entry.event_nid);
            }
        }
        let mut is_redacted = false;
        for (shown, event) in found.into_iter().zip(self.events.list(room, &nids).await?) {
            if event.redacted_because.is_some() {
                // A redaction may leave large contents whole.
                shown["content"] = content(&event.pdu, MAX_VALUE_BYTES);
                is_redacted = true;
            }
        }
        Ok(if is_redacted { Value::from(shown).to_string().into() } else { stored.into() })
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
