//! An event as it is stored and sent between servers (a PDU), parsed once into what the server asks of it.
//!
//! Promise: [`Pdu::json`] is the event byte for byte as it was signed; the other fields are read from it and never
//! differ from it. Nothing is verified here: local events come from [`crate::build`], stored ones were checked
//! before they were stored.

use std::{fmt, sync::Arc};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    events::TimelineEventType, room_version_rules::RoomVersionRules, state_res::Event,
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A signed event. Usually shared as an `Arc<Pdu>`; both read as ruma's [`Event`].
#[derive(Clone)]
pub struct Pdu {
    /// The event's ID: its reference hash, after a `$`.
    pub event_id: OwnedEventId,
    /// The room. An `m.room.create` event of room version 12 and later does not name its room: there this is
    /// derived from the event ID, and [`Event::room_id`] says `None`, as the auth rules expect.
    pub room_id: OwnedRoomId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// When the sending server says it was sent, in milliseconds since the Unix epoch.
    pub origin_server_ts: u64,
    /// The event's type exactly as on the wire. ([`Event::event_type`] may spell an unstable type as its stable
    /// alias, so it must not become part of a state key.)
    pub event_type: String,
    /// Present exactly when this is a state event.
    pub state_key: Option<String>,
    /// The content, a JSON object.
    pub content: Box<RawValue>,
    /// The events before this one; none for the create event.
    pub prev_events: Vec<OwnedEventId>,
    /// The events that authorize this one, as on the wire: from room version 12 on without the create event.
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the greatest depth of the previous events.
    pub depth: u64,
    /// What an `m.room.redaction` redacts, wherever its room version puts it. `None` for every other type.
    pub redacts: Option<OwnedEventId>,
    /// Whether the event failed the auth rules when it was received. Set by whoever loads it.
    pub rejected: bool,
    /// The canonical JSON of the whole event, as it was signed.
    pub json: Arc<str>,

    pub(crate) names_its_room: bool,
    pub(crate) ruma_type: TimelineEventType,
}

impl Pdu {
    /// Parses a stored event, not rejected. Checks its form, not its hash, signatures or ID.
    ///
    /// # Errors
    /// When `json` has not the form of an event: the database holds something that we never stored.
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
            // Other servers' events may hold anything here; one that names no event redacts nothing.
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

    /// Whether this is a state event with this type and state key.
    pub fn is_state(&self, event_type: &str, state_key: &str) -> bool {
        self.event_type == event_type && self.state_key.as_deref() == Some(state_key)
    }
}

/// The ID of the room that a create event of room version 12 or later creates. `None` for an ID that is no hash.
pub fn room_id_of_create(event_id: &EventId) -> Option<OwnedRoomId> {
    RoomId::new_v2(event_id.as_str().strip_prefix('$')?).ok()
}

/// The ID of the create event of a room of version 12 or later. `None` in rooms that are named otherwise.
pub fn create_event_id_of(rules: &RoomVersionRules, room_id: &RoomId) -> Option<OwnedEventId> {
    if !rules.authorization.room_create_event_id_as_room_id {
        return None;
    }
    EventId::new_v2_or_v3(room_id.strip_sigil()).ok()
}

/// The fields we read, borrowing where an owned copy is not needed anyway.
#[derive(Deserialize)]
struct Wire<'a> {
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    origin_server_ts: u64,
    #[serde(rename = "type")]
    event_type: String,
    state_key: Option<String>,
    #[serde(borrow)]
    content: &'a RawValue,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    depth: u64,
    // Only read on redactions: elsewhere it may hold anything.
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

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new(self.origin_server_ts).unwrap_or(UInt::MAX))
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

// By hand, so that no log ever shows what people wrote to each other.
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
