//! Authorization of events: the state that authorizes an event, and ruma's auth rules with our types.
//!
//! An event from another server is checked once with [`check_auth_events`] and three times with [`check_against`]
//! (against its auth events, the state before it, and the current state). An event of ours, built on the current state,
//! is checked with [`check`]. Server-server API, [Authorization
//! rules](https://spec.matrix.org/v1.19/server-server-api/#authorization-rules).

use std::{borrow::Cow, sync::Arc};

use ruma::{
    EventId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
    state_res::{auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules},
};
use serde_json::value::RawValue;

use crate::pdu::Pdu;

/// The room does not allow the event. `Display` shows the rule that it breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct AuthRuleError {
    reason: String,
}

impl From<String> for AuthRuleError {
    fn from(reason: String) -> Self {
        Self { reason }
    }
}

/// The types and state keys of the state events for the `auth_events` of an event, as far as the room has them. From
/// room version 12 on, the create event is implied and not among them.
///
/// # Errors
/// When the content of an `m.room.member` event is so malformed that the rules would refuse it.
pub fn auth_types(
    rules: &RoomVersionRules,
    event_type: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
) -> Result<Vec<(StateEventType, String)>, AuthRuleError> {
    let event_type = TimelineEventType::from(event_type);
    Ok(auth_types_for_event(&event_type, sender, state_key, content, &rules.authorization)?)
}

/// The name of a type, which is no new text for the types that [`auth_types`] names.
pub fn type_name(event_type: &StateEventType) -> Cow<'static, str> {
    Cow::Borrowed(match event_type {
        StateEventType::RoomCreate => "m.room.create",
        StateEventType::RoomPowerLevels => "m.room.power_levels",
        StateEventType::RoomMember => "m.room.member",
        StateEventType::RoomJoinRules => "m.room.join_rules",
        StateEventType::RoomThirdPartyInvite => "m.room.third_party_invite",
        other => return Cow::Owned(other.to_string()),
    })
}

/// Returns whether the rules look at nothing of such an event but its sender, its type and the events that decide about it. So
/// the verdict about one is the verdict about another one that has the same.
pub fn is_plain(event_type: &str, state_key: Option<&str>) -> bool {
    // The rules know some types of the specification, and may know others in a later version of rooms.
    let is_known = event_type.starts_with("m.room.") && !matches!(event_type, "m.room.message" | "m.room.encrypted");
    state_key.is_none() && !is_known
}

/// Checks an event of ours, whose auth events were chosen from `state`, against both sets of rules.
///
/// `state` returns the event at a type and state key in the state before the event. `auth_events` are the event's auth
/// events, in any order. The implied create event of version 12 is found in `state`.
///
/// # Errors
/// When the event breaks a rule, or when one of its auth events is missing from `auth_events`.
pub fn check(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    auth_events: &[Arc<Pdu>],
    state: impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>>,
) -> Result<(), AuthRuleError> {
    check_auth_events(rules, pdu, |event_id| {
        let named = auth_events.iter().find(|event| event.event_id == event_id).cloned();
        named.or_else(|| state(&StateEventType::RoomCreate, "").filter(|create| create.event_id == event_id))
    })?;
    check_against(rules, pdu, state)
}

/// Applies the rules about the event itself and its auth events. Needed once per event.
///
/// `find_event` returns an event of the room by its ID: the auth events, and from version 12 on the create event.
///
/// # Errors
/// When the event must be rejected.
pub fn check_auth_events(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    find_event: impl Fn(&EventId) -> Option<Arc<Pdu>>,
) -> Result<(), AuthRuleError> {
    Ok(check_state_independent_auth_rules(&rules.authorization, pdu, find_event)?)
}

