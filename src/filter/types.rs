//! Event types in filters: names, and patterns in which `*` stands for any text.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

use super::ENTRY_BYTES;
use crate::{glob::Glob, room::read::relations::MAX_RELATED_BY, store::ids::lock};

/// The maximum number of patterns with a `*` in all lists of one filter. Clients use a handful (`m.call.*`); each is
/// matched against every new event type.
pub const MAX_PATTERNS: usize = 64;

/// The maximum length of a pattern: no event type is longer ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#size-limits
pub const MAX_PATTERN_BYTES: usize = 255;

/// Memory for the event types whose verdicts a filter caches. Rooms have a few dozen types; each further type costs a
/// match against up to [`MAX_PATTERNS`] patterns. A filter weighs this much from the start, because the cache that
/// weighs filters needs a constant weight.
const VERDICTS_BYTES: usize = 8 << 10;

/// Bytes that a verdict takes besides the name of its type: an entry, its share of the free entries, and the overhead
/// of an allocation.
const VERDICT_BYTES: usize = 64;

/// The reason why a filter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("a filter has at most {MAX_PATTERNS} patterns with * among its types and not_types")]
    TooManyPatterns,
    #[error("a filter has at most {MAX_RELATED_BY} related_by_rel_types and {MAX_RELATED_BY} related_by_senders")]
    TooManyRelated,
    #[error("a pattern among the types and not_types of a filter has at most {MAX_PATTERN_BYTES} bytes")]
    PatternTooLong,
}

/// The number of patterns in one filter so far.
#[derive(Debug, Default)]
pub(super) struct Budget {
    patterns: usize,
}

/// The types that are wanted, and those that are not.
#[derive(Debug, Default)]
pub(super) struct TypeFilter {
    types: Option<TypeList>,
    not_types: TypeList,
    /// Cached verdicts of the patterns on recently seen types.
    verdicts: Mutex<Verdicts>,
}

#[derive(Debug, Default)]
struct Verdicts {
    by_type: HashMap<Box<str>, bool>,
    bytes: usize,
}

impl Verdicts {
    fn remember(&mut self, event_type: &str, verdict: bool) {
        let bytes = event_type.len() + VERDICT_BYTES;
        if bytes > VERDICTS_BYTES {
            return;
        }
        if self.bytes + bytes > VERDICTS_BYTES {
            self.by_type.clear();
            self.bytes = 0;
        }
        if self.by_type.insert(event_type.into(), verdict).is_none() {
            self.bytes += bytes;
        }
    }
}

#[derive(Debug, Default)]
struct TypeList {
    names: HashSet<Box<str>>,
    patterns: Vec<Glob>,
}

impl TypeFilter {
    pub(super) fn new(
        types: Option<&[String]>,
        not_types: &[String],
        budget: &mut Budget,
    ) -> Result<Self, FilterError> {
        let types = types.map(|types| TypeList::new(types, budget)).transpose()?;
        Ok(Self { types, not_types: TypeList::new(not_types, budget)?, verdicts: Mutex::default() })
    }

    pub(super) fn accepts_all(&self) -> bool {
        self.types.is_none() && self.not_types.is_empty()
    }

    pub(super) fn accepts(&self, event_type: &str) -> bool {
        if self.accepts_all() {
            return true;
        }
        let verdict =
            || !self.not_types.names(event_type) && self.types.as_ref().is_none_or(|types| types.names(event_type));
        if !self.has_patterns() {
            return verdict();
        }
        if let Some(known) = lock(&self.verdicts).by_type.get(event_type) {
            return *known;
        }
        let verdict = verdict();
        lock(&self.verdicts).remember(event_type, verdict);
        verdict
    }

    fn has_patterns(&self) -> bool {
        self.types.iter().chain([&self.not_types]).any(|types| !types.patterns.is_empty())
    }

    pub(super) fn bytes(&self) -> usize {
        let verdicts = if self.has_patterns() { VERDICTS_BYTES } else { 0 };
        self.types.iter().chain([&self.not_types]).map(TypeList::bytes).sum::<usize>() + verdicts
    }
}

