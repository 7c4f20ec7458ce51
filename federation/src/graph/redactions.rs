//! The events that a redaction may redact.
//!
//! The auth rules let redactions pass, and each server decides whether one applies ([spec]). A redaction may come before the
//! event that it names. Then [`by_power`] is stored with it, and [`may_redact`] decides when the event comes.
//!
//! The caller sees to the rest. The redaction is accepted, and the two events are in the same room. To redact a
//! redaction removes its content, and what it has redacted stays redacted.
//!
//! [spec]: https://spec.matrix.org/v1.19/rooms/v12/#handling-redactions

use ruma::{
    Int, UserId,
    events::room::power_levels::UserPowerLevel,
    room_version_rules::{AuthorizationRules, RoomVersionRules},
    state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField},
};

use crate::pdu::Pdu;

/// The power level of a creator in a room without power levels, where creators are not above all levels.
const CREATOR_LEVEL: i32 = 100;

/// Returns whether the sender of a redaction has the level to redact events of all servers. `levels` and `create` are
/// the events of the state before the redaction. Levels that the auth rules could not read give no right.
pub fn by_power(rules: &RoomVersionRules, redaction: &Pdu, levels: Option<&Pdu>, create: &Pdu) -> bool {
    let rules = &rules.authorization;
    let user = level_of(rules, &redaction.sender, levels, create);
    user.zip(level_to_redact(rules, levels)).is_some_and(|(user, needed)| user >= needed)
}

/// Returns whether a redaction by `sender` applies to an event of `target_sender`: with the level for it, or to events of
/// the sender's own server.
pub fn may_redact(by_power: bool, sender: &UserId, target_sender: &UserId) -> bool {
    by_power || sender.server_name() == target_sender.server_name()
}

fn level_of(rules: &AuthorizationRules, user: &UserId, levels: Option<&Pdu>, create: &Pdu) -> Option<UserPowerLevel> {
    let is_creator = || Some(RoomCreateEvent::new(create).creators(rules).ok()?.contains(user));
    if rules.explicitly_privilege_room_creators && is_creator()? {
        return Some(UserPowerLevel::Infinite);
    }
    Some(UserPowerLevel::Int(match levels {
        Some(levels) => RoomPowerLevelsEvent::new(levels).user_power_level(user, rules).ok()?,
        None if is_creator()? => CREATOR_LEVEL.into(),
        None => RoomPowerLevelsIntField::UsersDefault.default_value(),
    }))
}

