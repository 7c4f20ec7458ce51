//! An event as it is stored and sent between servers (a PDU), parsed once into the fields that the server needs.
//!
//! Promise: [`Pdu::json`] is the event byte for byte as it was signed. The other fields are read from it and never
//! differ from it. Nothing is verified here: [`crate::build`] makes local events, and stored events were checked before
//! they were stored.

use std::{fmt, sync::Arc};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    events::TimelineEventType, room_version_rules::RoomVersionRules, state_res::Event,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::signing::url_safe_base64;

/// Half of the numbers of ruma's `UInt`, 2^52. Times that are farther from the epoch, more than 142,000 years, are
/// equal to the auth rules and state resolution.
const HALF_OF_UINT: i64 = 1 << 52;

/// A signed event. Usually shared as an `Arc<Pdu>`. Both implement ruma's [`Event`].
#[derive(Clone)]
pub struct Pdu {
    /// The event's ID: its reference hash, after a `$`.
    pub event_id: OwnedEventId,
    /// The room. An `m.room.create` event of room version 12 and later does not name its room. Then this is derived
    /// from the event ID, and [`Event::room_id`] returns `None`, as the auth rules expect.
    pub room_id: OwnedRoomId,
    /// The sender.
    pub sender: OwnedUserId,
    /// The time at which the sending server says it sent the event, in milliseconds since the Unix epoch. Any integer of
    /// canonical JSON, so it may be negative.
    pub origin_server_ts: i64,
    /// The event's type exactly as it is sent. ([`Event::event_type`] may replace an unstable type with its stable
    /// alias, so it must not become part of a state key.)
    pub event_type: String,
    /// Present for state events only.
    pub state_key: Option<String>,
    /// The content, a JSON object.
    pub content: Box<RawValue>,
    /// The events before this one; none for the create event.
    pub prev_events: Vec<OwnedEventId>,
    /// The events that authorize this one, as they are sent: from room version 12 on without the create event.
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the greatest depth of the previous events.
    pub depth: u64,
    /// The event that an `m.room.redaction` redacts, from the place where its room version has it. `None` for every
    /// other type.
    pub redacts: Option<OwnedEventId>,
    /// Whether the event failed the auth rules when it was received. The caller that loads the event sets it.
    pub rejected: bool,
    /// The canonical JSON of the whole event, as it was signed.
    pub json: Arc<str>,

    pub(crate) names_its_room: bool,
    pub(crate) ruma_type: TimelineEventType,
}

impl Pdu {
    /// Parses a stored event that was not rejected. Checks its form, but not its hash, signatures or ID.
    ///
    /// # Errors
    /// When `json` does not have the form of an event. The database then contains something that we never stored.
    pub fn from_stored(
        rules: &RoomVersionRules,
        event_id: OwnedEventId,
        json: impl Into<Arc<str>>,
    ) -> Result<Self, PduError> {
        let json = json.into();
        let wire: Wire<'_> = serde_json::from_str(&json).map_err(PduError::Malformed)?;
        let names_its_room = wire.room_id.is_some();
        let room_id = match wire.room_id {
            _ if wire.event_type == "m.room.create" && rules.authorization.room_create_event_id_as_room_id => {
                room_id_of_create(&event_id).ok_or(PduError::NoRoom)?
            }
            Some(room_id) => room_id,
            None => return Err(PduError::NoRoom),
        };
        let redacts = if wire.event_type != "m.room.redaction" {
            None
        } else if rules.redaction.content_field_redacts {
            // Other servers' events may contain anything here. A redaction that names no event redacts nothing.
            serde_json::from_str::<RedactionContent>(wire.content.get()).ok().and_then(|content| content.redacts)
        } else {
            wire.redacts.and_then(|redacts| serde_json::from_str(redacts.get()).ok())
        };
        Ok(Self {
            event_id,
            room_id,
            sender: wire.sender,
            origin_server_ts: wire.origin_server_ts,
            ruma_type: TimelineEventType::from(wire.event_type.as_str()),
            event_type: wire.event_type,
            state_key: wire.state_key,
            content: wire.content.to_owned(),
            prev_events: wire.prev_events,
            auth_events: wire.auth_events,
            depth: wire.depth,
            redacts,
            rejected: false,
            names_its_room,
            json: Arc::clone(&json),
        })
    }

    /// Returns whether this is a state event with this type and state key.
    pub fn is_state(&self, event_type: &str, state_key: &str) -> bool {
        self.event_type == event_type && self.state_key.as_deref() == Some(state_key)
    }
}

