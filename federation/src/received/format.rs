//! The event format of room versions: which fields an event has, of which type and size.
//!
//! Not ruma's `check_pdu_format`: that limits fields to 255 bytes in every room version, and an event to 65,535 bytes.
//! Events that other servers accept must not be lost here, or the room would have a hole.

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, IdParseError, Int, RoomId, UserId,
    canonical_json::CanonicalJsonFieldError, int, room_version_rules::RoomVersionRules,
};

use crate::{
    build::{MAX_AUTH_EVENTS, MAX_FIELD_BYTES, MAX_NESTING, MAX_PREV_EVENTS},
    pdu::{PduError, create_event_id_of},
};

/// Why an event has not the form of its room version.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("the event is not a JSON object")]
    NotAnObject,
    /// Floats, integers beyond ±(2^53 - 1), lone surrogates.
    #[error("the event is not canonical JSON")]
    NotCanonical(#[source] serde_json::Error),
    #[error("a field of the event is nested more than {MAX_NESTING} levels deep")]
    TooDeep,
    #[error("the event has {size_bytes} bytes, more than {limit_bytes}")]
    TooLarge { size_bytes: usize, limit_bytes: usize },
    #[error("`{field}` is missing")]
    Missing { field: &'static str },
    #[error("`{field}` is not {expected}")]
    WrongType { field: &'static str, expected: &'static str },
    #[error("`{field}` has {size_bytes} bytes, more than {MAX_FIELD_BYTES}")]
    TooLong { field: &'static str, size_bytes: usize },
    #[error("`{field}` has {count} entries, more than {limit}")]
    TooMany { field: &'static str, count: usize, limit: usize },
    #[error("`{field}` is not a user ID")]
    InvalidUserId { field: &'static str, source: IdParseError },
    #[error("`{field}` holds something that is not the ID of an event")]
    InvalidEventId { field: &'static str },
    #[error("`depth` is negative")]
    NegativeDepth,
    #[error("the event belongs to another room")]
    OtherRoom,
    #[error("an event that creates a room of version 12 or later must not name the room")]
    CreateNamesRoom,
    #[error("`auth_events` must not hold the create event from room version 12 on")]
    CreateInAuthEvents,
    #[error("the event cannot be redacted")]
    NotRedactable(#[source] CanonicalJsonFieldError),
    #[error("the event cannot be read")]
    Malformed(#[source] PduError),
}

/// Checks the fields. Returns whether one of them has too many bytes, but not too many characters, in a room version
/// that stores such an event as a rejected one.
pub(super) fn check(
    rules: &RoomVersionRules,
    room_id: &RoomId,
    event: &CanonicalJsonObject,
) -> Result<bool, FormatError> {
    let event_type = required(text(event, "type")?, "type")?;
    let sender = required(text(event, "sender")?, "sender")?;
    user_id("sender", sender)?;
    // `null` is no state key: others would drop such an event, and it would be no state event here.
    let state_key = text(event, "state_key")?.unwrap_or_default();
    let named_room = named_room(rules, room_id, event_type, event)?;

    let mut too_long = false;
    for (field, text) in [("type", event_type), ("sender", sender), ("state_key", state_key), ("room_id", named_room)] {
        too_long |= is_too_long(rules, field, text)?;
    }

    required(object(event, "content")?, "content")?;
    let hashes = required(object(event, "hashes")?, "hashes")?;
    required(text(hashes, "sha256")?, "sha256")?;
    required(object(event, "signatures")?, "signatures")?;
    required(integer(event, "origin_server_ts")?, "origin_server_ts")?;
    if required(integer(event, "depth")?, "depth")? < int!(0) {
        return Err(FormatError::NegativeDepth);
    }
    check_ids("prev_events", MAX_PREV_EVENTS, event)?;
    let auth_events = check_ids("auth_events", MAX_AUTH_EVENTS, event)?;
    if let Some(create) = create_event_id_of(rules, room_id)
        && auth_events.iter().any(|id| id.as_str() == Some(create.as_str()))
    {
        return Err(FormatError::CreateInAuthEvents);
    }
    Ok(too_long)
}

/// The room that the event names, which is the expected one; empty if the event must not name it.
fn named_room<'a>(
    rules: &RoomVersionRules,
    room_id: &RoomId,
    event_type: &str,
    event: &'a CanonicalJsonObject,
) -> Result<&'a str, FormatError> {
    if event_type == "m.room.create" && rules.authorization.room_create_event_id_as_room_id {
        return if event.contains_key("room_id") { Err(FormatError::CreateNamesRoom) } else { Ok("") };
    }
    let named = required(text(event, "room_id")?, "room_id")?;
    if named == room_id.as_str() { Ok(named) } else { Err(FormatError::OtherRoom) }
}

/// Servers once counted characters, so rooms have events with up to 255 of them, but more bytes. Since room version 11
/// they are dropped. Client-server API, [Size
/// limits](https://spec.matrix.org/v1.19/client-server-api/#size-limits).
fn is_too_long(rules: &RoomVersionRules, field: &'static str, text: &str) -> Result<bool, FormatError> {
    if text.len() <= MAX_FIELD_BYTES {
        return Ok(false);
    }
    // Ruma has no rule for this; it has this other one of the same room version.
    let is_since_11 = rules.authorization.use_room_create_sender;
    if is_since_11 || text.chars().count() > MAX_FIELD_BYTES {
        return Err(FormatError::TooLong { field, size_bytes: text.len() });
    }
    Ok(true)
}

/// Checks a list of event IDs. They need not be hashes: other servers take any string for the ID of an event that they do
/// not know. But no event has an ID with a NUL or with more than 255 bytes.
fn check_ids<'a>(
    field: &'static str,
    limit: usize,
    event: &'a CanonicalJsonObject,
) -> Result<&'a [CanonicalJsonValue], FormatError> {
    let ids = required(get(event, field, "a list", CanonicalJsonValue::as_array)?, field)?;
    if ids.len() > limit {
        return Err(FormatError::TooMany { field, count: ids.len(), limit });
    }
    let is_id = |id: &str| id.len() <= MAX_FIELD_BYTES && !id.contains('\0') && <&EventId>::try_from(id).is_ok();
    if ids.iter().all(|id| id.as_str().is_some_and(is_id)) {
        Ok(ids)
    } else {
        Err(FormatError::InvalidEventId { field })
    }
}

/// Parses the ID of a user, which `field` has.
pub(super) fn user_id<'a>(field: &'static str, id: &'a str) -> Result<&'a UserId, FormatError> {
    <&UserId>::try_from(id).map_err(|source| FormatError::InvalidUserId { field, source })
}

pub(super) fn required<T>(value: Option<T>, field: &'static str) -> Result<T, FormatError> {
    value.ok_or(FormatError::Missing { field })
}

pub(super) fn text<'a>(object: &'a CanonicalJsonObject, field: &'static str) -> Result<Option<&'a str>, FormatError> {
    get(object, field, "a string", CanonicalJsonValue::as_str)
}

pub(super) fn object<'a>(
    object: &'a CanonicalJsonObject,
    field: &'static str,
) -> Result<Option<&'a CanonicalJsonObject>, FormatError> {
    get(object, field, "an object", CanonicalJsonValue::as_object)
}

fn integer(object: &CanonicalJsonObject, field: &'static str) -> Result<Option<Int>, FormatError> {
    get(object, field, "an integer", CanonicalJsonValue::as_integer)
}

fn get<'a, T>(
    object: &'a CanonicalJsonObject,
    field: &'static str,
    expected: &'static str,
    read: impl FnOnce(&'a CanonicalJsonValue) -> Option<T>,
) -> Result<Option<T>, FormatError> {
    let Some(value) = object.get(field) else { return Ok(None) };
    read(value).map(Some).ok_or(FormatError::WrongType { field, expected })
}
