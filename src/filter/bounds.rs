//! The bounds on a filter, whatever its source.

use super::names::Names;
use crate::room::read::relations::MAX_RELATED_BY;

/// The maximum number of entries in all lists of one filter together. Clients name a few dozen event types and a few
/// rooms or users; ignored users are account data, not a filter. A program that follows a list of rooms may
/// name hundreds.
pub const MAX_ENTRIES: usize = 1_000;

/// The maximum number of patterns with a `*` in all lists of one filter. Clients use a handful (`m.call.*`); each is
/// matched against every new event type.
pub const MAX_PATTERNS: usize = 64;

/// The maximum length of a pattern: no event type is longer ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#size-limits
pub const MAX_PATTERN_BYTES: usize = 255;

/// The reason why a filter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("a filter has at most {MAX_ENTRIES} types, senders and rooms, all its lists together")]
    TooManyEntries,
    #[error("a filter has at most {MAX_PATTERNS} patterns with * among its types and not_types")]
    TooManyPatterns,
    #[error("a filter has at most {MAX_RELATED_BY} related_by_rel_types and {MAX_RELATED_BY} related_by_senders")]
    TooManyRelated,
    #[error("a pattern among the types and not_types of a filter has at most {MAX_PATTERN_BYTES} bytes")]
    PatternTooLong,
}

/// The entries and patterns in one filter so far.
#[derive(Debug, Default)]
pub(super) struct Budget {
    entries: usize,
    patterns: usize,
}

impl Budget {
    /// Compiles a list of senders or rooms.
    pub(super) fn names(&mut self, list: &[impl AsRef<str>]) -> Result<Names, FilterError> {
        self.count_entries(list.len())?;
        Ok(Names::new(list.iter().map(AsRef::as_ref).collect()))
    }

    /// Adds the entries of one more list.
    pub(super) fn count_entries(&mut self, entries: usize) -> Result<(), FilterError> {
        self.entries += entries;
        if self.entries > MAX_ENTRIES { Err(FilterError::TooManyEntries) } else { Ok(()) }
    }

    /// Adds the patterns of one more list.
    pub(super) fn count_patterns(&mut self, patterns: &[&str]) -> Result<(), FilterError> {
        self.patterns += patterns.len();
        if self.patterns > MAX_PATTERNS {
            return Err(FilterError::TooManyPatterns);
        }
        if patterns.iter().any(|pattern| pattern.len() > MAX_PATTERN_BYTES) {
            return Err(FilterError::PatternTooLong);
        }
        Ok(())
    }
}