/// The ID of the event whose redacted form, without `signatures`, is `redacted`: the reference hash, after a `$`.
/// Server-server API, [Calculating the reference hash for an
/// event](https://spec.matrix.org/v1.19/server-server-api/#calculating-the-reference-hash-for-an-event).
pub(crate) fn event_id_of(redacted: &str) -> OwnedEventId {
    EventId::new_v2_or_v3(&url_safe_base64(Sha256::digest(redacted).into()))
        .expect("a base64 hash makes a valid event ID")
}

/// The ID of the room that a create event of room version 12 or later creates. `None` for an event ID that is not a
/// hash.
pub fn room_id_of_create(event_id: &EventId) -> Option<OwnedRoomId> {
    RoomId::new_v2(event_id.as_str().strip_prefix('$')?).ok()
}

/// The ID of the create event of a room of version 12 or later. `None` for rooms with another kind of ID.
pub fn create_event_id_of(rules: &RoomVersionRules, room_id: &RoomId) -> Option<OwnedEventId> {
    if !rules.authorization.room_create_event_id_as_room_id {
        return None;
    }
    EventId::new_v2_or_v3(room_id.strip_sigil()).ok()
}

/// The fields that we read. They borrow where no owned copy is needed.
#[derive(Deserialize)]
struct Wire<'a> {
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    origin_server_ts: i64,
    #[serde(rename = "type")]
    event_type: String,
    state_key: Option<String>,
    #[serde(borrow)]
    content: &'a RawValue,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    depth: u64,
    // Read only for redactions. In other events it may contain anything.
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RedactionContent {
    redacts: Option<OwnedEventId>,
}

impl Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.names_its_room.then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    /// Not the time, but a number in the order of times. State resolution only compares it, and ruma's type has no
    /// negative numbers.
    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        let in_range = self.origin_server_ts.clamp(-HALF_OF_UINT, HALF_OF_UINT - 1);
        MilliSecondsSinceUnixEpoch(UInt::try_from(in_range + HALF_OF_UINT).unwrap_or(UInt::MAX))
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.ruma_type
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

// Written by hand, so that no log ever shows people's messages.
impl fmt::Debug for Pdu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pdu")
            .field("event_id", &self.event_id)
            .field("room_id", &self.room_id)
            .field("sender", &self.sender)
            .field("event_type", &self.event_type)
            .field("state_key", &self.state_key)
            .field("depth", &self.depth)
            .field("rejected", &self.rejected)
            .finish_non_exhaustive()
    }
}

/// Why stored JSON is not an event.
#[derive(Debug, thiserror::Error)]
pub enum PduError {
    #[error("the JSON has not the form of an event")]
    Malformed(#[source] serde_json::Error),
    #[error("the event names no room")]
    NoRoom,
}

#[cfg(test)]
pub(crate) mod tests {
    use ruma::{RoomVersionId, event_id, owned_event_id};
    use serde_json::{Value as JsonValue, json};

    use super::*;
    use crate::{
        rules,
        test_room::{TestRoom, alice, draft},
    };

    /// Parses the event's bytes and expects every field as it was when the event was built.
    pub(crate) fn assert_reads_back(rules: &RoomVersionRules, built: &Pdu) {
        let read = Pdu::from_stored(rules, built.event_id.clone(), Arc::clone(&built.json)).unwrap();
        assert_eq!(read.event_id, built.event_id);
        assert_eq!(read.room_id, built.room_id);
        assert_eq!(read.sender, built.sender);
        assert_eq!(read.origin_server_ts, built.origin_server_ts);
        assert_eq!(read.event_type, built.event_type);
        assert_eq!(read.ruma_type, built.ruma_type);
        assert_eq!(read.state_key, built.state_key);
        assert_eq!(read.content.get(), built.content.get());
        assert_eq!(read.prev_events, built.prev_events);
        assert_eq!(read.auth_events, built.auth_events);
        assert_eq!(read.depth, built.depth);
        assert_eq!(read.redacts, built.redacts);
        assert_eq!(read.rejected, built.rejected);
        assert_eq!(read.json, built.json);
        assert_eq!(Event::room_id(&read), Event::room_id(built));
    }

    #[test]
    fn a_stored_event_reads_back_as_it_was_built() {
        for room in TestRoom::of_every_version() {
            let mut redaction = draft("m.room.redaction", None, json!({ "reason": "spam" }));
            redaction.redacts = Some(owned_event_id!("$redacted"));
            assert_reads_back(&room.rules, &room.build(alice(), redaction).unwrap());
            for event in room.state.values() {
                assert_reads_back(&room.rules, event);
            }
        }
    }

