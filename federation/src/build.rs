//! Building a local user's event field by field: it is checked for size, hashed, signed, and gets its ID. This is the
//! only way to sign an event.
//!
//! Promise: the event passes every check of other servers on its form, hash and signature. [`crate::auth`] checks
//! whether the room allows it.
//!
//! This runs for every message, so only the content becomes a tree. [`wire`] assembles the bytes around it. A test
//! compares the result with ruma's own path, byte for byte, for every room version. [`template`] builds a join, a knock
//! or a leave on what another server says of its room.

use std::borrow::Cow;

use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedUserId, RoomId, UserId, canonical_json::redact_content_in_place,
    events::TimelineEventType, room_version_rules::RoomVersionRules,
};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    pdu::{Pdu, create_event_id_of, event_id_of, room_id_of_create},
    signing::ServerSigner,
};

pub mod template;
mod wire;

use self::wire::{Fields, Pieces, signatures};

/// Maximum size of a whole event in bytes. One less than the specification's 65,536, because servers that use ruma drop
/// an event of exactly that size.
///
/// Client-server API, [Size limits](https://spec.matrix.org/v1.19/client-server-api/#size-limits).
pub const MAX_EVENT_BYTES: usize = 65_535;
/// Maximum size in bytes of `type`, `state_key`, `sender`, `room_id` and the event ID.
pub const MAX_FIELD_BYTES: usize = 255;
/// Maximum number of previous events of an event.
pub const MAX_PREV_EVENTS: usize = 20;
/// Maximum number of auth events of an event.
pub const MAX_AUTH_EVENTS: usize = 10;
/// The largest integer in canonical JSON, 2^53 - 1.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// An event as a local user wants to send it.
#[derive(Clone, Debug)]
pub struct EventDraft {
    /// The type exactly as it is sent. A string, because ruma's enum replaces some unstable types.
    pub event_type: String,
    /// Present for state events only.
    pub state_key: Option<String>,
    /// The caller's JSON object, in any spelling. It is converted to canonical JSON.
    pub content: Box<RawValue>,
    /// The event that an `m.room.redaction` redacts. It is written where the room version requires it. Ignored for
    /// other types.
    pub redacts: Option<OwnedEventId>,
}

/// The place of an event in the room: all fields that the user does not choose.
#[derive(Clone, Copy, Debug)]
pub struct EventPosition<'a> {
    /// The room; `None` only for the create event of room version 12 and later, from which the room's ID is derived.
    pub room_id: Option<&'a RoomId>,
    /// A user of the signing server.
    pub sender: &'a UserId,
    /// The events before this one, at most [`MAX_PREV_EVENTS`].
    pub prev_events: &'a [OwnedEventId],
    /// The events that authorize this one, at most [`MAX_AUTH_EVENTS`]. The create event may be among them in every
    /// version. Where it is implied, it is left out of the event.
    pub auth_events: &'a [OwnedEventId],
    /// One more than the greatest depth of `prev_events`. A depth beyond the largest integer of canonical JSON becomes
    /// that integer.
    pub depth: u64,
    /// Milliseconds since the Unix epoch.
    pub origin_server_ts: i64,
}

/// Maximum depth of nested arrays and objects in the content of an event, the content included. JSON parsers have a
/// limit, serde_json's is 127, and content is parsed again inside its event, inside a redaction and inside answers.
/// Content that can be stored but not parsed there would break every answer that contains it.
pub const MAX_NESTING: usize = 100;