fn level_to_redact(rules: &AuthorizationRules, levels: Option<&Pdu>) -> Option<Int> {
    let field = RoomPowerLevelsIntField::Redact;
    match levels {
        Some(levels) => RoomPowerLevelsEvent::new(levels).get_as_int_or_default(field, rules).ok(),
        None => Some(field.default_value()),
    }
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, owned_event_id, user_id};
    use serde_json::{Value as JsonValue, json};

    use super::*;
    use crate::{
        rules,
        test_room::{TestRoom, alice, bob, draft},
    };

    fn mallory() -> &'static UserId {
        user_id!("@mallory:elsewhere.org")
    }

    /// A redaction by `sender`, and the power levels with this content, as another server could send them.
    fn events(rules: &RoomVersionRules, sender: &UserId, levels: Option<&JsonValue>) -> (Pdu, Option<Pdu>) {
        let read = |event_type: &str, state_key: Option<&str>, content: JsonValue| {
            let event = json!({
                "type": event_type, "state_key": state_key, "sender": sender, "content": content, "room_id": "!r:s",
                "origin_server_ts": 1, "depth": 1, "prev_events": [], "auth_events": [], "redacts": "$target",
            });
            Pdu::from_stored(rules, owned_event_id!("$e"), event.to_string()).unwrap()
        };
        let redaction = read("m.room.redaction", None, json!({ "redacts": "$target" }));
        (redaction, levels.map(|levels| read("m.room.power_levels", Some(""), levels.clone())))
    }

    /// Checks in rooms of Alice of every version from `versions`.
    #[track_caller]
    fn check(versions: std::ops::RangeInclusive<u8>, sender: &UserId, levels: Option<JsonValue>, expected: bool) {
        for room in TestRoom::of_every_version() {
            if versions.contains(&room.version.as_str().parse().unwrap()) {
                let create = &room.state[&("m.room.create".to_owned(), String::new())];
                let (redaction, levels) = events(&room.rules, sender, levels.as_ref());
                let found = by_power(&room.rules, &redaction, levels.as_ref(), create);
                assert_eq!(found, expected, "version {}: {sender}, {levels:?}", room.version);
            }
        }
    }

    #[test]
    fn a_sender_with_the_level_to_redact_may_redact_all_events() {
        // The level of the sender against the level to redact, and their defaults.
        check(6..=12, bob(), Some(json!({ "users": { bob(): 50 }, "redact": 50 })), true);
        check(6..=12, bob(), Some(json!({ "users": { bob(): 49 }, "redact": 50 })), false);
        check(6..=12, bob(), Some(json!({ "users": { bob(): 50 } })), true);
        check(6..=12, bob(), Some(json!({ "users": { bob(): 49 } })), false);
        check(6..=12, bob(), Some(json!({})), false);
        check(6..=12, bob(), Some(json!({ "redact": 0 })), true);
        check(6..=12, bob(), Some(json!({ "users_default": 50 })), true);
        check(6..=12, bob(), Some(json!({ "users_default": 50, "users": { bob(): 0 } })), false);
        check(6..=12, mallory(), Some(json!({ "users": { mallory(): 100 } })), true);
        // A room without power levels.
        check(6..=12, bob(), None, false);
        check(6..=12, alice(), None, true);
        // Creators are above all levels from version 12 on.
        let above = json!({ "redact": 1_000, "users": { alice(): 999 } });
        check(6..=11, alice(), Some(above.clone()), false);
        check(12..=12, alice(), Some(above), true);
        // The number as text, which the rules read until version 9.
        let text = json!({ "users": { bob(): "50" }, "redact": " 50 " });
        check(6..=9, bob(), Some(text.clone()), true);
        check(10..=12, bob(), Some(text), false);
    }

    #[test]
    fn a_broken_field_gives_no_right_and_the_others_count() {
        for levels in [json!({ "redact": [] }), json!({ "users": 5 }), json!({ "users": { bob(): {} } })] {
            check(6..=12, bob(), Some(levels.clone()), false);
            // The creator of an older room has no more than the levels say.
            check(6..=11, alice(), Some(levels), false);
        }
        let others = json!({ "users": { bob(): 50 }, "ban": "x", "notifications": 1, "events": [] });
        check(6..=12, bob(), Some(others), true);
    }

    #[test]
    fn an_additional_creator_may_redact_all_events_from_version_12_on() {
        for version in [RoomVersionId::V11, RoomVersionId::V12] {
            let room = TestRoom::new(version.clone());
            let create = json!({ "room_version": version, "additional_creators": [mallory()] });
            let create = draft("m.room.create", Some(""), create);
            let position = crate::EventPosition {
                room_id: Some(&*room.room_id).filter(|_| version == RoomVersionId::V11),
                sender: alice(),
                prev_events: &[],
                auth_events: &[],
                depth: 1,
                origin_server_ts: 1,
            };
            let create = crate::build_and_sign(&room.rules, &room.signer, create, position).unwrap();
            let (redaction, levels) = events(&room.rules, mallory(), Some(&json!({})));
            let may = by_power(&room.rules, &redaction, levels.as_ref(), &create);
            assert_eq!(may, version == RoomVersionId::V12);
        }
        // A create event that the rules cannot read gives no right.
        let rules = rules(&RoomVersionId::V12).unwrap();
        let create = json!({
            "type": "m.room.create", "state_key": "", "sender": alice(), "content": { "additional_creators": 5 },
            "origin_server_ts": 1, "depth": 1, "prev_events": [], "auth_events": [],
        });
        let id = format!("${}", "A".repeat(43)).try_into().unwrap();
        let create = Pdu::from_stored(&rules, id, create.to_string()).unwrap();
        assert!(!by_power(&rules, &events(&rules, alice(), None).0, None, &create));
    }

    #[test]
    fn without_the_level_only_events_of_the_own_server_are_redacted() {
        for (by_power, sender, target, expected) in [
            (false, alice(), alice(), true),
            (false, alice(), bob(), true),
            (false, alice(), mallory(), false),
            (false, mallory(), alice(), false),
            (true, mallory(), alice(), true),
        ] {
            assert_eq!(may_redact(by_power, sender, target), expected, "{sender} redacts an event of {target}");
        }
    }

    #[test]
    fn a_redaction_that_is_redacted_itself_decides_as_before() {
        for room in TestRoom::of_every_version() {
            let create = &room.state[&("m.room.create".to_owned(), String::new())];
            let (redaction, _) = events(&room.rules, alice(), None);
            let left = crate::redact(&room.rules, &redaction.json, None).unwrap();
            let left = Pdu::from_stored(&room.rules, redaction.event_id.clone(), left).unwrap();
            assert_eq!(
                by_power(&room.rules, &redaction, None, create),
                by_power(&room.rules, &left, None, create),
                "{}",
                room.version
            );
        }
    }
}
