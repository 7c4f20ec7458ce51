//! Push rules compiled for many events: paths are split, patterns compiled, and disabled rules left out ([spec]).
//!
//! Most users have the same rules, but for the words that name the user: the ID, the name, the display name. So an event
//! is evaluated in two parts. [`CompiledRules::judge`] evaluates it for everyone whose rules are of the same
//! [`ClassId`], and lists the rules that apply only to the users whom the event names. [`CompiledRules::settle`] tries
//! those few for one user. Both together give the verdict of the first rule that applies.
//!
//! Promise: evaluating an event against the rules takes time proportional to [`MAX_TEXT_BYTES`] times [`MAX_WORK`] at
//! most, is counted in steps, never recurses and yields to other tasks, whatever the sender and the owner of the rules
//! wrote. Ruma keeps and changes rulesets ([`super::changes`]). It does not evaluate them here, because it compiles each
//! pattern again and recurses for each word. Next: [`matching`].
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules

mod matching;

use ruma::{
    OwnedRoomId, OwnedUserId,
    power_levels::NotificationPowerLevelsKey,
    push::{
        AnyPushRuleRef, ConditionalPushRule, NewPushRule, PushCondition, RoomMemberCountIs, Ruleset, ScalarJsonValue,
    },
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    defaults::{CONTAINS_USER_NAME, OLD_MENTIONS},
    evaluate::Verdict,
    judgement::Personal,
};
use crate::glob::Glob;

pub(super) use self::matching::{Asked, Lower, lower_case};

/// Maximum work of all rules that a user added: bytes of keys, patterns and values, and [`WORK_OF_PART`] for each rule
/// and condition. Enough for 500 words of 32 bytes.
pub const MAX_WORK: usize = 32 * 1024;

/// Patterns are matched against this much of a text; the beginning of a longer one. Texts that people write are
/// shorter, and matching the rest of an event of 64 KiB would be useless work.
pub(super) const MAX_TEXT_BYTES: usize = 8 * 1024;

/// The work of a rule or a condition besides its text.
pub(super) const WORK_OF_PART: usize = 32;

/// A number at the end of each rule in the hash of a class. Like the numbers of [`Personal::class`], it is no length of
/// a text.
const END_OF_RULE: u64 = u64::MAX;

/// The server's rules whose conditions name the user, besides [`CONTAINS_USER_NAME`].
const INVITE_FOR_ME: &str = ".m.rule.invite_for_me";
const IS_USER_MENTION: &str = ".m.rule.is_user_mention";

/// The class of a user's rules. Rules of the same class differ only in the words that name the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClassId([u8; 16]);

/// The enabled rules of one user, in the order in which they are tried.
pub struct CompiledRules {
    rules: Vec<Rule>,
    /// The properties that patterns are matched against, each once.
    paths: Vec<Path>,
    class: ClassId,
}

struct Rule {
    /// The conditions that are the same for all users with this rule.
    shared: Vec<Condition>,
    /// The conditions that name the user.
    personal: Vec<Personal>,
    verdict: Verdict,
    old_mention: bool,
}

/// A condition that was compiled.
enum Compiled {
    Shared(Condition),
    Personal(Personal),
}

enum Condition {
    /// The property with this index in `paths` matches the pattern.
    Matches(usize, Glob),
    /// The body contains the pattern as whole words.
    BodyHas(Glob),
    MemberCount(RoomMemberCountIs),
    SenderMayNotify(NotificationPowerLevelsKey),
    Is(Path, ScalarJsonValue),
    Contains(Path, ScalarJsonValue),
    Room(OwnedRoomId),
    Sender(OwnedUserId),
}

/// The names on the way to a property, parsed from a dot-separated path ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths
#[derive(Debug, PartialEq, Eq)]
struct Path(Vec<String>);

impl Path {
    fn new(path: &str) -> Self {
        let (mut names, mut name) = (Vec::new(), String::new());
        let mut rest = path.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '.' => names.push(std::mem::take(&mut name)),
                '\\' => name.push(rest.next_if(|next| matches!(next, '.' | '\\')).unwrap_or('\\')),
                _ => name.push(c),
            }
        }
        names.push(name);
        Self(names)
    }

    fn is_body(&self) -> bool {
        self.0 == ["content", "body"]
    }

    fn find<'a>(&self, event: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(event, |value, name| value.as_object()?.get(name))
    }
}

