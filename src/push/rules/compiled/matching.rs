//! Matching an event against compiled rules.

use std::{borrow::Cow, ops::RangeBounds};

use ruma::{
    UInt, UserId,
    push::{PushConditionPowerLevelsCtx, ScalarJsonValue},
};
use serde_json::Value;
use tokio::task::{coop::consume_budget, yield_now};

use super::{CompiledRules, Condition, MAX_TEXT_BYTES, Path, Rule, WORK_OF_PART};
use crate::{
    glob::Glob,
    push::rules::{
        evaluate::Verdict,
        judgement::{Judgement, Naming, Personal},
    },
};

/// Steps of matching before we yield to other tasks: well below a millisecond.
const STEPS_BEFORE_OTHERS: usize = 64 * 1024;

/// The values that shared conditions need besides the event.
pub(in crate::push::rules) struct Asked<'a> {
    pub members: UInt,
    pub power_levels: Option<&'a PushConditionPowerLevelsCtx>,
}

/// The texts of one event, in lower case and cut at [`MAX_TEXT_BYTES`]. Each is computed when it is first needed.
pub(in crate::push::rules) struct Lower<'a> {
    pub(in crate::push::rules) event: &'a Value,
    body: Option<Option<Cow<'a, str>>>,
    by_path: Vec<Option<Option<Cow<'a, str>>>>,
}

/// The beginning of a text in lower case. Copies it only if it is not lower-case ASCII.
pub(in crate::push::rules) fn lower_case(text: &str) -> Cow<'_, str> {
    let end = (0..=text.len().min(MAX_TEXT_BYTES)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    let text = &text[..end];
    // Outside of ASCII a text has several forms, and checking costs as much as copying.
    let is_lower = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
    if is_lower { Cow::Borrowed(text) } else { Cow::Owned(text.to_lowercase()) }
}

impl Lower<'_> {
    pub(in crate::push::rules) fn body(&mut self) -> Option<&str> {
        let Self { event, body, .. } = self;
        body.get_or_insert_with(|| Some(lower_case(event.get("content")?.get("body")?.as_str()?))).as_deref()
    }

    fn at(&mut self, number: usize, paths: &[Path]) -> Option<&str> {
        let Self { event, by_path, .. } = self;
        by_path.resize(paths.len(), None);
        by_path[number].get_or_insert_with(|| Some(lower_case(paths[number].find(event)?.as_str()?))).as_deref()
    }
}

impl CompiledRules {
    /// Evaluates an event, `{"type": …, "sender": …, "content": …}`, for all users with rules of this class, except its
    /// sender. Adds the work to `steps`, which is always the same for the same event and rules.
    pub(in crate::push::rules) async fn judge(&self, event: &Value, asked: &Asked<'_>, steps: &mut usize) -> Judgement {
        consume_budget().await;
        let mentions = event.get("content").is_some_and(|content| content.get("m.mentions").is_some());
        let mut lower = Lower { event, body: None, by_path: Vec::new() };
        let (mut naming, mut rules) = (Naming::default(), Vec::new());
        let mut for_others = Verdict::default();
        let mut others_ran_at = *steps;
        'rules: for (index, rule) in self.rules.iter().enumerate() {
            if rule.old_mention && mentions {
                continue;
            }
            for condition in &rule.shared {
                if !self.is_met(condition, &mut lower, asked, steps) {
                    if *steps - others_ran_at > STEPS_BEFORE_OTHERS {
                        others_ran_at = *steps;
                        yield_now().await;
                    }
                    continue 'rules;
                }
            }
            if rule.personal.is_empty() {
                for_others = rule.verdict;
                break;
            }
            if rule.personal.iter().all(|condition| naming.add(condition, &mut lower, steps)) {
                rules.push(index);
            }
        }
        Judgement::new(for_others, naming, rules)
    }

    /// The verdict for the owner of these rules, from the judgement of their class. `display_name` is the user's display
    /// name in the room, in lower case. Adds the work to `steps`.
    pub(in crate::push) async fn settle(
        &self,
        judgement: &Judgement,
        display_name: Option<&Glob>,
        steps: &mut usize,
    ) -> Verdict {
        let mut others_ran_at = *steps;
        for rule in self.naming(judgement) {
            if rule.personal.iter().all(|condition| judgement.meets(condition, display_name, steps)) {
                return rule.verdict;
            }
            if *steps - others_ran_at > STEPS_BEFORE_OTHERS {
                others_ran_at = *steps;
                yield_now().await;
            }
        }
        judgement.for_others
    }

    /// As [`Self::settle`], without letting others run. `None` if that takes more than `most` steps.
    pub(in crate::push) fn settle_at_once(
        &self,
        judgement: &Judgement,
        display_name: Option<&Glob>,
        (steps, most): (&mut usize, usize),
    ) -> Option<Verdict> {
        for rule in self.naming(judgement) {
            let is_met = rule.personal.iter().all(|condition| judgement.meets(condition, display_name, steps));
            if *steps > most {
                return None;
            }
            if is_met {
                return Some(rule.verdict);
            }
        }
        Some(judgement.for_others)
    }

    /// Returns whether the verdict for a user depends on their display name.
    pub(in crate::push) fn asks_display_name(&self, judgement: &Judgement) -> bool {
        let mut conditions = self.naming(judgement).flat_map(|rule| &rule.personal);
        conditions.any(|condition| matches!(condition, Personal::DisplayName))
    }

    /// The rules that apply if the event names the user, in their order.
    fn naming(&self, judgement: &Judgement) -> impl Iterator<Item = &Rule> {
        judgement.rules().iter().filter_map(|index| self.rules.get(*index))
    }

    fn is_met(&self, condition: &Condition, lower: &mut Lower<'_>, asked: &Asked<'_>, steps: &mut usize) -> bool {
        let event = lower.event;
        let text_at = |name: &str| event.get(name).and_then(Value::as_str);
        *steps += WORK_OF_PART;
        let mut counted = |text: &str, glob: &Glob| *steps += text.len() * glob.words();
        match condition {
            Condition::Matches(number, glob) => lower.at(*number, &self.paths).is_some_and(|text| {
                counted(text, glob);
                glob.matches(text)
            }),
            Condition::BodyHas(glob) => lower.body().is_some_and(|body| {
                counted(body, glob);
                glob.occurs_in(body)
            }),
            Condition::MemberCount(is) => is.contains(&asked.members),
            Condition::SenderMayNotify(key) => {
                let sender = text_at("sender").and_then(|sender| <&UserId>::try_from(sender).ok());
                let (Some(sender), Some(levels)) = (sender, asked.power_levels) else { return false };
                levels.has_sender_notification_permission(sender, key)
            }
            Condition::Is(path, expected) => path.find(event).is_some_and(|value| is(value, expected)),
            Condition::Contains(path, expected) => path.find(event).and_then(Value::as_array).is_some_and(|values| {
                *steps += values.len();
                values.iter().any(|value| is(value, expected))
            }),
            Condition::Room(room_id) => text_at("room_id") == Some(room_id.as_str()),
            Condition::Sender(user_id) => text_at("sender") == Some(user_id.as_str()),
        }
    }
}

fn is(value: &Value, expected: &ScalarJsonValue) -> bool {
    match expected {
        ScalarJsonValue::Null => value.is_null(),
        ScalarJsonValue::Bool(expected) => value.as_bool() == Some(*expected),
        ScalarJsonValue::Integer(expected) => value.as_i64() == Some(i64::from(*expected)),
        ScalarJsonValue::String(expected) => value.as_str() == Some(expected),
    }
}
