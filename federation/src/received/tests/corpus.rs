//! Events of the corpus in `federation/fuzz`, and mutations of them: nothing panics, and what is kept can be read again.

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use ruma::OwnedRoomId;
use serde_json::Value as JsonValue;

use super::*;
use crate::{
    fuzz::{
        corpus, each_seed, length_with_causes,
        mutations::{self, JSON_PIECES, Mutations},
    },
    pdu::room_id_of_create,
    rules, supported_room_versions,
};

const MUTATIONS: u64 = 20_000;

/// Maximum length of an error with its causes. Errors are logged and sent back, so they must not hold an event.
const MAX_ERROR_BYTES: usize = 300;

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

#[test]
fn the_names_of_the_corpus_say_what_is_kept() {
    for (name, text) in corpus("event") {
        let is_kept = supported_room_versions().iter().filter(|version| check(version, &text)).count() > 0;
        assert_eq!(is_kept, name.starts_with("kept-"), "{name}");
        assert_eq!(!is_kept, name.starts_with("dropped-"), "{name}");
    }
}

#[test]
fn mutations_of_the_corpus_are_dropped_or_can_be_read_again() {
    let corpus = [corpus("event"), corpus("advisory")].concat();
    let good: Vec<_> = corpus.iter().filter(|(name, _)| !name.starts_with("dropped-")).collect();
    let mutations = Mutations { corpus: &corpus, words: &WORDS };
    let make = |random: &mut StdRng| {
        let mut text = good.choose(random).unwrap().1.clone();
        for _ in 0..random.random_range(1..=2) {
            text = mutate(random, &text, &mutations);
        }
        (supported_room_versions().choose(random).unwrap(), text)
    };
    let kept = each_seed(MUTATIONS, make, |(version, text)| check(version, text));
    // Otherwise the mutations would only show that nonsense is dropped.
    assert!(kept > MUTATIONS / 10, "{kept}");
}

/// Changes one thing: a value of the JSON, or, less often, some bytes of the text.
fn mutate(random: &mut StdRng, text: &str, mutations: &Mutations<'_>) -> String {
    match serde_json::from_str::<JsonValue>(text) {
        Ok(mut event) if random.random_range(0..6) > 0 => {
            // Few changes of other fields leave an event.
            let is_in_content = random.random() && event["content"].is_object();
            mutations.value(random, if is_in_content { &mut event["content"] } else { &mut event });
            event.to_string()
        }
        _ => mutations::bytes(random, text, &JSON_PIECES),
    }
}

/// Words that mean something in events.
const WORDS: [&str; 27] = [
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
];
