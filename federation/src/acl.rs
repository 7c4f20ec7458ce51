//! The servers that a room shuts out: the content of its `m.room.server_acl`, compiled once and asked for many servers.
//!
//! Client-server API, [Server access control
//! lists](https://spec.matrix.org/v1.19/client-server-api/#server-access-control-lists-acls-for-rooms). A room without
//! such an event shuts out nobody. Every server must come to the same answer, so a malformed list is read as other servers
//! read it: an entry that is no text is ignored, and a list that is no list is empty.
//!
//! Nothing limits the number of patterns but the size of the event: a pattern that we ignored would let in a server that
//! all others shut out. It needs no limit. The compiled form is not larger than the event, and one question takes a few
//! instructions for each byte of it, whatever the patterns and the name are: less than a millisecond for the largest event.

use std::collections::BTreeSet;

use ruma::ServerName;
use serde::Deserialize;
use serde_json::{Value as JsonValue, value::RawValue};

use crate::discovery::Host;

/// The number of 64-bit words for the places in the name of a host, which has 255 bytes at most. A longer name does not
/// exist, and is shut out.
const WORDS: usize = 4;
const MAX_HOST_BYTES: usize = WORDS * 64 - 1;

/// The end of a pattern in [`Patterns`]. No pattern has it.
const END: u8 = b'\n';

/// A compiled `m.room.server_acl`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerAcl {
    deny: Patterns,
    allow: Patterns,
    allow_ip_literals: bool,
}

impl ServerAcl {
    /// Compiles the content of an `m.room.server_acl` event, of which the size is that of an event.
    pub fn new(content: &RawValue) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Content {
            allow: JsonValue,
            deny: JsonValue,
            allow_ip_literals: JsonValue,
        }
        // Content that is no object allows nobody, as an empty one does.
        let content: Content = serde_json::from_str(content.get()).unwrap_or_default();
        Self {
            deny: Patterns::of(&content.deny),
            allow: Patterns::of(&content.allow),
            allow_ip_literals: content.allow_ip_literals.as_bool().unwrap_or(true),
        }
    }

    /// Returns whether the server may take part in the room. Its port does not matter, and upper and lower case are equal.
    pub fn allows(&self, server: &ServerName) -> bool {
        let host = server.host();
        if !self.allow_ip_literals && matches!(Host::parse(host), Host::Ip(_)) {
            return false;
        }
        let Some(places) = Places::in_host(host) else { return false };
        !self.deny.has_match(&places) && self.allow.has_match(&places)
    }

    /// The approximate memory that it takes, in bytes.
    pub fn bytes(&self) -> u64 {
        (size_of::<Self>() + self.deny.0.len() + self.allow.0.len()) as u64
    }
}

/// Globs in lower case, without repeated stars, each followed by [`END`].
#[derive(Clone, PartialEq, Eq, Debug)]
struct Patterns(Box<[u8]>);

impl Patterns {
    fn of(list: &JsonValue) -> Self {
        let patterns = list.as_array().into_iter().flatten().filter_map(JsonValue::as_str).filter_map(compile);
        let distinct: BTreeSet<Vec<u8>> = patterns.collect();
        Self(distinct.into_iter().flatten().collect())
    }

    fn has_match(&self, places: &Places) -> bool {
        self.0.split(|byte| *byte == END).any(|pattern| places.matches(pattern))
    }
}

/// Compiles a pattern. `None` for one that has a character which no host has.
fn compile(pattern: &str) -> Option<Vec<u8>> {
    let may_match = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]*?".contains(&byte);
    if !pattern.bytes().all(may_match) {
        return None;
    }
    let mut compiled = pattern.to_ascii_lowercase().into_bytes();
    compiled.dedup_by(|one, before| *one == b'*' && *before == b'*');
    compiled.push(END);
    Some(compiled)
}

/// A set of places in the name of a host, as bits. Place `i` is the one after the first `i` bytes.
type PlaceSet = [u64; WORDS];

/// The name of a host, prepared to be matched against many patterns.
///
/// A pattern is read once, from left to right. With each of its characters the set of all places up to which the host
/// matches so far moves on, all places at the same time. So nothing is tried twice, and nothing recurses.
struct Places {
    last: usize,
    /// The places after each character that a host may have.
    after: [PlaceSet; 128],
    /// The places after any character.
    after_any: PlaceSet,
}

