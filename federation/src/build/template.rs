//! Memberships in rooms that other servers have: a join, a knock or a leave of a local user, built on the template of a
//! server that is in the room (`make_join`, `make_knock`, `make_leave`).
//!
//! Promise: the other server chooses five fields of what we sign, and no more: the room version, the previous events, the
//! auth events, the depth, and the user who authorises a restricted join, who must be a user of that server. Servers that
//! signed a template as it came have signed messages and power levels for strangers. [`Template::read`] takes the five
//! fields out of the answer, and [`build_from_template`] builds the event like any other, from what the local user wants.
//!
//! Server-server API, [Joining rooms](https://spec.matrix.org/v1.19/server-server-api/#joining-rooms).

use std::collections::BTreeSet;

use ruma::{
    CanonicalJsonObject, EventId, OwnedEventId, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId,
    room_version_rules::RoomVersionRules,
};
use serde_json::{
    Map, Value as JsonValue,
    value::{RawValue, to_raw_value},
};

use super::{
    BuildError, EventDraft, EventPosition, MAX_AUTH_EVENTS, MAX_FIELD_BYTES, MAX_INTEGER, MAX_PREV_EVENTS,
    build_and_sign,
};
use crate::{pdu::Pdu, room_version, signing::ServerSigner, state_log::Membership};

/// Maximum size of an answer with a template. A template is an event without signatures.
pub const MAX_TEMPLATE_BYTES: usize = 65_536;

/// The length of the ID of an event: the sigil and a hash of 32 bytes in base64.
const EVENT_ID_BYTES: usize = 44;

/// The field of a join that names the user who authorises it.
const AUTHORISER: &str = "join_authorised_via_users_server";
/// A field of invitations. It has no place in the memberships that are built here.
const THIRD_PARTY_INVITE: &str = "third_party_invite";

/// The memberships for which servers make templates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TemplateKind {
    Join,
    Knock,
    Leave,
}

impl TemplateKind {
    /// The membership of the event.
    pub fn membership(self) -> Membership {
        match self {
            Self::Join => Membership::Join,
            Self::Knock => Membership::Knock,
            Self::Leave => Membership::Leave,
        }
    }

    /// The kind whose event has this membership. `None`: servers make no templates for it.
    pub fn of(membership: Membership) -> Option<Self> {
        [Self::Join, Self::Knock, Self::Leave].into_iter().find(|kind| kind.membership() == membership)
    }

    /// The `membership` in the content of the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Knock => "knock",
            Self::Leave => "leave",
        }
    }
}

/// The membership that a local user wants in a room of other servers.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub kind: TemplateKind,
    pub room_id: &'a RoomId,
    pub user: &'a UserId,
}

/// The fields of another server's template that may come into an event of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    pub room_version: RoomVersionId,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    pub depth: u64,
    /// The user of the answering server who authorises a join in a restricted room. Only that server can sign it then.
    pub authoriser: Option<OwnedUserId>,
}

impl Template {
    /// Reads the answer of `server` to `make_join`, `make_knock` or `make_leave`. `known_version` is the version of the
    /// room, if we know it.
    ///
    /// # Errors
    /// When the template is not one for the wanted membership in a supported room version. Nothing may be signed then, and
    /// another server may have a better one.
    pub fn read(
        wanted: &Wanted<'_>,
        server: &ServerName,
        known_version: Option<&RoomVersionId>,
        answer: &RawValue,
    ) -> Result<Self, TemplateError> {
        let size_bytes = answer.get().len();
        if size_bytes > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLarge { size_bytes });
        }
        let answer: Map<String, JsonValue> = serde_json::from_str(answer.get()).map_err(TemplateError::NotAnObject)?;
        let (room_version, rules) = version(answer.get("room_version"), known_version)?;
        let event = object(answer.get("event"), "event")?;
        let content = object(event.get("content"), "content")?;

        // "The sending server MUST verify" these five.
        must_be(event, "room_id", wanted.room_id.as_str())?;
        must_be(event, "sender", wanted.user.as_str())?;
        must_be(event, "state_key", wanted.user.as_str())?;
        must_be(event, "type", "m.room.member")?;
        must_be(content, "membership", wanted.kind.as_str())?;

        let prev_events = ids(event, "prev_events", MAX_PREV_EVENTS)?;
        if prev_events.is_empty() {
            return Err(TemplateError::NoPrevEvents);
        }
        let is_restricted = wanted.kind == TemplateKind::Join && rules.authorization.restricted_join_rule;
        Ok(Self {
            room_version,
            prev_events,
            auth_events: ids(event, "auth_events", MAX_AUTH_EVENTS)?,
            depth: event
                .get("depth")
                .and_then(JsonValue::as_u64)
                .filter(|depth| *depth <= MAX_INTEGER)
                .ok_or(TemplateError::WrongType { field: "depth", expected: "a depth of an event" })?,
            authoriser: content
                .get(AUTHORISER)
                .filter(|_| is_restricted)
                .map(|user| authoriser(user, server))
                .transpose()?,
        })
    }
}

