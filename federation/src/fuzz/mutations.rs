//! Changes of inputs, as bugs and attackers make them.

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value as JsonValue, json};

/// Changes of JSON values.
pub(crate) struct Mutations<'a> {
    /// Texts whose fields get into others.
    pub corpus: &'a [(String, String)],
    /// Words that mean something in such a value.
    pub words: &'a [&'a str],
}

/// Pieces of JSON that get between others.
pub(crate) const JSON_PIECES: [&str; 14] =
    ["{", "}", "[", "]", ",", "\"", "\\", "\\u0000", "\\ud800", "1e3", "-0", " ", "null,", "\"a\":1,"];

impl Mutations<'_> {
    /// Walks down to a random value, and replaces, removes, repeats or renames it.
    pub fn value(&self, random: &mut StdRng, value: &mut JsonValue) {
        let goes_on = random.random_range(0..3) > 0;
        match value {
            JsonValue::Object(object) if !object.is_empty() => {
                let name = object.keys().nth(random.random_range(0..object.len())).unwrap().clone();
                match random.random_range(0..8) {
                    0 => drop(object.remove(&name)),
                    1 => {
                        let moved = object.remove(&name).unwrap();
                        object.insert(any_text(random, self.words), moved);
                    }
                    2 => drop(object.insert(any_text(random, self.words), self.any_value(random))),
                    // A field of another text.
                    3 => {
                        let other = serde_json::from_str::<JsonValue>(&self.corpus.choose(random).unwrap().1);
                        if let Some(other) = other.ok().and_then(|other| other.get(&name).cloned()) {
                            object.insert(name, other);
                        }
                    }
                    _ if goes_on => self.value(random, &mut object[&name]),
                    _ => drop(object.insert(name, self.any_value(random))),
                }
            }
            JsonValue::Array(array) if !array.is_empty() => {
                let index = random.random_range(0..array.len());
                match random.random_range(0..6) {
                    0 => drop(array.remove(index)),
                    1 => {
                        let count = random.random_range(1..30);
                        array.extend(vec![array[index].clone(); count]);
                    }
                    _ if goes_on => self.value(random, &mut array[index]),
                    _ => array[index] = self.any_value(random),
                }
            }
            _ => *value = self.any_value(random),
        }
    }

    fn any_value(&self, random: &mut StdRng) -> JsonValue {
        match random.random_range(0..8) {
            0 => JsonValue::Null,
            1 => true.into(),
            2 => 1.5.into(),
            3 => json!([]),
            4 => json!({}),
            5 => {
                let numbers = [0, 1, -1, (1 << 53) - 1, 1 << 53, -(1 << 53), i64::MIN, i64::MAX];
                (*numbers.choose(random).unwrap()).into()
            }
            6 => (0..random.random_range(1..140)).fold(json!([]), |inner, _| json!([inner])),
            _ => any_text(random, self.words).into(),
        }
    }
}

/// One of these words, or a strange one, of many lengths.
pub(crate) fn any_text(random: &mut StdRng, words: &[&str]) -> String {
    let strange = ["", "\0", "\u{10FFFE}", "é", "\u{1f600}", "\"\\"];
    let all = words.len() + strange.len();
    let index = random.random_range(0..all);
    let word = words.iter().chain(&strange).nth(index).unwrap();
    let times = [1, 1, 1, 1, 2, 100, 255, 256, 3_000];
    word.repeat(*times.choose(random).unwrap())
}

/// Removes, repeats or overwrites some bytes, or puts one of `pieces` in their place.
pub(crate) fn bytes(random: &mut StdRng, text: &str, pieces: &[&str]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let start = random.random_range(0..=bytes.len());
    let end = (start + random.random_range(0..12)).min(bytes.len());
    match random.random_range(0..4) {
        0 => drop(bytes.drain(start..end)),
        1 => bytes.extend_from_within(start..end),
        2 => bytes[start..end].fill(random.random()),
        _ => drop(bytes.splice(start..end, pieces.choose(random).unwrap().bytes())),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
