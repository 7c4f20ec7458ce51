//! The default push rules: those of the specification ([spec]), and three that it has removed.
//!
//! The three are the old rules for mentions. Scripts and bridges still write a name or `@room` into the body, without
//! `m.mentions`. Without these rules nobody would be notified. Their places are those of v1.7 of the specification,
//! which other servers use too.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#predefined-rules

use ruma::{
    UserId,
    power_levels::NotificationPowerLevelsKey,
    push::{
        Action, ConditionalPushRule, ConditionalPushRuleInit, EventMatchConditionData, HighlightTweakValue,
        PatternedPushRule, PatternedPushRuleInit, PushCondition, Ruleset, SenderNotificationPermissionConditionData,
        SoundTweakValue, Tweak,
    },
};

const CONTAINS_DISPLAY_NAME: &str = ".m.rule.contains_display_name";
const ROOM_NOTIF: &str = ".m.rule.roomnotif";
pub(super) const CONTAINS_USER_NAME: &str = ".m.rule.contains_user_name";

/// The old rules for mentions. They do not apply to an event with `m.mentions` ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.7/client-server-api/#user-and-room-mentions
pub(super) const OLD_MENTIONS: [&str; 3] = [CONTAINS_DISPLAY_NAME, ROOM_NOTIF, CONTAINS_USER_NAME];

/// The rules of a user who has changed none.
pub(super) fn server_default(user_id: &UserId) -> Ruleset {
    let mut ruleset = Ruleset::server_default(user_id);
    for (rule, before) in [(contains_display_name(), ".m.rule.is_room_mention"), (room_notif(), ".m.rule.tombstone")] {
        let place = ruleset.override_.get_index_of(before).unwrap_or(ruleset.override_.len());
        ruleset.override_.shift_insert(place, rule);
    }
    ruleset.content.insert(contains_user_name(user_id));
    ruleset
}

fn contains_display_name() -> ConditionalPushRule {
    #[expect(deprecated, reason = "the condition is as old as the rule")]
    let conditions = vec![PushCondition::ContainsDisplayName];
    rule(CONTAINS_DISPLAY_NAME, conditions, loud())
}

fn room_notif() -> ConditionalPushRule {
    let sender_may = SenderNotificationPermissionConditionData::new(NotificationPowerLevelsKey::Room);
    let conditions = vec![
        PushCondition::EventMatch(EventMatchConditionData::new("content.body".to_owned(), "@room".to_owned())),
        PushCondition::SenderNotificationPermission(sender_may),
    ];
    rule(ROOM_NOTIF, conditions, vec![Action::Notify, highlight()])
}

fn contains_user_name(user_id: &UserId) -> PatternedPushRule {
    let (rule_id, pattern) = (CONTAINS_USER_NAME.to_owned(), user_id.localpart().to_owned());
    PatternedPushRuleInit { actions: loud(), default: true, enabled: true, rule_id, pattern }.into()
}

fn rule(rule_id: &str, conditions: Vec<PushCondition>, actions: Vec<Action>) -> ConditionalPushRule {
    let rule_id = rule_id.to_owned();
    ConditionalPushRuleInit { actions, default: true, enabled: true, rule_id, conditions }.into()
}

fn loud() -> Vec<Action> {
    vec![Action::Notify, Action::SetTweak(Tweak::Sound(SoundTweakValue::Default)), highlight()]
}

fn highlight() -> Action {
    Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes))
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::{Value, json};

    use super::*;

    /// The order in which Synapse lists them.
    #[test]
    fn the_mentions_of_old_are_where_other_servers_have_them() {
        let rules = serde_json::to_value(server_default(user_id!("@alice:example.org"))).expect("rules are JSON");
        let ids: Vec<&str> =
            rules["override"].as_array().expect("a list").iter().filter_map(|rule| rule["rule_id"].as_str()).collect();
        let expected = [
            ".m.rule.master",
            ".m.rule.suppress_notices",
            ".m.rule.invite_for_me",
            ".m.rule.member_event",
            ".m.rule.is_user_mention",
            CONTAINS_DISPLAY_NAME,
            ".m.rule.is_room_mention",
            ROOM_NOTIF,
            ".m.rule.tombstone",
            ".m.rule.reaction",
            ".m.rule.room.server_acl",
            ".m.rule.suppress_edits",
        ];
        assert_eq!(ids, expected);

        let sound = json!({ "set_tweak": "sound", "value": "default" });
        let check = |rule: &Value, expected: Value| assert_eq!(rule, &expected);
        check(
            &rules["override"][5],
            json!({ "rule_id": CONTAINS_DISPLAY_NAME, "default": true, "enabled": true,
                "conditions": [{ "kind": "contains_display_name" }],
                "actions": ["notify", sound, { "set_tweak": "highlight" }] }),
        );
        check(
            &rules["override"][7],
            json!({ "rule_id": ROOM_NOTIF, "default": true, "enabled": true,
                "conditions": [{ "kind": "event_match", "key": "content.body", "pattern": "@room" },
                    { "kind": "sender_notification_permission", "key": "room" }],
                "actions": ["notify", { "set_tweak": "highlight" }] }),
        );
        check(
            &rules["content"],
            json!([{ "rule_id": CONTAINS_USER_NAME, "default": true, "enabled": true, "pattern": "alice",
                "actions": ["notify", sound, { "set_tweak": "highlight" }] }]),
        );
    }
}
