//! The first events of a room after its create event.

use ruma::{events::room::member::MembershipState, room_version_rules::RoomVersionRules};
use sabha_federation::EventDraft;
use serde_json::{Map, Value, json, value::to_raw_value};

use super::{CreateError, InitialState, NewRoom, Preset};
use crate::{
    account::LocalDevice,
    room::write::{
        alias::aliases_in,
        profile::{MemberProfile, member_draft},
        send::AUTHORISER,
    },
};

/// Checks initial state that has rules of its own. The endpoints that usually set it check these rules too.
pub(super) fn check_initial_state(caller: &LocalDevice, new: &NewRoom) -> Result<(), CreateError> {
    for InitialState { event_type, state_key, content } in &new.initial_state {
        match event_type.as_str() {
            // The spec's list of a new room's events has the creator's join and, for `invite`, invitations. Only this
            // server may say who authorised a join.
            "m.room.member" => {
                let is_own_join = state_key == caller.user_id().as_str()
                    && content.get("membership").is_some_and(|membership| membership == "join")
                    && content.get(AUTHORISER).is_none();
                if !is_own_join {
                    return Err(CreateError::InitialMember);
                }
            }
            "m.room.canonical_alias" => {
                let alias = new.alias.as_ref().map(|alias| alias.as_str());
                let named = aliases_in(content).map_err(CreateError::NoAliases)?;
                if let Some(other) = named.into_iter().find(|other| Some(other.as_str()) != alias) {
                    return Err(CreateError::BadAlias { alias: other });
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// All events after the create event, in the order that the spec gives.
pub(super) fn first_events(
    caller: &LocalDevice,
    profile: &MemberProfile,
    new: &NewRoom,
    rules: &RoomVersionRules,
) -> Vec<EventDraft> {
    let mut events = vec![member_draft(caller.user_id(), MembershipState::Join, profile, &[])];
    // A client may give these itself as initial state; its own then replace ours.
    let given = |event_type: &str| {
        new.initial_state.iter().any(|state| state.event_type == event_type && state.state_key.is_empty())
    };
    if !given("m.room.power_levels") {
        events.push(state("m.room.power_levels", "", &power_levels(caller, new, rules)));
    }
    if let Some(alias) = &new.alias {
        events.push(state("m.room.canonical_alias", "", &json!({ "alias": alias })));
    }
    let (join_rule, history_visibility, guest_access) = match new.preset {
        Preset::Private | Preset::TrustedPrivate => ("invite", "shared", "can_join"),
        Preset::Public => ("public", "shared", "forbidden"),
    };
    if !given("m.room.join_rules") {
        events.push(state("m.room.join_rules", "", &json!({ "join_rule": join_rule })));
    }
    if !given("m.room.history_visibility") {
        events.push(state("m.room.history_visibility", "", &json!({ "history_visibility": history_visibility })));
    }
    if !given("m.room.guest_access") {
        events.push(state("m.room.guest_access", "", &json!({ "guest_access": guest_access })));
    }
    // The bans come before the power levels of the initial state, under which the creator may lack the power to ban.
    for (user_id, content) in &new.bans {
        events.push(state("m.room.member", user_id.as_str(), content));
    }
    for initial in &new.initial_state {
        events.push(state(&initial.event_type, &initial.state_key, &initial.content));
    }
    if let Some(name) = &new.name {
        events.push(state("m.room.name", "", &json!({ "name": name })));
    }
    if let Some(topic) = &new.topic {
        let rich = json!({ "m.text": [{ "body": topic }] });
        events.push(state("m.room.topic", "", &json!({ "topic": topic, "m.topic": rich })));
    }
    for invitee in &new.invite {
        let is_direct = [("is_direct", new.is_direct.then_some(Value::from(true)))];
        events.push(member_draft(&invitee.user_id, MembershipState::Invite, &invitee.profile, &is_direct));
    }
    events
}

fn state(event_type: &str, state_key: &str, content: &Value) -> EventDraft {
    EventDraft {
        event_type: event_type.to_owned(),
        state_key: Some(state_key.to_owned()),
        content: to_raw_value(content).expect("a JSON value serializes"),
        redacts: None,
    }
}

fn power_levels(caller: &LocalDevice, new: &NewRoom, rules: &RoomVersionRules) -> Value {
    let mut users = Map::new();
    // From room version 12 on, creators stand above all levels and must not be listed.
    if !rules.authorization.explicitly_privilege_room_creators {
        users.insert(caller.user_id().as_str().to_owned(), 100.into());
        if new.preset == Preset::TrustedPrivate {
            for invitee in &new.invite {
                users.insert(invitee.user_id.as_str().to_owned(), 100.into());
            }
        }
    }
    let tombstone = if rules.authorization.explicitly_privilege_room_creators { 150 } else { 100 };
    let mut content = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": tombstone,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 0,
        "historical": 100,
    });
    if let Value::Object(content) = &mut content {
        content.extend(new.power_level_override.clone());
    }
    content
}