/// Builds the event: checks its sizes, adds the content hash and our signature, and computes its ID.
///
/// # Errors
/// When the content is not canonical JSON, something is too large, or `position` does not fit the room version or
/// the signer.
pub fn build_and_sign(
    rules: &RoomVersionRules,
    signer: &ServerSigner,
    draft: EventDraft,
    position: EventPosition<'_>,
) -> Result<Pdu, BuildError> {
    let makes_its_room = draft.event_type == "m.room.create" && rules.authorization.room_create_event_id_as_room_id;
    check_position(signer, &position, makes_its_room)?;
    check_sizes(&draft, &position)?;

    let redacts = draft.redacts.filter(|_| draft.event_type == "m.room.redaction");
    let implied_create = position.room_id.and_then(|room_id| create_event_id_of(rules, room_id));
    let auth_events: Vec<OwnedEventId> =
        position.auth_events.iter().filter(|id| Some(*id) != implied_create.as_ref()).cloned().collect();
    check_count("prev_events", position.prev_events.len(), MAX_PREV_EVENTS)?;
    check_count("auth_events", auth_events.len(), MAX_AUTH_EVENTS)?;
    let depth = position.depth.min(MAX_INTEGER);

    if is_deeper_than(MAX_NESTING, draft.content.get()) {
        return Err(BuildError::TooDeep);
    }
    let mut content: CanonicalJsonObject =
        serde_json::from_str(draft.content.get()).map_err(BuildError::NotCanonical)?;
    if rules.redaction.content_field_redacts
        && let Some(redacts) = &redacts
    {
        content.insert("redacts".to_owned(), redacts.as_str().into());
    }
    let content_json = to_raw_value(&content).expect("canonical JSON serializes");
    check_size("event", content_json.get().len(), MAX_EVENT_BYTES)?;
    redact_content_in_place(&mut content, &rules.redaction, &draft.event_type);
    let redacted_content = if content.is_empty() {
        Cow::Borrowed("{}")
    } else {
        Cow::Owned(serde_json::to_string(&content).expect("canonical JSON serializes"))
    };

    let pieces = Pieces::of(&Fields {
        room_id: position.room_id,
        sender: position.sender,
        event_type: &draft.event_type,
        state_key: draft.state_key.as_deref(),
        content: content_json.get(),
        redacted_content: &redacted_content,
        redacts: redacts.as_deref().filter(|_| !rules.redaction.content_field_redacts),
        prev_events: position.prev_events,
        auth_events: &auth_events,
        depth,
        origin_server_ts: position.origin_server_ts,
    });
    let hashes = pieces.hashes();
    let redacted = pieces.redacted(&hashes);
    let event_id = event_id_of(&redacted);
    let json = pieces.whole(&hashes, &signatures(signer, &redacted));
    check_size("event", json.len(), MAX_EVENT_BYTES)?;

    let redacts = match redacts {
        // A client may also write it into the content itself, where the room version has it there.
        None if draft.event_type == "m.room.redaction" && rules.redaction.content_field_redacts => {
            content.get("redacts").and_then(|id| id.as_str()).and_then(|id| OwnedEventId::try_from(id).ok())
        }
        redacts => redacts,
    };
    Ok(Pdu {
        room_id: match position.room_id {
            Some(room_id) => room_id.to_owned(),
            None => room_id_of_create(&event_id).expect("a base64 hash makes a valid room ID"),
        },
        event_id,
        sender: position.sender.to_owned(),
        origin_server_ts: position.origin_server_ts,
        ruma_type: TimelineEventType::from(draft.event_type.as_str()),
        event_type: draft.event_type,
        state_key: draft.state_key,
        content: content_json,
        prev_events: position.prev_events.to_vec(),
        auth_events,
        depth,
        redacts,
        rejected: false,
        names_its_room: !makes_its_room,
        json: json.into(),
    })
}

fn check_position(signer: &ServerSigner, position: &EventPosition<'_>, makes_its_room: bool) -> Result<(), BuildError> {
    if position.sender.server_name() != signer.server_name() {
        return Err(BuildError::ForeignSender { sender: position.sender.to_owned() });
    }
    match (position.room_id, makes_its_room) {
        (None, false) => Err(BuildError::MissingRoomId),
        (Some(_), true) => Err(BuildError::UnexpectedRoomId),
        _ if position.origin_server_ts.unsigned_abs() > MAX_INTEGER => {
            Err(BuildError::TimeOutOfRange { origin_server_ts: position.origin_server_ts })
        }
        _ => Ok(()),
    }
}

fn check_sizes(draft: &EventDraft, position: &EventPosition<'_>) -> Result<(), BuildError> {
    check_size("type", draft.event_type.len(), MAX_FIELD_BYTES)?;
    check_size("state_key", draft.state_key.as_ref().map_or(0, String::len), MAX_FIELD_BYTES)?;
    check_size("sender", position.sender.as_str().len(), MAX_FIELD_BYTES)?;
    check_size("room_id", position.room_id.map_or(0, |id| id.as_str().len()), MAX_FIELD_BYTES)?;
    check_size("redacts", draft.redacts.as_ref().map_or(0, |id| id.as_str().len()), MAX_FIELD_BYTES)
}

fn check_size(field: &'static str, size_bytes: usize, limit_bytes: usize) -> Result<(), BuildError> {
    if size_bytes > limit_bytes { Err(BuildError::TooLarge { field, size_bytes, limit_bytes }) } else { Ok(()) }
}

fn check_count(field: &'static str, count: usize, limit: usize) -> Result<(), BuildError> {
    if count > limit { Err(BuildError::TooMany { field, count, limit }) } else { Ok(()) }
}

/// Why an event was not built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The content is not an object, or canonical JSON cannot express it: floats, integers beyond ±(2^53 - 1), lone
    /// surrogates, too deep.
    #[error("the content is not an object of canonical JSON")]
    NotCanonical(#[source] serde_json::Error),
    /// The content is deeper than [`MAX_NESTING`].
    #[error("the content is nested more than {MAX_NESTING} levels deep")]
    TooDeep,
    /// A field is larger than the specification allows. `field` is the spec's name, or `event` for the whole event.
    #[error("{field} has {size_bytes} bytes, more than {limit_bytes}")]
    TooLarge { field: &'static str, size_bytes: usize, limit_bytes: usize },
    #[error("{field} has {count} events, more than {limit}")]
    TooMany { field: &'static str, count: usize, limit: usize },
    #[error("the time {origin_server_ts} is beyond what canonical JSON can say")]
    TimeOutOfRange { origin_server_ts: i64 },
    #[error("{sender} is not a user of this server")]
    ForeignSender { sender: OwnedUserId },
    #[error("only the event that creates a room of version 12 or later has no room ID")]
    MissingRoomId,
    #[error("the event that creates a room of version 12 or later has no room ID yet")]
    UnexpectedRoomId,
}

/// Returns whether a JSON text has more than `limit` levels of arrays and objects. Looks at the text alone, because
/// parsers have limits too.
pub(crate) fn is_deeper_than(limit: usize, json: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
pub(crate) mod tests;