impl Places {
    fn in_host(host: &str) -> Option<Self> {
        if host.len() > MAX_HOST_BYTES || !host.is_ascii() {
            return None;
        }
        let mut places = Self { last: host.len(), after: [[0; WORDS]; 128], after_any: [0; WORDS] };
        for (index, byte) in host.bytes().enumerate() {
            let (word, bit) = ((index + 1) / 64, 1 << ((index + 1) % 64));
            places.after[usize::from(byte.to_ascii_lowercase())][word] |= bit;
            places.after_any[word] |= bit;
        }
        Some(places)
    }

    /// Returns whether the whole host matches a compiled pattern.
    fn matches(&self, pattern: &[u8]) -> bool {
        let mut reached: PlaceSet = [0; WORDS];
        reached[0] = 1;
        for byte in pattern {
            reached = match byte {
                b'*' => from_first(reached),
                b'?' => both(next(reached), self.after_any),
                byte => both(next(reached), self.after[usize::from(*byte & 127)]),
            };
            if reached == [0; WORDS] {
                return false;
            }
        }
        (reached[self.last / 64] >> (self.last % 64)) & 1 == 1
    }
}

/// All places from the first of a set on.
fn from_first(set: PlaceSet) -> PlaceSet {
    let mut found = false;
    set.map(|word| {
        let filled = if found { u64::MAX } else { word | word.wrapping_neg() };
        found |= word != 0;
        filled
    })
}

/// The places one further on.
fn next(set: PlaceSet) -> PlaceSet {
    let mut carried = 0;
    set.map(|word| {
        let moved = (word << 1) | carried;
        carried = word >> 63;
        moved
    })
}

