use proptest::prelude::*;
use ruma::{CanonicalJsonObject, owned_server_name, server_name};
use serde_json::json;

use super::*;
use crate::{
    published_keys::MAX_VALIDITY_MS,
    signing::{OwnKey, ServerSigner},
};

const NOW: i64 = 1_700_000_000_000;
const HOUR: i64 = 3_600_000;

/// A key whose ID is `ed25519:` and this name.
fn key(name: &str, seed: u8) -> OwnKey {
    OwnKey::from_seed(name, &[seed; 32]).unwrap()
}

/// An answer of the server at `now_ms` that these keys sign, with these old ones.
fn answer(current: &[&OwnKey], old: &[(&OwnKey, i64)], valid_until_ms: i64, now_ms: i64) -> PublishedKeys {
    let entry = |key: &OwnKey| (key.key_id().to_string(), json!({ "key": key.public_key_base64() }));
    let old = old.iter().map(|(key, expired_ms)| {
        (key.key_id().to_string(), json!({ "key": key.public_key_base64(), "expired_ts": expired_ms }))
    });
    let mut object: CanonicalJsonObject = serde_json::from_value(json!({
        "server_name": "a.test",
        "verify_keys": current.iter().map(|key| entry(key)).collect::<serde_json::Map<_, _>>(),
        "old_verify_keys": old.collect::<serde_json::Map<_, _>>(),
        "valid_until_ts": valid_until_ms,
    }))
    .unwrap();
    for key in current {
        key.sign_json(server_name!("a.test"), &mut object).unwrap();
    }
    let text = serde_json::to_string(&object).unwrap();
    PublishedKeys::parse(server_name!("a.test"), text.as_bytes(), now_ms).unwrap()
}

fn ends(known: &KnownKeys, key: &OwnKey) -> (i64, Option<i64>) {
    let known = known.get(key.key_id()).unwrap();
    assert_eq!(known.key, key.public_key());
    (known.valid_until_ms, known.expired_ms)
}

#[test]
fn a_key_is_valid_until_its_end() {
    let key = key("a", 1).public_key();
    let check = |valid_until_ms: i64, expired_ms: Option<i64>, at_ms: i64, is_valid: bool| {
        let known = KnownKey { key, valid_until_ms, expired_ms };
        assert_eq!(known.is_valid_at(at_ms), is_valid, "{known:?} at {at_ms}");
    };
    check(10, None, 9, true);
    check(10, None, 10, true);
    check(10, None, 11, false);
    // Events may be dated before 1970, and a key has no beginning.
    check(10, None, i64::MIN, true);
    check(-1, None, 0, false);
    check(i64::MAX, None, i64::MAX, true);
    // Once the server has retired the key, only that counts.
    check(10, Some(5), 5, true);
    check(10, Some(5), 6, false);
    check(10, Some(20), 11, true);
    check(10, Some(0), 1, false);
}

#[test]
fn an_old_key_is_for_old_events_only_or_for_any_where_the_time_does_not_count() {
    let (old, new) = (key("old", 1), key("new", 2));
    let mut known = KnownKeys::default();
    let learned = known.learn(&answer(&[&new], &[(&old, NOW - HOUR)], NOW + HOUR, NOW), Source::Server, NOW);
    assert_eq!(learned.changed, [new.key_id(), old.key_id()]);
    let check = |key: &OwnKey, at_ms: Option<i64>, is_valid: bool| {
        assert_eq!(known.at(key.key_id(), at_ms), is_valid.then(|| key.public_key()), "{at_ms:?}");
    };
    check(&old, Some(NOW - HOUR), true);
    check(&old, Some(NOW - HOUR + 1), false);
    check(&old, None, true);
    check(&new, Some(NOW + HOUR), true);
    check(&new, Some(NOW + HOUR + 1), false);
    check(&new, None, true);
    check(&key("other", 3), None, false);
}

