use ruma::{device_id, user_id};
use serde_json::{Value, json};

use super::*;

const KEY: &str = "zKbLg+NrIjpnagy+pIY6uPL4ZwEG2v+8F9lmgsnlZzs";

fn raw<T>(value: &Value) -> Raw<T> {
    Raw::from_json_string(value.to_string()).expect("a value is JSON")
}

fn check(device_keys: Option<Value>, one_time_keys: &[(&str, Value)]) -> Result<Upload, InvalidKeys> {
    let one_time_keys = one_time_keys
        .iter()
        .map(|(id, key)| (OwnedOneTimeKeyId::try_from(*id).expect("the tests use IDs that ruma takes"), raw(key)))
        .collect();
    let own = (user_id!("@alice:example.org"), device_id!("DEV"));
    Upload::check(own, device_keys.map(|keys| raw(&keys)).as_ref(), &one_time_keys, &BTreeMap::new())
}

fn device_keys() -> Value {
    json!({
        "user_id": "@alice:example.org",
        "device_id": "DEV",
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { "curve25519:DEV": KEY, "ed25519:DEV": KEY },
        "signatures": { "@alice:example.org": { "ed25519:DEV": "c2ln" } },
    })
}

fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut keys = device_keys();
    change(&mut keys);
    keys
}

#[test]
fn good_device_keys_are_taken_without_what_the_server_says() {
    let keys = changed(|keys| {
        keys["unsigned"] = json!({ "device_display_name": "forged" });
        keys["signatures"]["@mallory:example.org"] = json!({ "ed25519:X": "c2ln" });
    });
    let upload = check(Some(keys), &[]).expect("they are good");
    let stored: Value = serde_json::from_str(&upload.device_keys.expect("they were uploaded")).expect("JSON");
    assert_eq!(stored, device_keys());
}

#[test]
fn bad_device_keys_are_refused() {
    let refused = [
        changed(|keys| keys["user_id"] = json!("@bob:example.org")),
        changed(|keys| keys["device_id"] = json!("OTHER")),
        changed(|keys| keys["device_id"] = Value::Null),
        changed(|keys| keys["algorithms"] = json!({})),
        changed(|keys| keys["keys"] = json!([])),
        changed(|keys| keys["keys"] = json!({ "ed25519:DEV": 7 })),
        changed(|keys| keys["keys"] = json!({ "ed25519:OTHER": KEY })),
        changed(|keys| keys["keys"] = json!({ "ed25519:DEV": "c2hvcnQ" })),
        changed(|keys| keys["signatures"] = json!({ "@alice:example.org": "text" })),
        changed(|keys| keys["signatures"] = json!({ "@alice:example.org": { "ed25519:DEV": {} } })),
        changed(|keys| keys["extra"] = json!(0.5)),
        changed(|keys| keys["extra"] = json!("x".repeat(MAX_DEVICE_KEYS_BYTES))),
        json!("text"),
        json!([]),
    ];
    for keys in refused {
        assert!(check(Some(keys.clone()), &[]).is_err(), "{keys}");
    }
}

#[test]
fn one_time_keys_have_their_shape() {
    let signed = json!({ "key": KEY, "signatures": { "@alice:example.org": { "ed25519:DEV": "c2ln" } } });
    let taken = [("signed_curve25519:AAAAAQ", signed.clone()), ("curve25519:AAAAAQ", json!(KEY))];
    for (id, key) in taken {
        assert!(check(None, &[(id, key.clone())]).is_ok(), "{id} {key}");
    }
    let refused = [
        ("signed_curve25519:AAAAAQ", json!(KEY)),
        ("signed_curve25519:AAAAAQ", json!({ "key": 7, "signatures": {} })),
        ("signed_curve25519:AAAAAQ", json!({ "signatures": {} })),
        ("signed_curve25519:AAAAAQ", json!({ "key": KEY, "signatures": [] })),
        ("signed_curve25519:AAAAAQ", Value::Null),
        ("curve25519:AAAAAQ", json!(7)),
        ("curve25519:AAAAAQ", json!("x".repeat(MAX_KEY_BYTES))),
    ];
    for (id, key) in refused {
        assert!(check(None, &[(id, key.clone())]).is_err(), "{id} {key}");
    }
}

#[test]
fn a_key_stays_the_same_key_under_another_id_and_signature() {
    let digest_of = |id: &str, key: Value| check(None, &[(id, key)]).expect("it is good").one_time_keys[0].digest;
    let key =
        |signature: &str| json!({ "key": KEY, "signatures": { "@alice:example.org": { "ed25519:DEV": signature } } });
    assert_eq!(digest_of("signed_curve25519:A", key("c2ln")), digest_of("signed_curve25519:B", key("b3RoZXI")));
    assert_ne!(digest_of("signed_curve25519:A", key("c2ln")), digest_of("curve25519:A", json!(KEY)));
}
