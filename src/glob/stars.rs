//! Patterns in which only the star is a wildcard.

/// Returns whether the whole of `text` matches a pattern in which only the star is a wildcard, as in filters. Takes time
/// proportional to the lengths of both, and needs no compiled form. The caller bounds the length of the pattern.
pub fn matches_stars(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    let Some(mut rest) = rest.strip_suffix(last) else { return false };
    // The first place of each piece leaves the most text for those after it.
    pieces.filter(|piece| !piece.is_empty()).all(|piece| match rest.split_once(piece) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::glob::matches;

    #[test]
    fn stars_alone_match_as_the_spec_says() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(matches_stars(pattern, text), expected, "{pattern:?} on {text:?}");
        };
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("a", "a", true);
        check("a", "ab", false);
        check("a*", "a", true);
        check("a*a", "a", false);
        check("a*a", "aa", true);
        check("ab*bc", "abc", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*bc*b", "a-b-bc-b", true);
        check("a**é", "aé", true);
        check("m.?*", "m.ab", false);
        check("m.?*", "m.?b", true);
        check(&"*a".repeat(400), &"b".repeat(2000), false);
        check(&"*a".repeat(400), &"a".repeat(2000), true);
    }

    proptest! {
        #[test]
        fn stars_alone_match_like_globs(pattern in "[abé*]{0,8}", text in "[abé]{0,12}") {
            prop_assert_eq!(matches_stars(&pattern, &text), matches(&pattern, &text));
        }
    }
}
