//! Push rules that follow a room to its replacement.
//!
//! The specification says nothing about this. Users who muted a room rightly expect its replacement to be muted.

use ruma::{
    RoomId,
    push::{ConditionalPushRule, NewConditionalPushRule, NewPushRule, NewSimplePushRule, PushCondition, Ruleset},
};

use super::changes::{self, RuleError};

/// Copies of the rules named after the room `old`, made for the room `new`, and whether each is enabled. Existing rules
/// for `new` are left alone.
pub(in crate::push) fn copies(ruleset: &Ruleset, old: &RoomId, new: &RoomId) -> Vec<(NewPushRule, bool)> {
    let mut copies = Vec::new();
    if let Some(rule) = ruleset.room.get(old.as_str())
        && !ruleset.room.contains(new.as_str())
    {
        let copy = NewSimplePushRule::new(new.to_owned(), rule.actions.clone());
        copies.push((NewPushRule::Room(copy), rule.enabled));
    }
    // Clients also mute rooms with override and underride rules.
    for (rules, make) in [
        (&ruleset.override_, NewPushRule::Override as fn(NewConditionalPushRule) -> NewPushRule),
        (&ruleset.underride, NewPushRule::Underride),
    ] {
        if let Some(rule) = rules.get(old.as_str())
            && !rules.contains(new.as_str())
        {
            copies.push((make(conditional(rule, old, new)), rule.enabled));
        }
    }
    copies
}

fn conditional(rule: &ConditionalPushRule, old: &RoomId, new: &RoomId) -> NewConditionalPushRule {
    let mut conditions = rule.conditions.clone();
    for condition in &mut conditions {
        if let PushCondition::EventMatch(data) = condition
            && data.key == "room_id"
            && data.pattern == old.as_str()
        {
            data.pattern = new.as_str().to_owned();
        }
    }
    NewConditionalPushRule::new(new.as_str().to_owned(), conditions, rule.actions.clone())
}

/// Adds the copied rules.
pub(in crate::push) fn add(ruleset: &mut Ruleset, copies: Vec<(NewPushRule, bool)>) -> Result<(), RuleError> {
    for (rule, enabled) in copies {
        let (kind, rule_id) = (rule.kind(), rule.rule_id().to_owned());
        changes::put(ruleset, rule, None, None)?;
        changes::set_enabled(ruleset, kind, &rule_id, enabled)?;
    }
    Ok(())
}
