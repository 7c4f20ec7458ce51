//! Answers with a server's keys: the corpus, and mutations of it that their server has signed again.

use rand::{RngExt as _, seq::IndexedRandom as _};
use ruma::{CanonicalJsonObject, server_name};
use serde_json::Value as JsonValue;

use super::*;
use crate::{
    PublishedKeys, PublishedKeysError,
    fuzz::mutations::{JSON_PIECES, Mutations},
    published_keys::MAX_VALIDITY_MS,
};

const MUTATIONS: u64 = 5_000;

/// The time of the corpus, in milliseconds since 1970.
const NOW: i64 = 1_700_000_000_000;

const WORDS: [&str; 14] = [
    "server_name",
    "valid_until_ts",
    "verify_keys",
    "old_verify_keys",
    "signatures",
    "key",
    "expired_ts",
    "example.org",
    "evil.test",
    "ed25519:now",
    "ed25519:2",
    "ed25519:",
    "rsa:1",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

/// Reads an answer of `example.org`. Returns whether it is good.
fn check(text: &str) -> bool {
    let read = |text: &str| PublishedKeys::parse(server_name!("example.org"), text.as_bytes(), NOW);
    let keys = match read(text) {
        Ok(keys) => keys,
        Err(error) => {
            // An error of serde shows a text that is in the wrong place, with escapes.
            assert!(length_with_causes(&error) <= 3 * text.len() + 300, "{error:?}");
            return false;
        }
    };
    assert!((1..=16).contains(&keys.current.len()) && keys.old.len() <= 256);
    assert!(keys.valid_until_ms <= NOW + MAX_VALIDITY_MS);
    assert!(keys.old.values().all(|(_, ended_ms)| *ended_ms <= NOW));
    assert!(keys.old.keys().all(|key_id| !keys.current.contains_key(key_id)));
    // As a notary would pass it on.
    let canonical: CanonicalJsonObject = serde_json::from_str(text).unwrap();
    assert_same(&read(&serde_json::to_string(&canonical).unwrap()).unwrap(), &keys);
    true
}

fn assert_same(one: &PublishedKeys, other: &PublishedKeys) {
    assert_eq!((&one.current, &one.old, one.valid_until_ms), (&other.current, &other.old, other.valid_until_ms));
}

#[test]
fn the_names_of_the_corpus_say_what_is_good() {
    names_say("keys", check);
}

#[test]
fn mutations_are_refused_or_keep_the_bounds() {
    let corpus = corpus("keys");
    let [good, ..] = signers();
    let mutations = Mutations { corpus: &corpus, words: &WORDS };
    let make = |random: &mut StdRng| {
        let text = &corpus.choose(random).unwrap().1;
        let Ok(mut answer) = serde_json::from_str::<JsonValue>(text) else {
            return mutations::bytes(random, text, &JSON_PIECES);
        };
        mutations.value(random, &mut answer);
        let text = answer.to_string();
        // Without a new signature, hardly one is good.
        let Ok(mut answer) = serde_json::from_str::<CanonicalJsonObject>(&text) else { return text };
        answer.remove("signatures");
        good.sign_json(&mut answer).unwrap();
        let text = serde_json::to_string(&answer).unwrap();
        if random.random_range(0..4) == 0 { mutations::bytes(random, &text, &JSON_PIECES) } else { text }
    };
    let kept = each_seed(MUTATIONS, make, |text| check(text));
    assert!(kept > MUTATIONS / 10, "{kept}");
}

#[test]
fn an_answer_that_anyone_changed_is_not_believed() {
    let intact = corpus("keys").into_iter().find(|(name, _)| name == "kept-current-and-old.json").unwrap().1;
    let read = |text: &str| PublishedKeys::parse(server_name!("example.org"), text.as_bytes(), NOW);
    let original = read(&intact).unwrap();
    let make = |random: &mut StdRng| mutations::bytes(random, &intact, &JSON_PIECES);
    each_seed(MUTATIONS, make, |text| match read(text) {
        Ok(keys) => {
            assert_same(&keys, &original);
            true
        }
        Err(PublishedKeysError::TooMany) => panic!("there are two keys"),
        Err(_) => false,
    });
}
