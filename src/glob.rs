//! Globs: `*` stands for any text, `?` for any one character ([spec]).
//!
//! All globs from users and other servers are matched here. Matching takes time proportional to the length of the text
//! times the number of stars, and the length of patterns is limited, so no pattern can slow the server down.
//! [`matches`](fn@matches) is for a pattern that is used once; [`Glob`] is a pattern that is matched against many
//! texts, or searched for in them; [`matches_stars`] knows no `?`.
//!
//! [spec]: https://spec.matrix.org/v1.19/appendices/#glob-style-matching

mod stars;

pub use self::stars::matches_stars;

/// The longest pattern in bytes. Longer ones match nothing.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// Returns whether the whole of `text` matches `pattern`.
pub fn matches(pattern: &str, text: &str) -> bool {
    if pattern.len() > MAX_PATTERN_BYTES {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // The place of the last star, and the place in the text up to which it matches.
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

/// The number of 64-bit words for the states of the longest pattern, which has one state more than characters.
const MAX_WORDS: usize = (MAX_PATTERN_BYTES + 1).div_ceil(64);

/// A pattern that is compiled for many texts.
///
/// The automaton reads a text once, from left to right, for every pattern. State `i` is reached when the first `i`
/// characters of the pattern have matched (stars not counted). All states that are reached at the same time are the
/// bits of a number. So matching takes time proportional to the length of the text times [`Self::words`], and nothing
/// recurses.
#[derive(Debug)]
pub struct Glob {
    /// The last state, which is the number of characters in the pattern (stars not counted).
    last: usize,
    /// The characters of the pattern, sorted.
    chars: Box<[char]>,
    /// The states that each of `chars` can lead to, then the states that any other character can lead to.
    by_char: Box<[u64]>,
    /// The states that stay reached after any character, because a star comes next.
    stay: Box<[u64]>,
    /// The longest piece without wildcards. A text without it cannot match, and that check is much faster.
    piece: Box<str>,
}

impl Glob {
    /// Compiles a pattern. `None` if it is longer than [`MAX_PATTERN_BYTES`]: it matches nothing.
    pub fn new(pattern: &str) -> Option<Self> {
        let piece = pattern.split(['*', '?']).max_by_key(|piece| piece.len()).unwrap_or_default();
        Self::build(pattern, piece, |c| c == '*', |c| c == '?')
    }

    /// Compiles text in which stars and question marks stand for themselves.
    pub fn literal(text: &str) -> Option<Self> {
        Self::build(text, text, |_| false, |_| false)
    }

    fn build(pattern: &str, piece: &str, star: fn(char) -> bool, any: fn(char) -> bool) -> Option<Self> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return None;
        }
        let last = pattern.chars().filter(|c| !star(*c)).count();
        let words = (last + 1).div_ceil(64);
        let mut chars: Vec<char> = pattern.chars().filter(|c| !star(*c) && !any(*c)).collect();
        chars.sort_unstable();
        chars.dedup();
        let mut by_char = vec![0; (chars.len() + 1) * words];
        let mut stay = vec![0; words];
        let mut state = 0;
        for c in pattern.chars() {
            if star(c) {
                set(&mut stay, state);
                continue;
            }
            state += 1;
            match chars.binary_search(&c) {
                Ok(index) if !any(c) => set(&mut by_char[index * words..], state),
                _ => by_char.chunks_exact_mut(words).for_each(|states| set(states, state)),
            }
        }
        Some(Self { last, chars: chars.into(), by_char: by_char.into(), stay: stay.into(), piece: piece.into() })
    }

    /// Returns whether all of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.read(text, |before, next| (before.is_none(), next.is_none()))
    }

    /// Returns whether a part of `text` matches that starts and ends at the edge of a word ([spec]). Words are made of
    /// ASCII letters, digits and underscores.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#conditions-1
    pub fn occurs_in(&self, text: &str) -> bool {
        if self.last == 0 && self.stay[0] == 0 {
            return text.is_empty();
        }
        let in_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        self.read(text, |before, next| {
            let edge = !(in_word(before) && in_word(next));
            (edge, edge)
        })
    }

    /// The number of steps for each character of a text.
    pub fn words(&self) -> usize {
        self.stay.len()
    }

    /// The approximate memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.chars.len() * 4 + (self.by_char.len() + self.stay.len()) * 8 + self.piece.len()
    }

    /// Reads the text. `place` says whether a match may start, and whether it may end, between two characters.
    fn read(&self, text: &str, place: impl Fn(Option<char>, Option<char>) -> (bool, bool)) -> bool {
        if !text.contains(&*self.piece) {
            return false;
        }
        let words = self.words();
        if words == 1 {
            return self.read_as_one_word(text, place);
        }
        let mut all = [0; MAX_WORDS];
        let reached = &mut all[..words];
        let mut before = None;
        let mut rest = text.chars();
        loop {
            let next = rest.next();
            let (start, end) = place(before, next);
            if start {
                set(reached, 0);
            }
            if end && (reached[self.last / 64] >> (self.last % 64)) & 1 == 1 {
                return true;
            }
            let Some(c) = next else { return false };
            let states = self.states_after(c);
            for word in (0..words).rev() {
                let carried = if word == 0 { 0 } else { reached[word - 1] >> 63 };
                let advanced = ((reached[word] << 1) | carried) & states[word];
                reached[word] = advanced | (reached[word] & self.stay[word]);
            }
            before = next;
        }
    }

    /// Reads the text as [`Self::read`] does, for a pattern whose states fit into one number, as most do. A character
    /// costs a few instructions.
    fn read_as_one_word(&self, text: &str, place: impl Fn(Option<char>, Option<char>) -> (bool, bool)) -> bool {
        let other = self.by_char[self.chars.len()];
        let mut ascii = [other; 128];
        for (c, states) in self.chars.iter().zip(&self.by_char) {
            if let Some(after) = ascii.get_mut(*c as usize) {
                *after = *states;
            }
        }
        let (stay, last) = (self.stay[0], 1_u64 << self.last);
        let (mut reached, mut before) = (0, None);
        let mut rest = text.chars();
        loop {
            let next = rest.next();
            let (start, end) = place(before, next);
            reached |= u64::from(start);
            if end && reached & last != 0 {
                return true;
            }
            let Some(c) = next else { return false };
            let states = ascii.get(c as usize).copied().unwrap_or_else(|| self.states_after(c)[0]);
            reached = ((reached << 1) & states) | (reached & stay);
            before = next;
        }
    }

    /// The states that a character can lead to.
    fn states_after(&self, c: char) -> &[u64] {
        let index = self.chars.binary_search(&c).unwrap_or(self.chars.len());
        &self.by_char[index * self.words()..][..self.words()]
    }
}