/// Builds and signs the membership that a local user wants. Of the template only the five fields are used. `content` is
/// the rest of the content, such as a name or a reason. `rules` are those of the template's room version.
///
/// # Errors
/// Like [`build_and_sign`].
pub fn build_from_template(
    rules: &RoomVersionRules,
    signer: &ServerSigner,
    wanted: &Wanted<'_>,
    content: &RawValue,
    template: &Template,
    origin_server_ts: i64,
) -> Result<Pdu, BuildError> {
    let mut content: CanonicalJsonObject = serde_json::from_str(content.get()).map_err(BuildError::NotCanonical)?;
    content.remove(THIRD_PARTY_INVITE);
    content.insert("membership".to_owned(), wanted.kind.as_str().into());
    match &template.authoriser {
        Some(user) => content.insert(AUTHORISER.to_owned(), user.as_str().into()),
        None => content.remove(AUTHORISER),
    };
    let draft = EventDraft {
        event_type: "m.room.member".to_owned(),
        state_key: Some(wanted.user.to_string()),
        content: to_raw_value(&content).map_err(BuildError::NotCanonical)?,
        redacts: None,
    };
    let position = EventPosition {
        room_id: Some(wanted.room_id),
        sender: wanted.user,
        prev_events: &template.prev_events,
        auth_events: &template.auth_events,
        depth: template.depth,
        origin_server_ts,
    };
    build_and_sign(rules, signer, draft, position)
}

/// Why an answer is not the template that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("the template has {size_bytes} bytes, more than {MAX_TEMPLATE_BYTES}")]
    TooLarge { size_bytes: usize },
    #[error("the answer is not a JSON object")]
    NotAnObject(#[source] serde_json::Error),
    /// The room has a version that we do not have. Any server would say so.
    #[error("the room has the version {version:?}, which is not supported")]
    UnsupportedVersion { version: String },
    #[error("`room_version` is {version}, but the room has the version {known}")]
    OtherVersion { version: RoomVersionId, known: RoomVersionId },
    #[error("`{field}` is missing or not {expected}")]
    WrongType { field: &'static str, expected: &'static str },
    /// The template is for something else than was asked for.
    #[error("`{field}` is not what was asked for")]
    Differs { field: &'static str },
    #[error("`{field}` has {count} events, more than {limit}")]
    TooMany { field: &'static str, count: usize, limit: usize },
    #[error("`{field}` holds something that is not the ID of an event")]
    InvalidEventId { field: &'static str },
    #[error("`{field}` names an event twice")]
    Repeated { field: &'static str },
    #[error("`prev_events` is empty, as only that of a create event may be")]
    NoPrevEvents,
    #[error("`{AUTHORISER}` is not a user of the server that answered")]
    ForeignAuthoriser,
}

fn version(
    version: Option<&JsonValue>,
    known: Option<&RoomVersionId>,
) -> Result<(RoomVersionId, RoomVersionRules), TemplateError> {
    // "If not provided, the room version is assumed to be either "1" or "2"."
    let text = match version {
        None => "1",
        Some(JsonValue::String(text)) => text,
        Some(_) => return Err(TemplateError::WrongType { field: "room_version", expected: "a string" }),
    };
    let supported = RoomVersionId::try_from(text).ok().and_then(|version| {
        let rules = room_version::rules(&version)?;
        Some((version, rules))
    });
    let Some((version, rules)) = supported else {
        return Err(TemplateError::UnsupportedVersion { version: text.chars().take(MAX_FIELD_BYTES).collect() });
    };
    match known {
        Some(known) if *known != version => Err(TemplateError::OtherVersion { version, known: known.clone() }),
        _ => Ok((version, rules)),
    }
}

fn object<'a>(value: Option<&'a JsonValue>, field: &'static str) -> Result<&'a Map<String, JsonValue>, TemplateError> {
    value.and_then(JsonValue::as_object).ok_or(TemplateError::WrongType { field, expected: "an object" })
}

fn must_be(object: &Map<String, JsonValue>, field: &'static str, expected: &str) -> Result<(), TemplateError> {
    let is_it = object.get(field).and_then(JsonValue::as_str) == Some(expected);
    if is_it { Ok(()) } else { Err(TemplateError::Differs { field }) }
}

fn ids(event: &Map<String, JsonValue>, field: &'static str, limit: usize) -> Result<Vec<OwnedEventId>, TemplateError> {
    let list = event.get(field).and_then(JsonValue::as_array);
    let list = list.ok_or(TemplateError::WrongType { field, expected: "a list" })?;
    if list.len() > limit {
        return Err(TemplateError::TooMany { field, count: list.len(), limit });
    }
    let ids: Option<Vec<OwnedEventId>> = list.iter().map(|id| event_id(id.as_str()?)).collect();
    let ids = ids.ok_or(TemplateError::InvalidEventId { field })?;
    let distinct: BTreeSet<&OwnedEventId> = ids.iter().collect();
    if distinct.len() == ids.len() { Ok(ids) } else { Err(TemplateError::Repeated { field }) }
}

/// Stricter than for events that we receive: a server in the room has these events, so it knows their hashes. Nothing
/// else that it could write here is signed.
fn event_id(id: &str) -> Option<OwnedEventId> {
    let hash = id.strip_prefix('$')?;
    let is_hash = hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if is_hash && id.len() == EVENT_ID_BYTES { EventId::parse(id).ok() } else { None }
}

fn authoriser(user: &JsonValue, server: &ServerName) -> Result<OwnedUserId, TemplateError> {
    let user = user.as_str().filter(|user| user.len() <= MAX_FIELD_BYTES).and_then(|user| UserId::parse(user).ok());
    user.filter(|user| user.server_name() == server).ok_or(TemplateError::ForeignAuthoriser)
}

#[cfg(test)]
mod tests;
