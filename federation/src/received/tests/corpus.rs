//! Events of the corpus in `federation/fuzz`, and mutations of them: nothing panics, and what is kept can be read again.

use std::{error::Error, fs, path::Path};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use ruma::OwnedRoomId;
use serde_json::Value as JsonValue;

use super::*;
use crate::{pdu::room_id_of_create, rules, supported_room_versions};

const MUTATIONS: u64 = 20_000;

/// Maximum length of an error with its causes. Errors are logged and sent back, so they must not hold an event.
const MAX_ERROR_BYTES: usize = 300;

/// The files of the corpus with their names.
fn corpus() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/event");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// The room that an event says it belongs to, or makes.
fn room_of(rules: &RoomVersionRules, json: &RawValue) -> Option<OwnedRoomId> {
    let event = super::super::object::read(json).ok()?;
    match event.get("room_id") {
        Some(named) => named.as_str()?.try_into().ok(),
        None => room_id_of_create(&event_id_of(&super::super::hash::signed_bytes(rules, &event).ok()?)),
    }
}

/// Reads a text as an event of its own room. Returns whether it has the form of an event.
fn check(version: &RoomVersionId, text: &str) -> bool {
    let rules = rules(version).unwrap();
    let Ok(json) = RawValue::from_string(text.to_owned()) else { return false };
    let room_id = room_of(&rules, &json).unwrap_or_else(|| ruma::owned_room_id!("!fixed:example.org"));
    let event = match read(&rules, &room_id, &json) {
        Ok(event) => event,
        Err(error) => {
            assert!(length_with_causes(&error) <= MAX_ERROR_BYTES, "{error:?}");
            return false;
        }
    };
    assert!(event.pdu.json.len() <= 65_536);
    Pdu::from_stored(&rules, event.pdu.event_id.clone(), &*event.pdu.json).unwrap();
    let again = read(&rules, &room_id, &raw(&*event.pdu.json)).unwrap();
    assert_eq!((&again.pdu.event_id, &again.pdu.json), (&event.pdu.event_id, &event.pdu.json));
    assert_eq!((again.form, again.too_long), (event.form, event.too_long));
    assert_eq!(again.signed, event.signed);
    // Others who get it from us as it is stored need no signature that we did not need.
    assert!(again.needed().iter().all(|again| event.needed().iter().any(|needed| needed.server() == again.server())));
    if let Err(error) = verify_with(event, &[]) {
        assert!(length_with_causes(&error) <= MAX_ERROR_BYTES + 255, "{error:?}");
    }
    true
}

fn length_with_causes(error: &dyn Error) -> usize {
    error.to_string().len() + error.source().map_or(0, length_with_causes)
}

#[test]
fn the_names_of_the_corpus_say_what_is_kept() {
    for (name, text) in corpus() {
        let is_kept = supported_room_versions().iter().filter(|version| check(version, &text)).count() > 0;
        assert_eq!(is_kept, name.starts_with("kept-"), "{name}");
        assert_eq!(!is_kept, name.starts_with("dropped-"), "{name}");
    }
}

#[test]
fn mutations_of_the_corpus_are_dropped_or_can_be_read_again() {
    let corpus = corpus();
    let good: Vec<_> = corpus.iter().filter(|(name, _)| name.starts_with("kept-")).collect();
    let mut kept = 0_u64;
    for seed in 0..MUTATIONS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut text = good.choose(&mut random).unwrap().1.clone();
        for _ in 0..random.random_range(1..=2) {
            text = mutate(&mut random, &text, &corpus);
        }
        let version = supported_room_versions().choose(&mut random).unwrap();
        let result = std::panic::catch_unwind(|| check(version, &text));
        kept += u64::from(result.unwrap_or_else(|_| panic!("seed {seed}, version {version}: {text}")));
    }
    // Otherwise the mutations would only show that nonsense is dropped.
    assert!(kept > MUTATIONS / 10, "{kept}");
}

/// Changes one thing: a value of the JSON, or, less often, some bytes of the text.
fn mutate(random: &mut StdRng, text: &str, corpus: &[(String, String)]) -> String {
    match serde_json::from_str::<JsonValue>(text) {
        Ok(mut event) if random.random_range(0..6) > 0 => {
            // Few changes of other fields leave an event.
            let is_in_content = random.random() && event["content"].is_object();
            let value = if is_in_content { &mut event["content"] } else { &mut event };
            mutate_value(random, value, corpus);
            event.to_string()
        }
        _ => mutate_bytes(random, text),
    }
}

/// Walks down to a random value, and replaces, removes, repeats or renames it.
fn mutate_value(random: &mut StdRng, value: &mut JsonValue, corpus: &[(String, String)]) {
    let goes_on = random.random_range(0..3) > 0;
    match value {
        JsonValue::Object(object) if !object.is_empty() => {
            let name = object.keys().nth(random.random_range(0..object.len())).unwrap().clone();
            match random.random_range(0..8) {
                0 => drop(object.remove(&name)),
                1 => {
                    let moved = object.remove(&name).unwrap();
                    object.insert(any_text(random), moved);
                }
                2 => drop(object.insert(any_text(random), any_value(random))),
                // A field of another event.
                3 => {
                    let other = serde_json::from_str::<JsonValue>(&corpus.choose(random).unwrap().1);
                    if let Some(other) = other.ok().and_then(|other| other.get(&name).cloned()) {
                        object.insert(name, other);
                    }
                }
                _ if goes_on => mutate_value(random, &mut object[&name], corpus),
                _ => drop(object.insert(name, any_value(random))),
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
                _ if goes_on => mutate_value(random, &mut array[index], corpus),
                _ => array[index] = any_value(random),
            }
        }
        _ => *value = any_value(random),
    }
}

fn any_value(random: &mut StdRng) -> JsonValue {
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
        _ => any_text(random).into(),
    }
}

/// Words that mean something in events, and strange texts of many lengths.
fn any_text(random: &mut StdRng) -> String {
    let words = [
        "",
        "type",
        "state_key",
        "room_id",
        "content",
        "membership",
        "invite",
        "join",
        "ban",
        "m.room.member",
        "m.room.create",
        "m.room.redaction",
        "m.room.power_levels",
        "third_party_invite",
        "redacts",
        "event_id",
        "unsigned",
        "join_authorised_via_users_server",
        "@bob:elsewhere.org",
        "@:",
        "$a",
        "$",
        "!r",
        "!fixed:example.org",
        "example.org",
        "ed25519:1",
        "ed25519:",
        "sha256",
        "\0",
        "\u{10FFFE}",
        "é",
        "\u{1f600}",
        "\"\\",
    ];
    let word = *words.choose(random).unwrap();
    let times = [1, 1, 1, 1, 2, 100, 255, 256, 3_000];
    word.repeat(*times.choose(random).unwrap())
}

fn mutate_bytes(random: &mut StdRng, text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let start = random.random_range(0..=bytes.len());
    let end = (start + random.random_range(0..12)).min(bytes.len());
    match random.random_range(0..4) {
        0 => drop(bytes.drain(start..end)),
        1 => bytes.extend_from_within(start..end),
        2 => bytes[start..end].fill(random.random()),
        _ => {
            let pieces =
                ["{", "}", "[", "]", ",", "\"", "\\", "\\u0000", "\\ud800", "1e3", "-0", " ", "null,", "\"a\":1,"];
            bytes.splice(start..end, pieces.choose(random).unwrap().bytes());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
