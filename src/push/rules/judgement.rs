//! The verdict of a class of rules about one event, and the parts of the event that decide for the users whom it names.
//!
//! Promise: the parts are all that a [`Personal`] condition reads, so a verdict needs the event only once for all users.

use std::sync::Arc;

use serde_json::Value;

use super::{
    compiled::{Lower, WORK_OF_PART, lower_case},
    evaluate::Verdict,
};
use crate::{glob::Glob, memory::ALLOCATION_BYTES};

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
    /// Set if the event may name users. Not in a box of its own: thousands of judgements are kept, most of them with one.
    naming: Option<Naming>,
}

/// The users whom an event names, and the rules that apply to them. Holds only the parts of the event that these rules
/// read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Naming {
    /// The indexes of rules whose shared conditions are met, in their order.
    rules: Arc<[usize]>,
    /// The body in lower case.
    body: Option<Box<str>>,
    named: Option<Box<Named>>,
}

/// The parts that name users by their ID; few events have any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Named {
    mentioned: Box<[Box<str>]>,
    /// The state key in lower case.
    state_key: Option<Box<str>>,
}

impl Judgement {
    pub(super) fn new(for_others: Verdict, naming: Naming, rules: Vec<usize>) -> Self {
        let naming = (!rules.is_empty()).then(|| Naming { rules: rules.into(), ..naming });
        Self { for_others, naming }
    }

    /// Lets both judgements hold the list of the same rules once, if it is the same.
    pub(in crate::push) fn share_rules(&mut self, other: &Self) {
        if let (Some(naming), Some(other)) = (&mut self.naming, &other.naming)
            && naming.rules == other.rules
        {
            naming.rules = Arc::clone(&other.rules);
        }
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

    /// Approximate memory that it takes besides its own size and the list of its rules, which many share.
    pub(in crate::push) fn bytes(&self) -> usize {
        let of_text = |text: &Option<Box<str>>| text.as_deref().map_or(0, |text| ALLOCATION_BYTES + text.len());
        let of_named = |named: &Named| {
            let of_mentioned =
                named.mentioned.iter().map(|user_id| 2 * ALLOCATION_BYTES + user_id.len()).sum::<usize>();
            size_of::<Named>() + of_mentioned + of_text(&named.state_key) + ALLOCATION_BYTES
        };
        let of_naming = |naming: &Naming| of_text(&naming.body) + naming.named.as_deref().map_or(0, of_named);
        self.naming.as_ref().map_or(0, of_naming)
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
            Personal::Mentioned(user_id) => self
                .named
                .as_ref()
                .is_some_and(|named| named.mentioned.iter().any(|mentioned| **mentioned == **user_id)),
            Personal::StateKey(glob) => {
                let state_key = self.named.as_ref().and_then(|named| named.state_key.as_deref());
                state_key.is_some_and(|state_key| glob.matches(state_key))
            }
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
                if self.named.as_ref().is_none_or(|named| named.mentioned.is_empty()) {
                    let content = lower.event.get("content").and_then(|content| content.get("m.mentions"));
                    let listed = content.and_then(|mentions| mentions.get("user_ids")).and_then(Value::as_array);
                    let listed = listed.map(Vec::as_slice).unwrap_or_default();
                    *steps += listed.len();
                    let mentioned: Box<[Box<str>]> = listed.iter().filter_map(Value::as_str).map(Into::into).collect();
                    if mentioned.is_empty() {
                        return false;
                    }
                    self.named.get_or_insert_default().mentioned = mentioned;
                }
                true
            }
            Personal::StateKey(_) => {
                if self.named.as_ref().is_none_or(|named| named.state_key.is_none()) {
                    let Some(state_key) = lower.event.get("state_key").and_then(Value::as_str) else { return false };
                    self.named.get_or_insert_default().state_key = Some(lower_case(state_key).into());
                }
                true
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
