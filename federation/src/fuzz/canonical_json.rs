//! Canonical JSON: each spelling of a value is read as that value and written in one way. Appendices, [Canonical
//! JSON](https://spec.matrix.org/v1.19/appendices/#canonical-json).
//!
//! Ruma has the code, and IDs, hashes and signatures depend on it: two servers that write one value in two ways do not
//! believe each other.

use rand::{
    RngExt as _,
    seq::{IndexedRandom as _, SliceRandom as _},
};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, Int};

use super::{mutations::JSON_PIECES, *};

const VALUES: u64 = 5_000;

/// Names and texts whose order or spelling is easy to get wrong. UTF-16 would sort the last two the other way round.
const WORDS: [&str; 12] =
    ["a", "A", "aa", "_", "\u{1}\u{1f}\u{7f}", "\n\t\r", "/", "\u{8}\u{c}", "é", "\u{2028}", "\u{fb00}", "\u{10000}"];

/// A value that canonical JSON has, nested up to `levels`.
fn any_value(random: &mut StdRng, levels: u32) -> CanonicalJsonValue {
    let text = |random: &mut StdRng| mutations::any_text(random, &WORDS).chars().take(300).collect::<String>();
    match random.random_range(0..if levels == 0 { 4 } else { 8 }) {
        0 => CanonicalJsonValue::Null,
        1 => random.random::<bool>().into(),
        2 => {
            let least = i64::from(Int::MIN);
            let number = *[0, 1, -1, least, -least, random.random_range(least..-least)].choose(random).unwrap();
            Int::new(number).unwrap().into()
        }
        3 => text(random).into(),
        4 | 5 => (0..random.random_range(0..5)).map(|_| any_value(random, levels - 1)).collect::<Vec<_>>().into(),
        _ => {
            let fields = (0..random.random_range(0..6)).map(|_| (text(random), any_value(random, levels - 1)));
            CanonicalJsonValue::Object(fields.collect())
        }
    }
}

/// Writes a value in one of its many spellings.
fn spell(random: &mut StdRng, value: &CanonicalJsonValue, out: &mut String) {
    let space =
        |random: &mut StdRng, out: &mut String| out.push_str(["", "", " ", "\n\t", "\r\n "].choose(random).unwrap());
    space(random, out);
    match value {
        CanonicalJsonValue::String(text) => spell_text(random, text, out),
        CanonicalJsonValue::Array(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                spell(random, value, out);
            }
            out.push(']');
        }
        CanonicalJsonValue::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.shuffle(random);
            out.push('{');
            for (index, (name, value)) in fields.into_iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                if random.random_range(0..8) == 0 {
                    // The last one of two fields with one name counts.
                    spell_text(random, name, out);
                    out.push_str(":[1,{}],");
                }
                space(random, out);
                spell_text(random, name, out);
                space(random, out);
                out.push(':');
                spell(random, value, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
    space(random, out);
}

fn spell_text(random: &mut StdRng, text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        let short = "\"\\/\u{8}\u{c}\n\r\t".find(character).map(|index| &"\"\\/bfnrt"[index..=index]);
        match (short, random.random_range(0..3)) {
            (Some(short), 0) => out.extend(["\\", short]),
            (None, 0 | 1) if !character.is_control() => out.push(character),
            _ => out.extend(character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
    }
    out.push('"');
}

/// Writes a value as the specification says.
fn write(value: &CanonicalJsonValue) -> String {
    let list = |parts: Vec<String>| parts.join(",");
    match value {
        CanonicalJsonValue::Null => "null".to_owned(),
        CanonicalJsonValue::Bool(value) => value.to_string(),
        CanonicalJsonValue::Integer(number) => i64::from(*number).to_string(),
        CanonicalJsonValue::String(text) => write_text(text),
        CanonicalJsonValue::Array(values) => format!("[{}]", list(values.iter().map(write).collect())),
        CanonicalJsonValue::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|(one, _), (other, _)| one.chars().cmp(other.chars()));
            let fields = fields.into_iter().map(|(name, value)| format!("{}:{}", write_text(name), write(value)));
            format!("{{{}}}", list(fields.collect()))
        }
    }
}

fn write_text(text: &str) -> String {
    let escaped = text.chars().map(|character| match character {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\0'..'\u{20}' => format!("\\u{:04x}", u32::from(character)),
        other => other.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

fn spelled(random: &mut StdRng) -> (CanonicalJsonValue, String) {
    let (value, mut text) = (any_value(random, 4), String::new());
    spell(random, &value, &mut text);
    (value, text)
}

#[test]
fn every_spelling_of_a_value_is_written_in_one_way() {
    each_seed(VALUES, spelled, |(value, text)| {
        let read: CanonicalJsonValue = serde_json::from_str(text).unwrap();
        assert_eq!(read, *value);
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(written, write(value));
        assert_eq!(read.to_string(), written);
        assert!(written.len() <= text.len());
        true
    });
}

#[test]
fn damaged_spellings_are_refused_or_written_in_one_way() {
    let make = |random: &mut StdRng| {
        let text = spelled(random).1;
        mutations::bytes(random, &text, &JSON_PIECES)
    };
    let kept = each_seed(VALUES, make, |text| {
        let read: CanonicalJsonValue = match serde_json::from_str(text) {
            Ok(read) => read,
            Err(error) => {
                assert!(length_with_causes(&error) <= 300, "{error}");
                return false;
            }
        };
        let written = serde_json::to_string(&read).unwrap();
        assert_eq!(written, write(&read));
        assert!(written.len() <= text.len());
        assert_eq!(serde_json::from_str::<CanonicalJsonValue>(&written).unwrap(), read);
        true
    });
    assert!(kept > VALUES / 10, "{kept}");
}

#[test]
fn signing_leaves_a_value_as_it_was() {
    let [good, ..] = signers();
    each_seed(VALUES / 10, spelled, |(value, _)| {
        let mut object = CanonicalJsonObject::from([("value".to_owned(), value.clone())]);
        good.sign_json(&mut object).unwrap();
        let text = serde_json::to_string(&object).unwrap();
        let again: CanonicalJsonObject = serde_json::from_str(&text).unwrap();
        ruma::signatures::verify_json(&good.public_key_map(), &again).unwrap();
        object.remove("signatures");
        object.remove("value") == Some(value.clone())
    });
}

#[test]
fn deep_nesting_is_refused_before_the_stack_ends() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for levels in [128, 1_000, 1_000_000] {
            let text = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            serde_json::from_str::<CanonicalJsonValue>(&text).unwrap_err();
        }
    }
}