    #[test]
    fn a_create_event_of_version_12_names_no_room_to_the_auth_rules() {
        for room in TestRoom::of_every_version() {
            let create = &room.state[&("m.room.create".to_owned(), String::new())];
            let from_12 = room.version == RoomVersionId::V12;
            assert_eq!(Event::room_id(create).is_none(), from_12, "{}", room.version);
            assert_eq!(create_event_id_of(&room.rules, &room.room_id).as_ref() == Some(&create.event_id), from_12);
            assert!(create.is_state("m.room.create", "") && !create.is_state("m.room.create", "x"));
        }
    }

    fn stored(version: RoomVersionId, change: impl FnOnce(&mut JsonValue)) -> Result<Pdu, PduError> {
        let mut event = json!({
            "auth_events": ["$a"], "content": {}, "depth": 3, "hashes": { "sha256": "x" }, "origin_server_ts": 5,
            "prev_events": ["$p"], "room_id": "!r:example.org", "sender": "@a:example.org", "signatures": {},
            "type": "m.room.redaction", "unsigned": { "age": 1 },
        });
        change(&mut event);
        Pdu::from_stored(&rules(&version).unwrap(), owned_event_id!("$e"), event.to_string())
    }

    #[test]
    fn redacts_is_read_from_the_place_of_the_room_version_and_only_there() {
        let check = |version: RoomVersionId, change: fn(&mut JsonValue), expected: Option<&EventId>| {
            assert_eq!(stored(version, change).unwrap().redacts.as_deref(), expected);
        };
        let at_top: fn(&mut JsonValue) = |event| event["redacts"] = "$x".into();
        let in_content: fn(&mut JsonValue) = |event| event["content"]["redacts"] = "$x".into();
        check(RoomVersionId::V10, at_top, Some(event_id!("$x")));
        check(RoomVersionId::V10, in_content, None);
        check(RoomVersionId::V11, in_content, Some(event_id!("$x")));
        check(RoomVersionId::V11, at_top, None);
        // Another server may send anything.
        check(RoomVersionId::V10, |event| event["redacts"] = json!({ "not": "an ID" }), None);
        check(RoomVersionId::V11, |event| event["content"]["redacts"] = 1.into(), None);
        check(
            RoomVersionId::V10,
            |event| {
                event["type"] = "m.room.message".into();
                event["redacts"] = "$x".into();
            },
            None,
        );
    }

    #[test]
    fn times_keep_their_order_before_the_epoch_too() {
        let times = [i64::MIN, -(1 << 52), 1 - (1 << 52), -1, 0, 1, 1_700_000_000_000, (1 << 52) - 1, i64::MAX];
        let read =
            times.map(|time| stored(RoomVersionId::V11, |event| event["origin_server_ts"] = time.into()).unwrap());
        assert_eq!(read.each_ref().map(|event| event.origin_server_ts), times);
        let compared = read.each_ref().map(|event| u64::from(Event::origin_server_ts(event).0));
        assert_eq!((compared[0], compared[8]), (compared[1], compared[7]), "far times are equal");
        assert!(compared[1..8].is_sorted_by(|one, next| one < next), "{compared:?}");
    }

    #[test]
    fn json_that_is_no_event_is_refused() {
        let no_room = stored(RoomVersionId::V11, |event| {
            event.as_object_mut().unwrap().remove("room_id");
        });
        assert!(matches!(no_room, Err(PduError::NoRoom)), "{no_room:?}");
        for field in ["sender", "origin_server_ts", "type", "content", "prev_events", "auth_events", "depth"] {
            let missing = stored(RoomVersionId::V11, |event| {
                event.as_object_mut().unwrap().remove(field);
            });
            assert!(matches!(missing, Err(PduError::Malformed(_))), "{field}: {missing:?}");
        }
        let result = Pdu::from_stored(&rules(&RoomVersionId::V11).unwrap(), owned_event_id!("$e"), "not JSON");
        assert!(matches!(result, Err(PduError::Malformed(_))), "{result:?}");
    }

    #[test]
    fn debug_does_not_show_the_content() {
        let room = TestRoom::new(RoomVersionId::V11);
        let event = room.build(alice(), draft("m.room.message", None, json!({ "body": "private" }))).unwrap();
        let shown = format!("{event:?}");
        assert!(shown.contains(event.event_id.as_str()) && !shown.contains("private"), "{shown}");
    }
}