fn set(states: &mut [u64], state: usize) {
    states[state / 64] |= 1 << (state % 64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(matches(pattern, text), expected, "{pattern:?} on {text:?}");
        assert_eq!(
            Glob::new(pattern).is_some_and(|glob| glob.matches(text)),
            expected,
            "compiled {pattern:?} on {text:?}"
        );
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
        check("é?é", "éxé", true);
        check("é?é", "éxe", false);
        check("\u{7f}?\u{80}*", "\u{7f}é\u{80}", true);
        check("\u{7f}?\u{80}*", "\u{80}é\u{80}", false);
        // The longest patterns of one word and the shortest of two, with their states at the edge.
        for length in [62, 63, 64, 65] {
            let text: String = "abé".chars().cycle().take(length).collect();
            check(&text.replace('é', "?"), &text, true);
            check(&("a".repeat(length - 1) + "*é"), &("a".repeat(length) + "é"), true);
            check(&("a".repeat(length - 1) + "*é"), &("a".repeat(length) + "e"), false);
        }
        check("*.example.com", "evil.example.com", true);
        check(&"*a".repeat(400), &"b".repeat(2000), false);
        check(&"*".repeat(2000), "a", false);
    }

    #[test]
    fn words_are_found_at_their_edges() {
        let check = |pattern: &str, text: &str, expected: bool| {
            let found = Glob::new(pattern).unwrap().occurs_in(text);
            assert_eq!(found, expected, "{pattern:?} in {text:?}");
        };
        check("cake", "my cake is good", true);
        check("cake", "cake", true);
        check("cake", "(cake)", true);
        check("cake", "cakes, pancake, cake_", false);
        check("cake", "pancake cake", true);
        check("cake", "écaké cakeé", true);
        check("ca?e", "a case", true);
        check("ca*e", "a castle", true);
        check("ca*e", "castles are", true);
        check("ca*e", "castles", false);
        check("*", "", true);
        check("", "", true);
        check("", "a", false);
        check("?", "", false);
        check("?", "ab", false);
        check("?", "ab c", true);
        check("x y", "max y", false);
        check("x y", "x x y", true);
        check("$5", "it is $5.", true);
        check("$5", "a$5", true);
        check("b", &"ab ".repeat(30_000), false);
        check(&"?a".repeat(256), &"aa".repeat(256), true);
        check(&"?a".repeat(256), &("aa".repeat(255) + " ab"), false);
        check(&"?a".repeat(256), &"aa ".repeat(20_000), false);
        check(&("a".repeat(63) + "*b"), &("a".repeat(63) + "xxb"), true);
        check(&("a".repeat(64) + "*b"), &("a".repeat(64) + "xxb"), true);
        check(&("a".repeat(64) + "*b"), &("a".repeat(63) + "xxb"), false);
    }

    #[test]
    fn literal_text_has_no_wildcards() {
        assert!(Glob::literal("A*?").unwrap().occurs_in("hello A*?!"));
        assert!(!Glob::literal("A*").unwrap().occurs_in("hello AB"));
        assert!(Glob::literal(&"a".repeat(MAX_PATTERN_BYTES + 1)).is_none());
    }
}
