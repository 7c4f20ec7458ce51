//! The power levels of a room and of its replacement, as functions over plain data.

use ruma::{OwnedUserId, UserId, room_version_rules::RoomVersionRules};
use serde_json::{Map, Value};

/// The level that creators had before room version 12 put them above all levels.
const CREATOR: i64 = 100;

/// The users who stand above all levels in a room: none before room version 12.
pub(super) fn creators(
    rules: &RoomVersionRules,
    sender: &UserId,
    create_content: &Map<String, Value>,
) -> Vec<OwnedUserId> {
    if !rules.authorization.explicitly_privilege_room_creators {
        return Vec::new();
    }
    let named = create_content.get("additional_creators").and_then(Value::as_array).into_iter().flatten();
    let named = named.filter_map(|user_id| UserId::parse(user_id.as_str()?).ok());
    std::iter::once(sender.to_owned()).chain(named).collect()
}

/// The old room's levels for the new room, where other users may stand above all levels. Users who do so must not be
/// listed. Users who no longer do so are listed as high as any event needs.
pub(super) fn carried_over(
    mut levels: Map<String, Value>,
    old_creators: &[OwnedUserId],
    new_creators: &[OwnedUserId],
) -> Map<String, Value> {
    // Old room versions accept numbers in strings, newer ones do not.
    levels.values_mut().for_each(numbers);
    let needed = levels.get("events").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let highest = needed.filter_map(Value::as_i64).max().unwrap_or(CREATOR).max(CREATOR);
    let users = levels.entry("users").or_insert_with(|| Map::new().into());
    if !users.is_object() {
        *users = Map::new().into();
    }
    if let Value::Object(users) = users {
        for creator in old_creators {
            users.insert(creator.as_str().to_owned(), highest.into());
        }
        users.retain(|user_id, _| !new_creators.iter().any(|creator| creator == user_id));
    }
    levels
}

/// Levels with which ordinary members can neither send messages nor invite: the greater of 50 and `users_default + 1`,
/// as the spec wants. Higher levels stay.
pub(super) fn quiet(mut levels: Map<String, Value>) -> Map<String, Value> {
    let number = |levels: &Map<String, Value>, name: &str| {
        levels.get(name).and_then(|value| value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())).unwrap_or(0)
    };
    let least = number(&levels, "users_default").saturating_add(1).max(50);
    for name in ["events_default", "invite"] {
        if number(&levels, name) < least {
            levels.insert(name.to_owned(), least.into());
        }
    }
    levels
}

fn numbers(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Ok(number) = text.trim().parse::<i64>() {
                *value = number.into();
            }
        }
        Value::Object(object) => object.values_mut().for_each(numbers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn who_stands_above_all_levels_is_listed_where_nobody_does_and_only_there() {
        let alice: OwnedUserId = UserId::parse("@alice:sabha.test").expect("valid");
        let check = |levels: Value, (old, new): (&[OwnedUserId], &[OwnedUserId]), expected: Value| {
            let text = levels.to_string();
            assert_eq!(Value::Object(carried_over(object(levels), old, new)), expected, "{text}");
        };
        let alice = std::slice::from_ref(&alice);
        let both = json!({ "users": { "@alice:sabha.test": 100, "@bob:sabha.test": 50 } });
        check(both.clone(), (&[], &[]), both.clone());
        check(both.clone(), (&[], alice), json!({ "users": { "@bob:sabha.test": 50 } }));
        check(both, (alice, alice), json!({ "users": { "@bob:sabha.test": 50 } }));
        check(json!({}), (alice, &[]), json!({ "users": { "@alice:sabha.test": 100 } }));
        let tombstone = json!({ "m.room.tombstone": 150 });
        let expected = json!({ "events": tombstone, "users": { "@alice:sabha.test": 150 } });
        check(json!({ "events": tombstone }), (alice, &[]), expected);
        let texts = json!({ "ban": "50", "users": { "@bob:sabha.test": " 7 " }, "org.example": "cup" });
        let numbers = json!({ "ban": 50, "users": { "@bob:sabha.test": 7 }, "org.example": "cup" });
        check(texts, (&[], &[]), numbers);
    }

    #[test]
    fn a_closed_room_is_quiet_for_those_without_power() {
        let check = |levels: Value, expected: Value| {
            let text = levels.to_string();
            assert_eq!(Value::Object(quiet(object(levels))), expected, "{text}");
        };
        check(json!({}), json!({ "events_default": 50, "invite": 50 }));
        check(
            json!({ "users_default": 60, "invite": 70 }),
            json!({ "users_default": 60, "events_default": 61, "invite": 70 }),
        );
        check(json!({ "users_default": "60" }), json!({ "users_default": "60", "events_default": 61, "invite": 61 }));
        check(json!({ "events_default": 100, "invite": 50 }), json!({ "events_default": 100, "invite": 50 }));
    }
}