impl CompiledRules {
    /// Compiles the enabled rules. Skips a user's rules beyond [`MAX_WORK`]: they were stored before that limit
    /// existed.
    pub fn new(ruleset: &Ruleset) -> Self {
        let mut compiled = Self { rules: Vec::new(), paths: Vec::new(), class: ClassId([0; 16]) };
        let mut class = Sha256::new();
        let mut work = 0;
        for rule in ruleset.iter().filter(|rule| rule.enabled()) {
            if !rule.is_server_default() {
                work += work_of(rule);
                if work > MAX_WORK {
                    continue;
                }
            }
            let Some(conditions) = compiled.conditions(rule) else {
                // A rule with a condition that nothing can meet never applies.
                continue;
            };
            let notify = rule.triggers_notification();
            let verdict = Verdict { notify, highlight: notify && rule.triggers_highlight() };
            let old_mention = OLD_MENTIONS.contains(&rule.rule_id());
            class.update([u8::from(verdict.notify), u8::from(verdict.highlight), u8::from(old_mention)]);
            let (mut shared, mut personal) = (Vec::new(), Vec::new());
            for (condition, source) in conditions {
                match condition {
                    Compiled::Shared(condition) => {
                        class.update((source.len() as u64).to_le_bytes());
                        class.update(source);
                        shared.push(condition);
                    }
                    Compiled::Personal(condition) => {
                        class.update(condition.class().to_le_bytes());
                        personal.push(condition);
                    }
                }
            }
            class.update(END_OF_RULE.to_le_bytes());
            // Most rules have one condition, and a list has space for four: half of the memory of a user's rules.
            shared.shrink_to_fit();
            personal.shrink_to_fit();
            compiled.rules.push(Rule { shared, personal, verdict, old_mention });
        }
        compiled.rules.shrink_to_fit();
        compiled.paths.shrink_to_fit();
        let class = class.finalize();
        compiled.class = ClassId(std::array::from_fn(|index| class[index]));
        compiled
    }

    /// The class of these rules.
    pub fn class(&self) -> ClassId {
        self.class
    }

    /// Compiles the conditions of a rule, each with the text that it is compiled from. `None` if nothing can meet one.
    fn conditions(&mut self, rule: AnyPushRuleRef<'_>) -> Option<Vec<(Compiled, String)>> {
        let one = |condition, kind: &str, text: &str| Some(vec![(condition, format!("{kind} {text}"))]);
        match rule {
            AnyPushRuleRef::Override(ConditionalPushRule { conditions, .. })
            | AnyPushRuleRef::Underride(ConditionalPushRule { conditions, .. }) => {
                let compile = |condition: &PushCondition| {
                    let source = serde_json::to_string(condition).expect("a condition is texts and numbers");
                    Some((self.condition(condition, rule)?, source))
                };
                conditions.iter().map(compile).collect()
            }
            AnyPushRuleRef::Content(content) => {
                let glob = Glob::new(&content.pattern.to_lowercase())?;
                if content.default && content.rule_id == CONTAINS_USER_NAME {
                    return one(Compiled::Personal(Personal::BodyHas(glob)), "", "");
                }
                one(Compiled::Shared(Condition::BodyHas(glob)), "body", &content.pattern)
            }
            AnyPushRuleRef::Room(room) => {
                one(Compiled::Shared(Condition::Room(room.rule_id.clone())), "room", room.rule_id.as_str())
            }
            AnyPushRuleRef::Sender(sender) => {
                one(Compiled::Shared(Condition::Sender(sender.rule_id.clone())), "sender", sender.rule_id.as_str())
            }
            _ => None,
        }
    }

