use ruma::{owned_server_name, server_name};
use serde_json::{Value, json};

use super::*;
use crate::signing::OwnKey;

const NOW: i64 = 1_700_000_000_000;

fn signer() -> ServerSigner {
    ServerSigner::generate(owned_server_name!("a.test"))
}

fn published(signer: &ServerSigner, now_ms: i64) -> Value {
    serde_json::from_str(publish(signer, now_ms).unwrap().get()).unwrap()
}

fn parse(answer: &Value) -> Result<PublishedKeys, PublishedKeysError> {
    PublishedKeys::parse(server_name!("a.test"), answer.to_string().as_bytes(), NOW)
}

/// Changes an answer and signs it again.
fn signed(signer: &ServerSigner, mut answer: Value, change: impl FnOnce(&mut Value)) -> Value {
    answer.as_object_mut().unwrap().remove("signatures");
    change(&mut answer);
    let mut object: CanonicalJsonObject = serde_json::from_value(answer).unwrap();
    signer.sign_json(&mut object).unwrap();
    serde_json::to_value(object).unwrap()
}

#[test]
fn what_we_publish_is_believed_for_a_day() {
    let signer = signer();
    let keys = parse(&published(&signer, NOW)).unwrap();
    assert_eq!(keys.current, BTreeMap::from([(signer.key_id(), PublicKey::of(&signer))]));
    assert!(keys.old.is_empty());
    assert_eq!(keys.valid_until_ms, NOW + VALID_FOR_MS);
}

#[test]
fn keys_are_valid_for_seven_days_at_most_and_may_have_ended() {
    let signer = signer();
    let check = |said_ms: i64, expected_ms: i64| {
        let answer = signed(&signer, published(&signer, NOW), |answer| answer["valid_until_ts"] = json!(said_ms));
        assert_eq!(parse(&answer).unwrap().valid_until_ms, expected_ms);
    };
    check(NOW + 10 * MAX_VALIDITY_MS, NOW + MAX_VALIDITY_MS);
    check((1 << 53) - 1, NOW + MAX_VALIDITY_MS);
    check(NOW + 1000, NOW + 1000);
    check(NOW - 1000, NOW - 1000);
    check(0, 0);
}

#[test]
fn what_is_not_shown_to_be_the_servers_is_refused() {
    let (signer, thief) = (signer(), signer());
    let good = published(&signer, NOW);
    assert!(matches!(parse(&json!({})), Err(PublishedKeysError::Malformed(_))));
    assert!(matches!(parse(&json!([])), Err(PublishedKeysError::Malformed(_))));
    let other = ServerSigner::generate(owned_server_name!("b.test"));
    assert!(matches!(parse(&published(&other, NOW)), Err(PublishedKeysError::OtherServer)));

    let mut changed = good.clone();
    changed["valid_until_ts"] = json!(NOW + 2000);
    assert!(matches!(parse(&changed), Err(PublishedKeysError::NotSigned)));
    let mut unsigned = good.clone();
    unsigned["signatures"] = json!({});
    assert!(matches!(parse(&unsigned), Err(PublishedKeysError::NotSigned)));
    // Signed with a key that is not published.
    assert!(matches!(parse(&signed(&thief, good.clone(), |_| {})), Err(PublishedKeysError::NotSigned)));

    let mut many = good;
    many["verify_keys"] = (0..=MAX_KEYS)
        .map(|n| (format!("ed25519:{n}"), json!({ "key": "AAAA" })))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert!(matches!(parse(&many), Err(PublishedKeysError::TooMany)));
}

#[test]
fn numbers_that_are_no_times_are_refused() {
    let signer = signer();
    let check = |field: &str, value: Value| {
        // The text has what canonical JSON cannot say, so it is not signed.
        let mut answer = published(&signer, NOW);
        match field {
            "expired_ts" => {
                answer["old_verify_keys"] = json!({ "ed25519:x": { "key": signer.public_key_base64(), field: value } });
            }
            _ => answer[field] = value,
        }
        assert!(matches!(parse(&answer), Err(PublishedKeysError::Malformed(_))), "{answer}");
    };
    for field in ["valid_until_ts", "expired_ts"] {
        check(field, json!(-1));
        check(field, json!(1.5));
        check(field, json!(1e300));
        check(field, json!(1_i64 << 53));
        check(field, json!("1"));
        check(field, json!(null));
    }
}

