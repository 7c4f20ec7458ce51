//! Changes of push rules, as functions over plain data ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules

use ruma::{
    UserId,
    push::{Action, InsertPushRuleError, NewPushRule, PushCondition, RemovePushRuleError, RuleKind, Ruleset},
};
use serde::Deserialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::{
    compiled::{self, MAX_WORK},
    defaults,
};
use crate::store;

/// Maximum number of rules that a user may add. Every event is evaluated against all of them.
pub const MAX_RULES: usize = 500;
/// Maximum length of a rule's ID: long enough for every room ID and user ID.
pub const MAX_RULE_ID_BYTES: usize = 255;
/// Maximum length of a pattern that is matched against events.
pub const MAX_GLOB_BYTES: usize = 512;
/// Maximum number of conditions of one rule.
pub const MAX_CONDITIONS: usize = 32;
/// Maximum size of the actions, and of the conditions, of one rule.
pub const MAX_PART_BYTES: usize = 8 * 1024;

/// The five kinds, in the order in which they are tried.
const KINDS: [&str; 5] = ["override", "content", "room", "sender", "underride"];

/// Why a rule was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("The push rule was not found.")]
    NotFound,
    #[error("The rules of the server cannot be removed or replaced.")]
    ServerDefault,
    #[error("before/after rule not found: {0}")]
    NeighbourNotFound(String),
    #[error("The new rule cannot be before and after these rules.")]
    NoPlace,
    #[error("{0}")]
    Invalid(&'static str),
    #[error("No more than {MAX_RULES} push rules can be added.")]
    TooMany,
    #[error("All push rules together must not have more than {MAX_WORK} bytes of patterns and conditions.")]
    TooLong,
}

/// The server's rules with the user's changes. New default rules of a release apply to everyone.
pub fn merged(user_id: &UserId, stored: Option<&RawValue>) -> Result<Ruleset, store::Error> {
    #[derive(Deserialize)]
    struct Stored {
        global: Ruleset,
    }
    let defaults = defaults::server_default(user_id);
    let Some(stored) = stored else {
        return Ok(defaults);
    };
    let stored: Stored =
        serde_json::from_str(stored.get()).map_err(|error| store::Error::damaged("push rules", error))?;
    let mut ruleset = stored.global;
    ruleset.update_with_server_default(defaults);
    Ok(ruleset)
}

/// The rules of all five kinds. Clients rely on empty lists being present.
pub fn global(ruleset: &Ruleset) -> Result<Value, store::Error> {
    let mut global = serde_json::to_value(ruleset).map_err(|error| store::Error::damaged("push rules", error))?;
    for kind in KINDS {
        if global.get(kind).is_none() {
            global[kind] = json!([]);
        }
    }
    Ok(global)
}

/// The content of `m.push_rules`.
pub fn content(ruleset: &Ruleset) -> Result<Box<RawValue>, store::Error> {
    to_raw_value(&json!({ "global": global(ruleset)? })).map_err(|error| store::Error::damaged("push rules", error))
}