/// Applies the rules that depend on the state of the room.
///
/// # Errors
/// When `state` does not allow the event.
pub fn check_against(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    state: impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>>,
) -> Result<(), AuthRuleError> {
    Ok(check_state_dependent_auth_rules(&rules.authorization, pdu, state)?)
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;
    use crate::test_room::{TestRoom, alice, bob, draft};

    #[test]
    fn members_may_speak_and_others_may_not() {
        for mut room in TestRoom::of_every_version() {
            let hello = || draft("m.room.message", None, json!({ "body": "hello" }));
            room.send(alice(), hello()).unwrap();
            let refused = room.send(bob(), hello()).unwrap_err();
            assert_eq!(refused.to_string(), "sender's membership is not `join`", "{}", room.version);

            room.send(bob(), draft("m.room.member", Some(bob().as_str()), json!({ "membership": "join" }))).unwrap();
            room.send(bob(), hello()).unwrap();
            let refused = room.send(bob(), draft("m.room.name", Some(""), json!({ "name": "mine" }))).unwrap_err();
            assert!(refused.to_string().contains("enough power"), "{}: {refused}", room.version);
        }
    }

    #[test]
    fn a_name_is_that_of_its_type() {
        for name in ["create", "power_levels", "member", "join_rules", "third_party_invite", "topic"] {
            let name = format!("m.room.{name}");
            assert_eq!(type_name(&StateEventType::from(name.as_str())), name);
        }
    }

    #[test]
    fn an_event_is_plain_unless_the_rules_may_know_its_type_or_it_is_state() {
        for event_type in ["m.room.message", "m.room.encrypted", "m.reaction", "m.call.invite", "org.example.other"] {
            assert!(is_plain(event_type, None), "{event_type}");
            assert!(!is_plain(event_type, Some("")), "{event_type}");
        }
        for event_type in ["m.room.redaction", "m.room.aliases", "m.room.member", "m.room.of_a_later_version"] {
            assert!(!is_plain(event_type, None), "{event_type}");
        }
    }

    #[test]
    fn an_event_whose_auth_events_are_not_given_is_refused() {
        for room in TestRoom::of_every_version() {
            let event = room.build(alice(), draft("m.room.message", None, json!({}))).unwrap();
            let state = |event_type: &StateEventType, state_key: &str| room.state_at(event_type, state_key);
            let refused = check(&room.rules, &event, &[], state).unwrap_err();
            assert!(refused.to_string().starts_with("failed to find auth event"), "{refused}");
        }
    }

    #[test]
    fn an_event_in_a_room_without_its_create_event_is_refused() {
        for mut room in TestRoom::of_every_version() {
            let event = room.build(alice(), draft("m.room.message", None, json!({}))).unwrap();
            room.check(&event).unwrap();
            room.state.remove(&("m.room.create".to_owned(), String::new()));
            let refused = room.check(&event).unwrap_err();
            assert!(refused.to_string().starts_with("failed to find"), "{}: {refused}", room.version);
        }
    }

    #[test]
    fn an_event_that_names_a_rejected_auth_event_is_refused() {
        for mut room in TestRoom::of_every_version() {
            let event = room.build(alice(), draft("m.room.message", None, json!({}))).unwrap();
            for state in room.state.values_mut().filter(|state| event.auth_events.contains(&state.event_id)) {
                Arc::make_mut(state).rejected = true;
            }
            assert!(room.check(&event).unwrap_err().to_string().starts_with("rejected auth event"));
        }
    }

    #[test]
    fn the_create_event_is_an_auth_event_until_version_12() {
        let content = to_raw_value(&json!({ "membership": "join" })).unwrap();
        for room in TestRoom::of_every_version() {
            let types = auth_types(&room.rules, "m.room.member", bob(), Some(bob().as_str()), &content).unwrap();
            let named = |event_type| types.iter().any(|(other, _)| *other == event_type);
            assert!(named(StateEventType::RoomJoinRules) && named(StateEventType::RoomPowerLevels));
            let implied = room.rules.authorization.room_create_event_id_as_room_id;
            assert_eq!(!named(StateEventType::RoomCreate), implied, "{}", room.version);
            assert!(auth_types(&room.rules, "m.room.member", bob(), None, &content).is_err());
        }
    }
}
