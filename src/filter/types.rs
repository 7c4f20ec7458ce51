//! Event types in filters: names, and patterns in which `*` stands for any text.

use std::{collections::HashMap, sync::Mutex};

use super::{
    bounds::{Budget, FilterError},
    names::Names,
};
use crate::{glob, store::ids::lock};

/// Memory for the event types whose verdicts a filter of many patterns caches. Rooms have a few dozen types; each
/// further type costs a match against up to [`MAX_PATTERNS`](super::MAX_PATTERNS) patterns. Such a filter weighs this
/// much from the start, because the cache that weighs filters needs a constant weight.
const VERDICTS_BYTES: usize = 8 << 10;

/// The number of patterns up to which no verdicts are cached, if the patterns are short too. Matching so few takes
/// about as long as finding a verdict.
const FEW_PATTERNS: usize = 8;

/// The length of all patterns together up to which no verdicts are cached, if they are few. Usual patterns are shorter.
const SHORT_PATTERNS_BYTES: usize = 256;

/// Bytes that a verdict takes besides the name of its type: an entry, its share of the free entries, and the overhead
/// of an allocation.
const VERDICT_BYTES: usize = 64;

/// The types that are wanted, and those that are not.
#[derive(Debug, Default)]
pub(super) struct TypeFilter {
    types: Option<TypeList>,
    not_types: TypeList,
    /// Cached verdicts of many patterns on recently seen types.
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
    names: Names,
    patterns: Names,
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
        if !self.caches_verdicts() {
            return verdict();
        }
        if let Some(known) = lock(&self.verdicts).by_type.get(event_type) {
            return *known;
        }
        let verdict = verdict();
        lock(&self.verdicts).remember(event_type, verdict);
        verdict
    }

    fn lists(&self) -> impl Iterator<Item = &TypeList> {
        self.types.iter().chain([&self.not_types])
    }

    fn caches_verdicts(&self) -> bool {
        let patterns: usize = self.lists().map(|list| list.patterns.len()).sum();
        let text_bytes: usize = self.lists().map(|list| list.patterns.text_bytes()).sum();
        patterns > FEW_PATTERNS || text_bytes > SHORT_PATTERNS_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        let verdicts = if self.caches_verdicts() { VERDICTS_BYTES } else { 0 };
        self.lists().map(TypeList::bytes).sum::<usize>() + verdicts
    }
}

impl TypeList {
    fn new(types: &[String], budget: &mut Budget) -> Result<Self, FilterError> {
        budget.count_entries(types.len())?;
        let (patterns, names): (Vec<&str>, Vec<&str>) =
            types.iter().map(String::as_str).partition(|name| name.contains('*'));
        budget.count_patterns(&patterns)?;
        Ok(Self { names: Names::new(names), patterns: Names::new(patterns) })
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.patterns.is_empty()
    }

    /// Returns whether one of the names or patterns matches this type.
    fn names(&self, event_type: &str) -> bool {
        self.names.contains(event_type) || self.patterns.iter().any(|pattern| glob::matches_stars(pattern, event_type))
    }