/// Adds a rule, or replaces one. Without `after` and `before`, a new rule becomes the first of its kind and a replaced
/// one stays in its place.
pub fn put(
    ruleset: &mut Ruleset,
    rule: NewPushRule,
    after: Option<&str>,
    before: Option<&str>,
) -> Result<(), RuleError> {
    check(&rule)?;
    let kind = rule.kind();
    let rule_id = rule.rule_id().to_owned();
    let was_enabled = ruleset.get(kind.clone(), &rule_id).map(|old| old.enabled());
    if was_enabled.is_none() && ruleset.iter().filter(|rule| !rule.is_server_default()).count() >= MAX_RULES {
        return Err(RuleError::TooMany);
    }
    // A replaced rule no longer counts.
    let replaced =
        ruleset.get(kind.clone(), &rule_id).filter(|old| !old.is_server_default()).map_or(0, compiled::work_of);
    let added = ruleset.iter().filter(|rule| !rule.is_server_default()).map(compiled::work_of).sum::<usize>();
    if added - replaced + compiled::work_of_new(&rule) > MAX_WORK {
        return Err(RuleError::TooLong);
    }
    for neighbour in [after, before].into_iter().flatten() {
        if neighbour == rule_id || ruleset.get(kind.clone(), neighbour).is_none() {
            return Err(RuleError::NeighbourNotFound(neighbour.to_owned()));
        }
    }
    // Ruma counts places with the old rule still in the list, so a rule that moves is removed first.
    if was_enabled.is_some() && (after.is_some() || before.is_some()) {
        remove(ruleset, kind.clone(), &rule_id)?;
    }
    ruleset.insert(rule, after, before).map_err(|error| match error {
        InsertPushRuleError::ServerDefaultRuleId => RuleError::ServerDefault,
        InsertPushRuleError::InvalidRuleId => RuleError::Invalid("A rule's ID must not contain slashes."),
        InsertPushRuleError::RelativeToServerDefaultRule => {
            RuleError::Invalid("A rule cannot be placed next to a rule of the server.")
        }
        InsertPushRuleError::UnknownRuleId => {
            RuleError::NeighbourNotFound(before.or(after).unwrap_or_default().to_owned())
        }
        InsertPushRuleError::BeforeHigherThanAfter => RuleError::NoPlace,
        _ => RuleError::Invalid("That is not a valid push rule."),
    })?;
    if let Some(enabled) = was_enabled {
        set_enabled(ruleset, kind, &rule_id, enabled)?;
    }
    Ok(())
}

/// Removes a rule that the user added.
pub fn remove(ruleset: &mut Ruleset, kind: RuleKind, rule_id: &str) -> Result<(), RuleError> {
    ruleset.remove(kind, rule_id).map_err(|error| match error {
        RemovePushRuleError::ServerDefault => RuleError::ServerDefault,
        // Ruma has no other error for this.
        _ => RuleError::NotFound,
    })
}

/// Enables or disables a rule, also one of the server's.
pub fn set_enabled(ruleset: &mut Ruleset, kind: RuleKind, rule_id: &str, enabled: bool) -> Result<(), RuleError> {
    ruleset.set_enabled(kind, rule_id, enabled).map_err(|_| RuleError::NotFound)
}

/// Replaces the actions of a rule, also of one of the server's.
pub fn set_actions(
    ruleset: &mut Ruleset,
    kind: RuleKind,
    rule_id: &str,
    actions: Vec<Action>,
) -> Result<(), RuleError> {
    check_part(&actions)?;
    ruleset.set_actions(kind, rule_id, actions).map_err(|_| RuleError::NotFound)
}

fn check(rule: &NewPushRule) -> Result<(), RuleError> {
    let rule_id = rule.rule_id();
    if rule_id.is_empty() || rule_id.len() > MAX_RULE_ID_BYTES || rule_id.contains(char::is_control) {
        return Err(RuleError::Invalid("A rule's ID must have 1 to 255 bytes and no control characters."));
    }
    match rule {
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) => {
            if rule.conditions.len() > MAX_CONDITIONS {
                return Err(RuleError::Invalid("A rule must not have more than 32 conditions."));
            }
            for condition in &rule.conditions {
                if let PushCondition::EventMatch(condition) = condition {
                    check_glob(&condition.pattern)?;
                }
            }
            check_part(&rule.conditions)?;
            check_part(&rule.actions)
        }
        NewPushRule::Content(rule) => {
            check_glob(&rule.pattern)?;
            check_part(&rule.actions)
        }
        NewPushRule::Room(rule) => check_part(&rule.actions),
        NewPushRule::Sender(rule) => check_part(&rule.actions),
        _ => Err(RuleError::Invalid("That is not a kind of push rule.")),
    }
}

fn check_glob(pattern: &str) -> Result<(), RuleError> {
    if pattern.len() > MAX_GLOB_BYTES {
        return Err(RuleError::Invalid("A pattern must not be longer than 512 bytes."));
    }
    Ok(())
}

fn check_part(part: &impl serde::Serialize) -> Result<(), RuleError> {
    match serde_json::to_vec(part) {
        Ok(json) if json.len() <= MAX_PART_BYTES => Ok(()),
        _ => Err(RuleError::Invalid("The actions or conditions of a rule must not be larger than 8 KiB.")),
    }
}

#[cfg(test)]
mod tests;
