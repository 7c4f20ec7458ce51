//! Globs: `*` stands for any text, `?` for any one character ([spec]).
//!
//! The one matcher for everything that users and other servers write globs in. It takes time in proportion to the text
//! times the number of stars, and patterns are capped, so no pattern can hold the server up.
//!
//! [spec]: https://spec.matrix.org/v1.19/appendices/#glob-style-matching

/// Longer patterns match nothing.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// Whether the whole of `text` matches `pattern`.
pub fn matches(pattern: &str, text: &str) -> bool {
    if pattern.len() > MAX_PATTERN_BYTES {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and how much of the text it stands for.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    p = *at + 1;
                    t = *taken;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(matches(pattern, text), expected, "{pattern:?} on {text:?}");
    }

    #[test]
    fn globs_match_as_the_spec_says() {
        check("m.room.message", "m.room.message", true);
        check("m.room.message", "m.room.messages", false);
        check("m.room.*", "m.room.message", true);
        check("m.room.*", "m.call.invite", false);
        check("*", "", true);
        check("", "", true);
        check("", "a", false);
        check("?", "é", true);
        check("?", "", false);
        check("a*b*c", "a-b-b-c", true);
        check("a*b*c", "a-b-b", false);
        check("*.example.com", "evil.example.com", true);
        check(&"*a".repeat(400), &"b".repeat(2000), false);
        check(&"*".repeat(2000), "a", false);
    }
}