fn both(mut one: PlaceSet, other: PlaceSet) -> PlaceSet {
    one.iter_mut().zip(other).for_each(|(word, other)| *word &= other);
    one
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn acl(content: &JsonValue) -> ServerAcl {
        ServerAcl::new(&to_raw_value(content).unwrap())
    }

    #[track_caller]
    fn check(content: &JsonValue, server: &str, expected: bool) {
        let allowed = acl(content).allows(<&ServerName>::try_from(server).unwrap());
        assert_eq!(allowed, expected, "{server} by {content}");
    }

    #[test]
    fn denied_servers_are_out_and_only_allowed_ones_are_in() {
        let all_but = json!({ "allow": ["*"], "deny": ["evil.com", "*.evil.com"] });
        check(&all_but, "example.org", true);
        check(&all_but, "evil.com", false);
        check(&all_but, "more.evil.com", false);
        check(&all_but, "notevil.com", true);
        check(&all_but, "evil.com.example.org", true);
        let only = json!({ "allow": ["*.example.org", "example.???"] });
        check(&only, "example.org", true);
        check(&only, "example.info", false);
        check(&only, "a.b.example.org", true);
        check(&only, "example.net", true);
        check(&only, "example.orgs", false);
        check(&json!({ "allow": ["a.org"], "deny": ["*"] }), "a.org", false);
    }

    #[test]
    fn ports_and_case_do_not_matter() {
        let content = json!({ "allow": ["*"], "deny": ["EVIL.com", "bad.org:8448"] });
        for server in ["evil.com", "evil.com:8448", "Evil.Com:1", "EVIL.COM"] {
            check(&content, server, false);
        }
        // A pattern with a port matches no name, because the port is left out.
        check(&content, "bad.org:8448", true);
        check(&content, "bad.org", true);
    }

    #[test]
    fn addresses_are_shut_out_if_the_room_says_so() {
        let without = json!({ "allow": ["*"], "allow_ip_literals": false });
        for server in ["1.2.3.4", "1.2.3.4:8448", "[::1]", "[2001:db8::1]:443"] {
            check(&without, server, false);
            check(&json!({ "allow": ["*"], "allow_ip_literals": true }), server, true);
            check(&json!({ "allow": ["*"] }), server, true);
            // Everything that is not a boolean is the default.
            check(&json!({ "allow": ["*"], "allow_ip_literals": "false" }), server, true);
            check(&json!({ "allow": ["*"], "allow_ip_literals": null }), server, true);
            check(&json!({ "allow": ["*"], "allow_ip_literals": 0 }), server, true);
        }
        for name in ["1.2.3.4.example.org", "127.1", "example.org"] {
            check(&without, name, true);
        }
        check(&json!({ "allow": ["*"], "deny": ["1.2.3.*", "[2001:DB8::*]"] }), "1.2.3.4", false);
        check(&json!({ "allow": ["*"], "deny": ["1.2.3.*", "[2001:DB8::*]"] }), "[2001:db8::1]", false);
        check(&json!({ "allow": ["*"], "deny": ["1.2.3.*", "[2001:DB8::*]"] }), "[2001:db9::1]", true);
    }

    #[test]
    fn malformed_lists_are_read_as_other_servers_read_them() {
        // Without a list of allowed servers nobody is allowed.
        for content in [
            json!({}),
            json!({ "deny": ["evil.com"] }),
            json!({ "allow": [] }),
            json!({ "allow": null }),
            json!({ "allow": "*" }),
            json!({ "allow": { "*": true } }),
            json!({ "allow": [["*"], 1, null, { "*": 1 }] }),
            json!({ "allow": [""] }),
        ] {
            check(&content, "example.org", false);
        }
        // An entry that is no text is ignored, and the rest counts.
        let some = json!({ "allow": [1, "*", null], "deny": [{}, "evil.com", ["example.org"]] });
        check(&some, "example.org", true);
        check(&some, "evil.com", false);
        for deny in [json!("evil.com"), json!(null), json!(true), json!({ "0": "evil.com" })] {
            check(&json!({ "allow": ["*"], "deny": deny }), "evil.com", true);
        }
        // Patterns that no host can have match nothing, and end no other pattern.
        check(&json!({ "allow": ["*"], "deny": ["évil*", "a\nb*", "a\u{0}*", "e vil", "*\n"] }), "evil.com", true);
        assert!(
            !ServerAcl::new(&RawValue::from_string("[\"*\"]".to_owned()).unwrap()).allows("a.org".try_into().unwrap())
        );
    }

    #[test]
    fn the_worst_lists_are_no_larger_than_their_event_and_are_still_right() {
        // More patterns than any limit on their number would allow: the last one counts.
        let mut many: Vec<String> = (0..12_000).map(|number| format!("{number:x}?")).collect();
        many.push("evil.com".to_owned());
        let many = json!({ "allow": ["*"], "deny": many });
        check(&many, "evil.com", false);
        check(&many, "example.org", true);
        assert!(acl(&many).bytes() < many.to_string().len() as u64);
        // Patterns that make other matchers try every way.
        let host = format!("{}.org", "a".repeat(251));
        let slow = json!({ "allow": ["*".repeat(1_000), "*a".repeat(250)], "deny": vec!["*a".repeat(252) + "b"; 100] });
        check(&slow, &host, true);
        assert!(acl(&slow).bytes() < 2_000, "equal patterns are kept once");
        check(&json!({ "allow": ["*a".repeat(252)] }), &host, false);
        check(&json!({ "allow": [format!("{}*", "?".repeat(255))] }), &host, true);
        check(&json!({ "allow": ["?".repeat(256)] }), &host, false);
        // Longer than any host may be.
        check(&json!({ "allow": ["*"] }), &format!("{}.org", "a".repeat(256)), false);
    }

    /// The definition, which tries every way.
    fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|taken| matches_by_definition(rest, &text[taken..])),
            [b'?', rest @ ..] => !text.is_empty() && matches_by_definition(rest, &text[1..]),
            [byte, rest @ ..] => text.first() == Some(byte) && matches_by_definition(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_by_its_definition(
            patterns in proptest::collection::vec("[ab.*?]{0,8}", 0..4),
            start in 0_usize..200,
            host in "[ab.]{1,12}",
        ) {
            // A long start puts the end of the name at any place of the words.
            let start = "c".repeat(start);
            let host = format!("{start}{host}");
            let list: Vec<String> = patterns.iter().map(|pattern| format!("{start}{pattern}")).collect();
            let expected = list.iter().any(|pattern| matches_by_definition(pattern.as_bytes(), host.as_bytes()));
            let server = <&ServerName>::try_from(host.as_str()).unwrap();
            prop_assert_eq!(acl(&json!({ "allow": list })).allows(server), expected);
            prop_assert_eq!(acl(&json!({ "allow": ["*"], "deny": list })).allows(server), !expected);
        }
    }
}
