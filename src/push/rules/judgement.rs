//! The verdict of a class of rules about one event, and the parts of the event that decide for the users whom it names.
//!
//! Promise: the parts are all that a [`Personal`] condition reads, so a verdict needs the event only once for all users.

use serde_json::Value;

use super::{
    compiled::{Lower, WORK_OF_PART, lower_case},
    evaluate::Verdict,
};
use crate::glob::Glob;

/// A condition that names the user.
pub(super) enum Personal {
    /// The body contains the user's display name.
    DisplayName,
    /// The body contains this pattern, the user's localpart, as whole words.
    BodyHas(Glob),
    /// The event mentions the user with this ID.
    Mentioned(String),
    /// The state key matches this pattern, the user's ID.
    StateKey(Glob),
}

/// The verdict of a class of rules about one event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict for everyone whom the event does not name.
    pub(super) for_others: Verdict,
    /// Set if the event may name users.
    naming: Option<Box<Naming>>,
}

/// The users whom an event names, and the rules that apply to them. Holds only the parts of the event that these rules
/// read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Naming {
    /// The indexes of rules whose shared conditions are met, in their order.
    rules: Box<[usize]>,
    /// The body in lower case.
    body: Option<Box<str>>,
    mentioned: Box<[Box<str>]>,
    /// The state key in lower case.
    state_key: Option<Box<str>>,
}

impl Judgement {
    pub(super) fn new(for_others: Verdict, naming: Naming, rules: Vec<usize>) -> Self {
        let naming = (!rules.is_empty()).then(|| Box::new(Naming { rules: rules.into(), ..naming }));
        Self { for_others, naming }
    }

    /// The indexes of the rules that apply if the event names the user.
    pub(super) fn rules(&self) -> &[usize] {
        self.naming.as_ref().map_or(&[], |naming| &*naming.rules)
    }

    /// Returns whether the event meets the condition of a user.
    pub(super) fn meets(&self, condition: &Personal, display_name: Option<&Glob>, steps: &mut usize) -> bool {
        self.naming.as_ref().is_some_and(|naming| naming.meets(condition, display_name, steps))
    }

    /// Returns whether the event notifies anybody.
    pub(in crate::push) fn may_notify(&self) -> bool {
        self.for_others.notify || self.naming.is_some()
    }

    /// Approximate memory that it takes besides its own size.
    pub(in crate::push) fn bytes(&self) -> usize {
        self.naming.as_ref().map_or(0, |naming| {
            let Naming { rules, body, mentioned, state_key } = &**naming;
            let of_text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
            let of_mentioned = mentioned.iter().map(|user_id| 32 + user_id.len()).sum::<usize>();
            size_of::<Naming>() + size_of_val(&**rules) + of_text(body) + of_mentioned + of_text(state_key) + 64
        })
    }
}

impl Naming {
    fn meets(&self, condition: &Personal, display_name: Option<&Glob>, steps: &mut usize) -> bool {
        *steps += WORK_OF_PART;
        let mut finds = |glob: &Glob, text: &str| {
            *steps += text.len() * glob.words();
            glob.occurs_in(text)
        };
        match condition {
            Personal::DisplayName => {
                let (Some(name), Some(body)) = (display_name, &self.body) else { return false };
                finds(name, body)
            }
            Personal::BodyHas(glob) => self.body.as_deref().is_some_and(|body| finds(glob, body)),
            Personal::Mentioned(user_id) => self.mentioned.iter().any(|mentioned| **mentioned == **user_id),
            Personal::StateKey(glob) => self.state_key.as_deref().is_some_and(|state_key| glob.matches(state_key)),
        }
    }

    /// Adds the part of the event that the condition reads. Returns whether the condition may be met for anybody.
    pub(super) fn add(&mut self, condition: &Personal, lower: &mut Lower<'_>, steps: &mut usize) -> bool {
        match condition {
            Personal::DisplayName | Personal::BodyHas(_) => {
                if self.body.is_none() {
                    self.body = lower.body().map(Into::into);
                }
                self.body.is_some()
            }
            Personal::Mentioned(_) => {
                if self.mentioned.is_empty() {
                    let content = lower.event.get("content").and_then(|content| content.get("m.mentions"));
                    let listed = content.and_then(|mentions| mentions.get("user_ids")).and_then(Value::as_array);
                    let listed = listed.map(Vec::as_slice).unwrap_or_default();
                    *steps += listed.len();
                    self.mentioned = listed.iter().filter_map(Value::as_str).map(Into::into).collect();
                }
                !self.mentioned.is_empty()
            }
            Personal::StateKey(_) => {
                if self.state_key.is_none() {
                    let state_key = lower.event.get("state_key").and_then(Value::as_str);
                    self.state_key = state_key.map(|state_key| lower_case(state_key).into());
                }
                self.state_key.is_some()
            }
        }
    }
}

impl Personal {
    /// A number for each kind. Conditions of one kind make no difference between classes.
    pub(super) fn class(&self) -> u64 {
        u64::MAX
            - match self {
                Self::DisplayName => 1,
                Self::BodyHas(_) => 2,
                Self::Mentioned(_) => 3,
                Self::StateKey(_) => 4,
            }
    }
}