    fn bytes(&self) -> usize {
        self.names.bytes() + self.patterns.bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::bounds::{MAX_ENTRIES, MAX_PATTERN_BYTES, MAX_PATTERNS};

    fn compile(types: Option<&[&str]>, not_types: &[&str]) -> Result<TypeFilter, FilterError> {
        let owned = |types: &[&str]| types.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        TypeFilter::new(types.map(owned).as_deref(), &owned(not_types), &mut Budget::default())
    }

    /// More than a few patterns, which match no event type of these tests.
    const OTHERS: [&str; FEW_PATTERNS + 1] = ["0*", "1*", "2*", "3*", "4*", "5*", "6*", "7*", "8*"];

    #[test]
    fn types_are_names_and_patterns_and_exclusion_wins() {
        let check = |types: Option<&[&str]>, not_types: &[&str], event_type: &str, expected: bool| {
            let cached = compile(types, &[not_types, &OTHERS].concat()).unwrap();
            assert!(cached.caches_verdicts());
            // The second answer of `cached` comes from the cache.
            for filter in [&compile(types, not_types).unwrap(), &cached, &cached] {
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
    fn patterns_are_limited_in_number_and_length() {
        let many: Vec<String> = (0..=MAX_PATTERNS).map(|n| format!("m.{n}*")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(compile(Some(&many[1..]), &[]).is_ok());
        assert_eq!(compile(Some(&many), &[]).err(), Some(FilterError::TooManyPatterns));
        assert_eq!(compile(Some(&many[1..]), &["x*"]).err(), Some(FilterError::TooManyPatterns));
        let long = "x".repeat(MAX_PATTERN_BYTES) + "*";
        assert_eq!(compile(None, &[&long]).err(), Some(FilterError::PatternTooLong));
    }

    #[test]
    fn names_and_patterns_are_limited_together() {
        let names: Vec<String> = (0..MAX_ENTRIES).map(|n| format!("m.{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(compile(Some(&names), &[]).unwrap().accepts("m.999"));
        assert_eq!(compile(Some(&names), &["x"]).err(), Some(FilterError::TooManyEntries));
        assert_eq!(compile(Some(&names), &["x*"]).err(), Some(FilterError::TooManyEntries));
        assert_eq!(compile(Some(&["x"]), &names).err(), Some(FilterError::TooManyEntries));
    }

    #[test]
    fn remembered_verdicts_are_bounded_and_weighed() {
        let held = |filter: &TypeFilter| {
            let verdicts = lock(&filter.verdicts);
            verdicts.by_type.keys().map(|event_type| event_type.len() + VERDICT_BYTES).sum::<usize>()
        };
        for length in [0, 250, 100_000] {
            let filter = compile(Some(&["m.*"]), &OTHERS).unwrap();
            let weight = filter.bytes();
            for n in 0..1_000 {
                assert!(filter.accepts(&format!("m.{n}{}", "x".repeat(length))));
                assert!(held(&filter) <= VERDICTS_BYTES, "{length}: {n}");
            }
            assert_eq!(filter.bytes(), weight, "a cache weighs it twice");
            assert!(weight >= VERDICTS_BYTES);
        }
    }

    #[test]
    fn a_few_short_patterns_remember_no_verdicts() {
        let check = |types: &[&str], not_types: &[&str], remembers: bool| {
            let filter = compile(Some(types), not_types).unwrap();
            assert!(filter.accepts("m.a"));
            assert_eq!(lock(&filter.verdicts).by_type.len(), usize::from(remembers), "{types:?} but {not_types:?}");
            assert_eq!(filter.bytes() >= VERDICTS_BYTES, remembers, "{types:?} but {not_types:?}");
        };
        check(&["m.a"], &["m.b"], false);
        check(&["m.*"], &["x"; 50], false);
        check(&["m.*"], &OTHERS[2..], false);
        check(&["m.*"], &OTHERS[1..], true);
        check(&[&OTHERS[..], &["m.a"]].concat(), &[], true);
        let long = "x".repeat(MAX_PATTERN_BYTES - 1) + "*";
        check(&["m.a"], &[&long], false);
        check(&["m.*"], &[&long], true);
    }

    proptest! {
        #[test]
        fn a_compiled_list_answers_like_its_definition(
            types in prop::option::of(prop::collection::vec("[ab*]{0,4}", 0..6)),
            not_types in prop::collection::vec("[ab*]{0,4}", 0..3),
            events in prop::collection::vec("[ab]{0,5}", 1..12),
            cached in prop::bool::ANY,
        ) {
            let names = |list: &[String], event_type: &str| list.iter().any(|name| glob::matches(name, event_type));
            let others = OTHERS.iter().filter(|_| cached).map(|other| (*other).to_owned());
            let compiled_not_types: Vec<String> = not_types.iter().cloned().chain(others).collect();
            let filter = TypeFilter::new(types.as_deref(), &compiled_not_types, &mut Budget::default()).unwrap();
            // The second answer may come from the cache.
            for event_type in events.iter().chain(&events) {
                let wanted = types.as_ref().is_none_or(|types| names(types, event_type));
                prop_assert_eq!(filter.accepts(event_type), wanted && !names(&not_types, event_type), "{}", event_type);
            }
        }
    }
}