    /// Compiles a condition; `None` if nothing can meet it.
    fn condition(&mut self, condition: &PushCondition, rule: AnyPushRuleRef<'_>) -> Option<Compiled> {
        // The user cannot change the conditions of these rules.
        let names_the_user = |rule_id: &str| rule.is_server_default() && rule.rule_id() == rule_id;
        #[expect(deprecated, reason = "clients still show these rules, and the spec still says what they do")]
        Some(Compiled::Shared(match condition {
            PushCondition::EventMatch(condition) => {
                let (path, glob) = (Path::new(&condition.key), Glob::new(&condition.pattern.to_lowercase())?);
                if condition.key == "state_key" && names_the_user(INVITE_FOR_ME) {
                    return Some(Compiled::Personal(Personal::StateKey(glob)));
                }
                if path.is_body() {
                    return Some(Compiled::Shared(Condition::BodyHas(glob)));
                }
                let number = self.paths.iter().position(|known| *known == path).unwrap_or_else(|| {
                    self.paths.push(path);
                    self.paths.len() - 1
                });
                Condition::Matches(number, glob)
            }
            PushCondition::ContainsDisplayName => return Some(Compiled::Personal(Personal::DisplayName)),
            PushCondition::RoomMemberCount(condition) => Condition::MemberCount(condition.is),
            PushCondition::SenderNotificationPermission(condition) => Condition::SenderMayNotify(condition.key.clone()),
            PushCondition::EventPropertyIs(condition) => {
                Condition::Is(Path::new(&condition.key), condition.value.clone())
            }
            PushCondition::EventPropertyContains(condition) => match &condition.value {
                ScalarJsonValue::String(user_id) if names_the_user(IS_USER_MENTION) => {
                    return Some(Compiled::Personal(Personal::Mentioned(user_id.clone())));
                }
                value => Condition::Contains(Path::new(&condition.key), value.clone()),
            },
            _ => return None,
        }))
    }

    /// Approximate memory that the rules take.
    pub fn bytes(&self) -> usize {
        let of_path = |path: &Path| path.0.iter().map(|name| 24 + name.len()).sum::<usize>();
        let of_value = |value: &ScalarJsonValue| value.as_str().map_or(0, str::len);
        let of_shared = |condition: &Condition| {
            size_of::<Condition>()
                + match condition {
                    Condition::Matches(_, glob) | Condition::BodyHas(glob) => glob.bytes(),
                    Condition::Is(path, value) | Condition::Contains(path, value) => of_path(path) + of_value(value),
                    Condition::Room(room_id) => room_id.as_str().len(),
                    Condition::Sender(user_id) => user_id.as_str().len(),
                    Condition::MemberCount(_) | Condition::SenderMayNotify(_) => 64,
                }
        };
        let of_personal = |condition: &Personal| {
            size_of::<Personal>()
                + match condition {
                    Personal::BodyHas(glob) | Personal::StateKey(glob) => glob.bytes(),
                    Personal::Mentioned(user_id) => user_id.len(),
                    Personal::DisplayName => 0,
                }
        };
        let of_rule = |rule: &Rule| {
            let of_shared = rule.shared.iter().map(of_shared).sum::<usize>();
            size_of::<Rule>() + of_shared + rule.personal.iter().map(of_personal).sum::<usize>()
        };
        self.rules.iter().map(of_rule).sum::<usize>() + self.paths.iter().map(of_path).sum::<usize>()
    }
}

/// The work of a rule, which counts towards [`MAX_WORK`].
pub fn work_of(rule: AnyPushRuleRef<'_>) -> usize {
    WORK_OF_PART
        + match rule {
            AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => work_of_conditions(&rule.conditions),
            AnyPushRuleRef::Content(rule) => rule.pattern.len(),
            _ => 0,
        }
}

/// The work of a new rule, which will count towards [`MAX_WORK`].
pub fn work_of_new(rule: &NewPushRule) -> usize {
    WORK_OF_PART
        + match rule {
            NewPushRule::Override(rule) | NewPushRule::Underride(rule) => work_of_conditions(&rule.conditions),
            NewPushRule::Content(rule) => rule.pattern.len(),
            _ => 0,
        }
}

fn work_of_conditions(conditions: &[PushCondition]) -> usize {
    let of_value = |value: &ScalarJsonValue| value.as_str().map_or(0, str::len);
    let text = |condition: &PushCondition| match condition {
        PushCondition::EventMatch(condition) => condition.key.len() + condition.pattern.len(),
        PushCondition::EventPropertyIs(condition) => condition.key.len() + of_value(&condition.value),
        PushCondition::EventPropertyContains(condition) => condition.key.len() + of_value(&condition.value),
        _ => 0,
    };
    conditions.iter().map(|condition| WORK_OF_PART + text(condition)).sum()
}

#[cfg(test)]
mod tests;
