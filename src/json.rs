//! The check of JSON that we pass on to others.
//!
//! Most data that clients store here is opaque to the server: a message to a device, account data, a field of a
//! profile, a key. We later send it inside one large answer. A client that cannot parse a part of an answer loses all
//! of it, and a retry does not help. So JSON that some parser in use refuses is refused here, when it comes in:
//! [`crate::http`] checks every body of a client.
//!
//! Promise: one pass, without recursion, in time that grows with the text; memory only for the keys of open objects.
//!
//! This pass also counts the [`Parts`] of the text.

mod parts;

use std::borrow::Cow;

pub use self::parts::Parts;

/// The greatest depth of nested arrays and objects in a request. The strictest parsers stop at 64 (.NET), others at
/// 128, and our answers put up to ten levels around the JSON that they pass on.
pub const MAX_DEPTH: usize = 50;

/// The greatest length of a number. Any double can be written in 25 bytes; some parsers refuse 1,000 digits and more.
pub const MAX_NUMBER_BYTES: usize = 64;

/// The greatest length of an object's key. Identifiers have 255 bytes at most; some parsers refuse 50,000.
pub const MAX_KEY_BYTES: usize = 4096;

/// The reasons why JSON cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("it is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("it has a number that a double cannot hold")]
    NumberOutOfRange,
    #[error("it has a number of more than {MAX_NUMBER_BYTES} characters")]
    NumberTooLong,
    #[error("it has a key of more than {MAX_KEY_BYTES} bytes")]
    KeyTooLong,
    #[error("an object has a key twice")]
    DuplicateKey,
    #[error("a text has half of a surrogate pair")]
    LoneSurrogate,
}

/// Checks that every parser in use can read the text. Only a parser can say whether it is JSON at all; text that is not
/// JSON may pass here. Returns the parts of the whole text with the first [`Unfit`] that is found. Of text that is not
/// JSON, these are the parts of its beginning, at least as far as a parser reads it.
pub fn check(json: &str) -> (Parts, Result<(), Unfit>) {
    let mut parts = Parts::default();
    let mut walk = Walk { json, at: 0 };
    let fits = walk.check(&mut parts);
    if fits.is_err() {
        // A parser may read on, and makes something of all this before it fails.
        walk.count_rest(&mut parts);
    }
    (parts, fits)
}

/// Refuses duplicate keys. Sorting keeps the cost near the total length of the keys, however many there are.
fn check_distinct(keys: &mut [Cow<'_, str>]) -> Result<(), Unfit> {
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) { Err(Unfit::DuplicateKey) } else { Ok(()) }
}

struct Walk<'a> {
    json: &'a str,
    at: usize,
}

/// A string with its quotes.
struct Quoted<'a> {
    text: &'a str,
    has_escapes: bool,
}

impl<'a> Quoted<'a> {
    /// The text as a decoded key, because a key can be spelled in several ways.
    fn key(&self) -> Result<Cow<'a, str>, Unfit> {
        if self.text.len() - 2 > MAX_KEY_BYTES {
            return Err(Unfit::KeyTooLong);
        }
        let decoded = self.has_escapes.then(|| serde_json::from_str(self.text).ok()).flatten();
        // Text that cannot be decoded is not JSON; the parser will refuse it.
        Ok(decoded.map_or(Cow::Borrowed(&self.text[1..self.text.len() - 1]), Cow::Owned))
    }
}

