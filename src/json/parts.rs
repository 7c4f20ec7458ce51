//! The parts of a JSON text, which tell how much memory its parsed form takes.
//!
//! The text's length alone tells little: a room key of a kilobyte takes a kilobyte, but ten bytes that name a user take
//! hundreds. Measured in `tests/counts`: no request takes more than is computed here.

/// The memory of one entry. In a B-tree that was filled in order, half of the places are empty, and a place has a key
/// (24 bytes) and a value (32). Each of the two may point to a block of its own, of which the smallest has 32 bytes.
const ENTRY_BYTES: usize = 2 * (24 + 32) + 2 * 32;

/// The memory of an object with any entry: a B-tree's first node has eleven places at once.
const OBJECT_BYTES: usize = 11 * (24 + 32) + 16;

/// The number of times that the text itself is in memory: in the parsed form, in the rows that the handler makes of it, and
/// in the values that go to the database.
const TEXT_COPIES: usize = 3;

/// The numbers of parts of a JSON text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    /// At least as many as there are values: one for each array and object, and one for each comma.
    pub(super) entries: usize,
    /// Objects that are not empty.
    pub(super) objects: usize,
}

impl Parts {
    /// The bytes of memory that a handler needs for the parsed text, at most. `text_bytes` is the length of the text.
    pub fn parsed_bytes(self, text_bytes: usize) -> usize {
        self.entries * ENTRY_BYTES + self.objects * OBJECT_BYTES + text_bytes * TEXT_COPIES
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MAX_DEPTH, MAX_KEY_BYTES, check};

    #[test]
    fn entries_and_objects_are_counted() {
        let check = |json: &str, entries: usize, objects: usize| {
            let (parts, fits) = check(json);
            fits.expect("it can be passed on");
            assert_eq!((parts.entries, parts.objects), (entries, objects), "{json}");
        };
        check("{}", 1, 0);
        check("[[],[],{}]", 6, 0);
        check(r#"{"a":1}"#, 1, 1);
        check(r#"{"a":{"b":1,"c":"x,{}[]"},"d":[1,2,3]}"#, 7, 2);
    }

    /// A parser reads on behind the place, in text that is no JSON too.
    #[test]
    fn the_parts_behind_an_unfit_place_are_counted() {
        let rest = format!("[{}]", vec![r#"{"":","}"#; 100].join(","));
        let deep = "[".repeat(MAX_DEPTH);
        let long_key = "k".repeat(MAX_KEY_BYTES + 1);
        for unfit in
            ["1e999", r#"{"a":1,"a":2}"#, r#""\ud800""#, &format!("[{deep}"), &format!(r#"{{"{long_key}":0}}"#)]
        {
            for end in ["", "]", "] z"] {
                let (parts, fits) = check(&format!("[{unfit},{rest}{end}"));
                assert!(fits.is_err(), "{unfit}");
                assert!(parts.entries >= 200 && parts.objects >= 100, "{unfit}: {parts:?}");
            }
        }
    }

    #[test]
    fn ordinary_requests_take_a_small_multiple_of_their_text_and_names_take_a_large_one() {
        let check = |json: &str, at_most: usize| {
            let bytes = check(json).0.parsed_bytes(json.len());
            assert!(bytes <= at_most * json.len(), "{} times {} bytes", bytes / json.len(), json.len());
            assert!(bytes > (at_most - 2) * json.len(), "{} times {} bytes", bytes / json.len(), json.len());
        };
        let event = format!(
            r#"{{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"{}","device_id":"DEVICE","sender_key":"{}","session_id":"{}"}}"#,
            "c".repeat(800),
            "k".repeat(43),
            "s".repeat(43)
        );
        check(&event, 5);
        let room_key = format!(
            r#"{{"first_message_index":0,"forwarded_count":0,"is_verified":true,"session_data":{{"ephemeral":"{}","ciphertext":"{}","mac":"{}"}}}}"#,
            "e".repeat(43),
            "c".repeat(700),
            "m".repeat(11)
        );
        check(&room_key, 7);
        check(r#"{"@user:example.org":{"*":{}}}"#, 64);
    }
}