impl TypeList {
    fn new(types: &[String], budget: &mut Budget) -> Result<Self, FilterError> {
        let mut list = Self::default();
        for pattern in types {
            if !pattern.contains('*') {
                list.names.insert(pattern.as_str().into());
                continue;
            }
            budget.patterns += 1;
            if budget.patterns > MAX_PATTERNS {
                return Err(FilterError::TooManyPatterns);
            }
            if pattern.len() > MAX_PATTERN_BYTES {
                return Err(FilterError::PatternTooLong);
            }
            list.patterns.push(Glob::of_stars(pattern).ok_or(FilterError::PatternTooLong)?);
        }
        Ok(list)
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.patterns.is_empty()
    }

    /// Returns whether one of the names or patterns matches this type.
    fn names(&self, event_type: &str) -> bool {
        self.names.contains(event_type) || self.patterns.iter().any(|pattern| pattern.matches(event_type))
    }

    fn bytes(&self) -> usize {
        self.names.iter().map(|name| name.len() + ENTRY_BYTES).sum::<usize>()
            + self.patterns.iter().map(Glob::bytes).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(types: Option<&[&str]>, not_types: &[&str]) -> Result<TypeFilter, FilterError> {
        let owned = |types: &[&str]| types.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        TypeFilter::new(types.map(owned).as_deref(), &owned(not_types), &mut Budget::default())
    }

    #[test]
    fn types_are_names_and_patterns_and_exclusion_wins() {
        let check = |types: Option<&[&str]>, not_types: &[&str], event_type: &str, expected: bool| {
            let filter = compile(types, not_types).unwrap();
            for _ in 0..2 {
                // The second answer comes from the cache.
                assert_eq!(filter.accepts(event_type), expected, "{types:?} but {not_types:?}: {event_type}");
            }
        };
        check(None, &[], "m.a", true);
        check(Some(&[]), &[], "m.a", false);
        check(Some(&["m.a"]), &[], "m.a", true);
        check(Some(&["m.a"]), &[], "m.ab", false);
        check(Some(&["m.*"]), &[], "m.ab", true);
        check(Some(&["*"]), &["m.a*"], "m.ab", false);
        check(Some(&["m.ab"]), &["m.*"], "m.ab", false);
        check(None, &["m.a"], "m.ab", true);
        // A question mark stands for itself.
        check(Some(&["m.?*"]), &[], "m.ab", false);
        check(Some(&["m.?*"]), &[], "m.?b", true);
    }

    #[test]
    fn patterns_are_limited_in_number_and_length_and_names_are_not() {
        let many: Vec<String> = (0..=MAX_PATTERNS).map(|n| format!("m.{n}*")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(compile(Some(&many[1..]), &[]).is_ok());
        assert_eq!(compile(Some(&many), &[]).err(), Some(FilterError::TooManyPatterns));
        assert_eq!(compile(Some(&many[1..]), &["x*"]).err(), Some(FilterError::TooManyPatterns));
        let long = "x".repeat(MAX_PATTERN_BYTES) + "*";
        assert_eq!(compile(None, &[&long]).err(), Some(FilterError::PatternTooLong));
        let names: Vec<String> = (0..1_000).map(|n| format!("m.{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(compile(Some(&names), &[]).unwrap().accepts("m.999"));
    }

    #[test]
    fn remembered_verdicts_are_bounded_and_weighed() {
        let held = |filter: &TypeFilter| {
            let verdicts = lock(&filter.verdicts);
            verdicts.by_type.keys().map(|event_type| event_type.len() + VERDICT_BYTES).sum::<usize>()
        };
        for length in [0, 250, 100_000] {
            let filter = compile(Some(&["m.*"]), &[]).unwrap();
            let weight = filter.bytes();
            for n in 0..1_000 {
                assert!(filter.accepts(&format!("m.{n}{}", "x".repeat(length))));
                assert!(held(&filter) <= VERDICTS_BYTES, "{length}: {n}");
            }
            assert_eq!(filter.bytes(), weight, "a cache weighs it twice");
            assert!(weight >= VERDICTS_BYTES);
        }
        let names = compile(Some(&["m.a"]), &["m.b"]).unwrap();
        assert!(names.accepts("m.a"));
        assert!(names.bytes() < VERDICTS_BYTES, "names alone remember nothing");
        assert_eq!(held(&names), 0);
    }
}