impl<'a> Walk<'a> {
    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    /// Checks the text, and counts its parts on the way.
    ///
    /// # Errors
    /// [`Unfit`], at the first place that is found. What lies before it is counted.
    fn check(&mut self, parts: &mut Parts) -> Result<(), Unfit> {
        let mut keys: Vec<Cow<'_, str>> = Vec::new();
        // The number of keys before each open object; `None` for an array.
        let mut open = [None::<usize>; MAX_DEPTH];
        let mut depth = 0;
        let mut expects_key = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' | b'[' => {
                    let is_object = byte == b'{';
                    *open.get_mut(depth).ok_or(Unfit::TooDeep)? = is_object.then_some(keys.len());
                    depth += 1;
                    parts.entries += 1;
                    expects_key = is_object;
                    self.at += 1;
                }
                b'}' | b']' => {
                    let Some(outer) = depth.checked_sub(1) else { return Ok(()) };
                    depth = outer;
                    if let Some(first) = open[depth] {
                        check_distinct(&mut keys[first..])?;
                        keys.truncate(first);
                    }
                    expects_key = false;
                    self.at += 1;
                }
                b',' => {
                    parts.entries += 1;
                    expects_key = depth.checked_sub(1).is_some_and(|top| open[top].is_some());
                    self.at += 1;
                }
                b'"' => {
                    let is_key = std::mem::take(&mut expects_key);
                    let first = depth.checked_sub(1).and_then(|top| open[top]);
                    parts.objects += usize::from(is_key && first == Some(keys.len()));
                    let Some(text) = self.string()? else { return Ok(()) };
                    if is_key {
                        keys.push(text.key()?);
                    }
                }
                b'-' | b'0'..=b'9' => self.number()?,
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    /// Counts the parts from here on, and checks nothing.
    fn count_rest(&self, parts: &mut Parts) {
        let mut bytes = self.json.as_bytes()[self.at..].iter();
        let mut in_string = false;
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => in_string = !in_string,
                b'\\' if in_string => {
                    bytes.next();
                }
                b'{' | b'[' | b',' if !in_string => {
                    parts.entries += 1;
                    parts.objects += usize::from(*byte == b'{');
                }
                _ => {}
            }
        }
    }

    /// Skips a string; `None` if it does not end.
    fn string(&mut self) -> Result<Option<Quoted<'a>>, Unfit> {
        let bytes = self.json.as_bytes();
        let start = self.at;
        let mut has_escapes = false;
        let mut at = start + 1;
        loop {
            match bytes.get(at) {
                None => return Ok(None),
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    at += match self.unit(at) {
                        // A high surrogate and a low one are one character; neither is one alone.
                        Some(0xd800..=0xdbff) => match self.unit(at + 6) {
                            Some(0xdc00..=0xdfff) => 12,
                            _ => return Err(Unfit::LoneSurrogate),
                        },
                        Some(0xdc00..=0xdfff) => return Err(Unfit::LoneSurrogate),
                        Some(_) => 6,
                        None => 2,
                    };
                }
                Some(_) => at += 1,
            }
        }
        self.at = at + 1;
        // The quotes are ASCII, so both ends are character boundaries.
        Ok(self.json.get(start..=at).map(|text| Quoted { text, has_escapes }))
    }

    /// The UTF-16 unit that is written as `\uXXXX` here.
    fn unit(&self, at: usize) -> Option<u16> {
        let digits = self.json.get(at..at + 6)?.strip_prefix("\\u")?;
        if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) { u16::from_str_radix(digits, 16).ok() } else { None }
    }

    /// Skips a number.
    fn number(&mut self) -> Result<(), Unfit> {
        let rest = &self.json[self.at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = rest.bytes().take_while(is_part).count();
        self.at += length;
        if length > MAX_NUMBER_BYTES {
            return Err(Unfit::NumberTooLong);
        }
        // A number with 300 digits is too long already, so only an exponent can make one too large.
        let text = &rest[..length];
        let Some((mantissa, _)) = text.split_once(['e', 'E']) else { return Ok(()) };
        let Ok(value) = text.parse::<f64>() else { return Ok(()) };
        let is_zero = !mantissa.bytes().any(|digit| matches!(digit, b'1'..=b'9'));
        if value.is_finite() && (value != 0.0 || is_zero) { Ok(()) } else { Err(Unfit::NumberOutOfRange) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_parser_reads_passes_and_the_rest_does_not() {
        let check = |json: &str, expected: Result<(), Unfit>| assert_eq!(super::check(json).1, expected, "{json}");
        check("{}", Ok(()));
        check(r#"{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}"#, Ok(()));
        check(r#"[1.5,-0,1e10,1E-300,0e999999,123456789012345678901234567890]"#, Ok(()));
        check(r#"{"a":"{\"a\":1,\"a\":1e999}","b":"\ud83d\ude00\u0000","c":"\\ud800"}"#, Ok(()));
        check("1e999999", Err(Unfit::NumberOutOfRange));
        check(r#"{"a":[-1.5E400]}"#, Err(Unfit::NumberOutOfRange));
        check("[1e-999999]", Err(Unfit::NumberOutOfRange));
        check(&format!("[{}]", "1".repeat(MAX_NUMBER_BYTES + 1)), Err(Unfit::NumberTooLong));
        check(r#"{"a":1,"a":2}"#, Err(Unfit::DuplicateKey));
        check(r#"{"a":1,"b":{},"\u0061":2}"#, Err(Unfit::DuplicateKey));
        check(r#"[{"x":{"b":[],"b":[]}}]"#, Err(Unfit::DuplicateKey));
        check(r#"{"a":"\ud800"}"#, Err(Unfit::LoneSurrogate));
        check(r#"{"a":"\udc00\ud800"}"#, Err(Unfit::LoneSurrogate));
        check(r#"{"\ud800x":1}"#, Err(Unfit::LoneSurrogate));
        check(r#"["\uD83D\uD83D"]"#, Err(Unfit::LoneSurrogate));
        let key = |length: usize| format!("{{\"{}\":1}}", "k".repeat(length));
        check(&key(MAX_KEY_BYTES), Ok(()));
        check(&key(MAX_KEY_BYTES + 1), Err(Unfit::KeyTooLong));
    }

    #[test]
    fn depth_is_bounded_for_arrays_and_objects() {
        let arrays = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let objects = |depth: usize| r#"{"a":"#.repeat(depth) + "1" + &"}".repeat(depth);
        let check = |json: &str| super::check(json).1;
        check(&arrays(MAX_DEPTH)).expect("it can be read");
        check(&objects(MAX_DEPTH)).expect("it can be read");
        assert_eq!(check(&arrays(MAX_DEPTH + 1)), Err(Unfit::TooDeep));
        assert_eq!(check(&objects(MAX_DEPTH + 1)), Err(Unfit::TooDeep));
        assert_eq!(check(&arrays(30_000)), Err(Unfit::TooDeep));
    }

    /// Text that is not JSON passes and must not stop the server; a parser refuses it.
    #[test]
    fn what_is_no_json_is_left_to_the_parser() {
        for text in
            ["", "}", "]]]", "\"", "\"\\", "\"\\u12", "{\"a", "-", "1e", "{\"\\x\":1}", "\u{e4}\"\u{e4}\\\u{e4}"]
        {
            assert!(check(text).1.is_ok(), "{text}");
        }
    }
}