#[test]
fn keys_that_are_no_longer_listed_stay_for_old_events() {
    let (one, two) = (key("one", 1), key("two", 2));
    let mut known = KnownKeys::default();
    known.learn(&answer(&[&one, &two], &[], NOW + HOUR, NOW), Source::Server, NOW);

    // Within its promised time: it ends now. Later: it has ended then.
    let mut early = known.clone();
    let learned = early.learn(&answer(&[&two], &[], NOW + 2 * HOUR, NOW + 5), Source::Server, NOW + 5);
    assert_eq!(learned.changed, [two.key_id(), one.key_id()]);
    assert_eq!(ends(&early, &one), (NOW + HOUR, Some(NOW + 5)));
    let late = NOW + 9 * HOUR;
    known.learn(&answer(&[&two], &[], late + HOUR, late), Source::Server, late);
    assert_eq!(ends(&known, &one), (NOW + HOUR, Some(NOW + HOUR)));
    assert_eq!(ends(&known, &two), (late + HOUR, None));

    // The server may say later when the key ended, and may use it again.
    known.learn(&answer(&[&two], &[(&one, NOW + 7)], late + HOUR, late), Source::Server, late);
    assert_eq!(ends(&known, &one), (NOW + HOUR, Some(NOW + 7)));
    known.learn(&answer(&[&one, &two], &[], late + HOUR, late), Source::Server, late);
    assert_eq!(ends(&known, &one), (late + HOUR, None));
}

#[test]
fn a_known_key_is_never_replaced_by_another_of_its_name() {
    let (real, forged, other) = (key("a", 1), key("a", 2), key("b", 3));
    let start = answer(&[&real], &[], NOW + HOUR, NOW);
    let check = |published: &PublishedKeys, source: Source, expected: (i64, Option<i64>)| {
        let mut known = KnownKeys::default();
        known.learn(&start, Source::Server, NOW);
        let learned = known.learn(published, source, NOW + 1);
        assert_eq!(learned.contradicted, [real.key_id()]);
        assert_eq!(ends(&known, &real), expected);
    };
    // The server does not use the known key any more.
    check(&answer(&[&forged], &[], NOW + HOUR, NOW), Source::Server, (NOW + HOUR, Some(NOW + 1)));
    check(&answer(&[&other], &[(&forged, NOW + 1)], NOW + HOUR, NOW), Source::Server, (NOW + HOUR, Some(NOW + 1)));
    // A notary may have been lied to.
    check(&answer(&[&forged], &[], NOW + HOUR, NOW), Source::Notary, (NOW + HOUR, None));
    check(&answer(&[&other], &[(&forged, 5)], NOW + HOUR, NOW), Source::Notary, (NOW + HOUR, None));
}

#[test]
fn an_answer_that_is_not_from_now_retires_nothing() {
    let (one, two) = (key("one", 1), key("two", 2));
    let check = |source: Source, valid_until_ms: i64| {
        let mut known = KnownKeys::default();
        known.learn(&answer(&[&one], &[], NOW + HOUR, NOW), Source::Server, NOW);
        let learned = known.learn(&answer(&[&two], &[(&one, NOW - HOUR)], valid_until_ms, NOW), source, NOW);
        assert_eq!(learned.changed, [two.key_id()]);
        assert_eq!(ends(&known, &one), (NOW + HOUR, None));
        assert_eq!(ends(&known, &two), (valid_until_ms, None));
    };
    check(Source::Notary, NOW + HOUR);
    check(Source::Notary, NOW - HOUR);
    check(Source::Server, NOW);
    check(Source::Server, NOW - HOUR);

    // Nor does it take a retirement back, or shorten anything. It can extend a key in use.
    let mut known = KnownKeys::default();
    known.learn(&answer(&[&two], &[(&one, 7)], NOW + HOUR, NOW), Source::Server, NOW);
    let before = known.clone();
    for (source, valid_until_ms) in [(Source::Notary, NOW + 5), (Source::Notary, 0), (Source::Server, NOW)] {
        let learned = known.learn(&answer(&[&one, &two], &[], valid_until_ms, NOW), source, NOW);
        assert_eq!((learned, &known), (Learned::default(), &before));
    }
    known.learn(&answer(&[&one, &two], &[], NOW + 2 * HOUR, NOW), Source::Notary, NOW);
    assert_eq!((ends(&known, &one), ends(&known, &two)), ((7, Some(7)), (NOW + 2 * HOUR, None)));
}

#[test]
fn the_end_of_a_key_in_use_is_never_lowered() {
    let one = key("one", 1);
    let mut known = KnownKeys::default();
    known.learn(&answer(&[&one], &[], NOW + 2 * MAX_VALIDITY_MS, NOW), Source::Server, NOW);
    assert_eq!(ends(&known, &one), (NOW + MAX_VALIDITY_MS, None));
    let learned = known.learn(&answer(&[&one], &[], NOW + 10, NOW), Source::Server, NOW);
    assert_eq!(learned, Learned::default());
    assert_eq!(ends(&known, &one), (NOW + MAX_VALIDITY_MS, None));
}