#[test]
fn a_listed_key_that_has_not_signed_is_left_out_and_other_signatures_do_not_matter() {
    let (signer, silent) = (signer(), signer());
    let long = format!("ed25519:{}", "x".repeat(MAX_KEY_ID_BYTES));
    let mut answer = signed(&signer, published(&signer, NOW), |answer| {
        answer["verify_keys"][silent.key_id().as_str()] = json!({ "key": silent.public_key_base64() });
        answer["verify_keys"]["ed25519:short"] = json!({ "key": "AAAA" });
        answer["verify_keys"]["rsa:1"] = json!({ "key": "AAAA" });
        let old = |expired_ts: i64| json!({ "key": silent.public_key_base64(), "expired_ts": expired_ts });
        answer["old_verify_keys"] =
            json!({ "ed25519:before": old(5), "ed25519:soon": old(NOW + 5), "rsa:0": old(5), long: old(5) });
    });
    answer["signatures"]["notary.test"] = json!({ "ed25519:x": "AAAA" });
    let keys = parse(&answer).unwrap();
    assert_eq!(keys.current.into_keys().collect::<Vec<_>>(), [signer.key_id()]);
    let key = PublicKey::of(&silent);
    // Nobody knows yet that a key will end.
    assert_eq!(keys.old.into_values().collect::<Vec<_>>(), [(key, 5), (key, NOW)]);
}

#[test]
fn after_a_rotation_both_keys_sign_for_a_while_and_then_the_old_one_is_an_old_one() {
    let signer = signer();
    let first = signer.current();
    let before = parse(&published(&signer, NOW)).unwrap();
    signer.rotate(OwnKey::generate(), NOW + 1000);
    let second = signer.current();

    let meanwhile = parse(&published(&signer, NOW + 999)).unwrap();
    assert_eq!(meanwhile.current.len(), 2);
    assert_eq!(meanwhile.current[first.key_id()], before.current[first.key_id()]);
    assert_eq!(meanwhile.current[second.key_id()], second.public_key());
    assert!(meanwhile.old.is_empty());
    assert_eq!(meanwhile.valid_until_ms, NOW + 999 + VALID_FOR_AFTER_ROTATION_MS);

    let answer = published(&signer, NOW + 1000);
    let after = PublishedKeys::parse(server_name!("a.test"), answer.to_string().as_bytes(), NOW + 1000).unwrap();
    assert_eq!(after.current.into_keys().collect::<Vec<_>>(), [second.key_id()]);
    let old = BTreeMap::from([(first.key_id().to_owned(), (first.public_key(), NOW + 1000))]);
    assert_eq!(after.old, old);

    // More rotations within that time: the oldest keys give way.
    signer.rotate(OwnKey::generate(), NOW + 1500);
    let again = parse(&published(&signer, NOW + 500)).unwrap();
    assert_eq!((again.current.len(), again.old.len()), (3, 0));
    for _ in 0..20 {
        signer.rotate(OwnKey::generate(), NOW + 1500);
    }
    let again = parse(&published(&signer, NOW + 500)).unwrap();
    assert_eq!((again.current.len(), again.old.len()), (5, 18));
    assert!(again.old.contains_key(first.key_id()) && again.old.contains_key(second.key_id()));
}

#[test]
fn a_notarys_signature_is_found_and_others_in_its_name_are_not() {
    let (signer, notary) = (signer(), ServerSigner::generate(owned_server_name!("notary.test")));
    let mut answer = published(&signer, NOW);
    answer["signatures"]["notary.test"] = json!({ "ed25519:forged": "AAAA" });
    let keys = parse(&answer).unwrap();
    let (name, key_id, key) = (notary.server_name(), notary.key_id(), PublicKey::of(&notary));
    assert!(!keys.is_signed_by(name, &key_id, key));

    let countersigned = countersign(&notary, &keys.to_json()).unwrap();
    let keys = PublishedKeys::parse(server_name!("a.test"), countersigned.get().as_bytes(), NOW).unwrap();
    assert_eq!(keys.signers(name), std::slice::from_ref(&key_id));
    assert!(keys.is_signed_by(name, &key_id, key));
    assert!(!keys.is_signed_by(name, &key_id, PublicKey::of(&signer)));
    assert!(!keys.is_signed_by(server_name!("a.test"), &key_id, key));
    assert_eq!(keys.signers(server_name!("nobody.test")), Vec::<OwnedServerSigningKeyId>::new());
    assert!(countersign(&notary, "[]").is_err());
}