#[test]
fn a_server_cannot_have_any_number_of_keys() {
    let keys: Vec<OwnKey> = (0..MAX_KEYS + 10)
        .map(|n| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
            OwnKey::from_seed(&format!("k{n:04}"), &seed).unwrap()
        })
        .collect();
    let (unproved, proved) = keys.split_at(MAX_UNPROVED_KEYS + 5);
    let mut known = KnownKeys::default();
    for old in unproved.chunks(100) {
        let old: Vec<_> = old.iter().map(|key| (key, 5)).collect();
        known.learn(&answer(&[&keys[0]], &old, NOW + HOUR, NOW), Source::Server, NOW);
    }
    assert_eq!(known.ids().count(), MAX_UNPROVED_KEYS);
    for current in proved.chunks(10) {
        known.learn(&answer(&current.iter().collect::<Vec<_>>(), &[], NOW + HOUR, NOW), Source::Server, NOW);
    }
    assert_eq!(known.ids().count(), MAX_KEYS);
    // The first ones are still there.
    assert_eq!(known.at(keys[0].key_id(), Some(NOW)), Some(keys[0].public_key()));
}

#[test]
fn what_a_rotating_server_of_ours_publishes_keeps_all_that_it_has_signed_valid() {
    let signer = ServerSigner::generate(owned_server_name!("a.test"));
    let mut known = KnownKeys::default();
    let mut signed = Vec::new();
    for n in 0..20 {
        let now_ms = NOW + n * HOUR;
        signed.push((signer.key_id(), now_ms));
        if n % 3 == 2 {
            signer.rotate(OwnKey::generate(), now_ms + 60_000);
            signed.push((signer.key_id(), now_ms));
        }
        let text = crate::published_keys::publish(&signer, now_ms).unwrap();
        let published = PublishedKeys::parse(signer.server_name(), text.get().as_bytes(), now_ms).unwrap();
        assert_eq!(known.learn(&published, Source::Server, now_ms).contradicted, [] as [&ServerSigningKeyId; 0]);
        for (key_id, at_ms) in &signed {
            let key = known.at(key_id, Some(*at_ms));
            assert!(key.is_some() && key == signer.key_at(key_id, Some(*at_ms)), "{key_id} at {at_ms}");
        }
    }
}

/// An answer as numbers: the keys in use and the old ones, the end of the answer, and how it came.
type Plan = (Vec<u8>, Vec<(u8, i64)>, i64, bool);

fn plan() -> impl Strategy<Value = Plan> {
    let old = proptest::collection::vec((0..6_u8, -20..20_i64), 0..3);
    (proptest::collection::vec(0..6_u8, 1..3), old, -20..20_i64, any::<bool>())
}

proptest! {
    #[test]
    fn no_answers_change_the_bytes_of_a_key_or_forget_it(plans in proptest::collection::vec(plan(), 1..12)) {
        let key = |n: u8| key(&format!("k{}", n / 2), n + 1);
        let mut known = KnownKeys::default();
        for (at, (current, old, valid_until, is_server)) in (0..).zip(plans) {
            let now_ms = NOW + at * 10;
            let current: Vec<_> = current.into_iter().map(key).collect();
            let old: Vec<_> = old.into_iter().map(|(n, expired)| (key(n), now_ms + expired)).collect();
            let old: Vec<_> = old.iter().map(|(key, expired_ms)| (key, *expired_ms)).collect();
            // Two keys of one name in `current` overwrite each other in the object, and the later one signs last.
            let published = answer(&current.iter().collect::<Vec<_>>(), &old, now_ms + valid_until, now_ms);
            let before = known.clone();
            let source = if is_server { Source::Server } else { Source::Notary };
            let learned = known.learn(&published, source, now_ms);
            for key_id in before.ids() {
                let (was, is) = (before.get(key_id).unwrap(), known.get(key_id).unwrap());
                prop_assert_eq!(was.key, is.key);
                prop_assert!(was.valid_until_ms <= is.valid_until_ms);
                prop_assert!(learned.changed.iter().any(|id| id == key_id) || was == is);
            }
            for key_id in known.ids() {
                let known = known.get(key_id).unwrap();
                prop_assert!(known.valid_until_ms <= now_ms + MAX_VALIDITY_MS);
                prop_assert!(known.expired_ms.is_none_or(|expired_ms| expired_ms <= now_ms));
            }
        }
    }
}
