//! The memory of parsed requests: never more than the server reserves for them.

use std::collections::BTreeMap;

use ruma::{
    OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, api::client::to_device::send_event_to_device::v3::Messages,
    encryption::OneTimeKey, serde::Raw,
};
use sabha::{json, keys::claim::Wanted};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::allocations::{held_by, peak_of};

/// The entries of each text. With this many, the memory of the outermost object no longer matters.
const ENTRIES: usize = 2_000;

fn check<T: DeserializeOwned>(what: &str, text: &str) {
    let (parts, fits) = json::check(text);
    fits.expect("it can be passed on");
    let reserved = parts.parsed_bytes(text.len());
    let (held, parsed) = held_by(|| serde_json::from_str::<T>(text).expect("it is as the endpoint expects"));
    drop(parsed);
    assert!(held <= reserved, "{what}: {held} bytes of {}, and {reserved} were reserved", text.len());
}

fn object(entry: impl Fn(usize) -> String) -> String {
    format!("{{{}}}", (0..ENTRIES).map(entry).collect::<Vec<_>>().join(","))
}

#[test]
fn no_parsed_request_takes_more_than_is_reserved_for_it() {
    type Query = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;
    type OneTimeKeys = BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>;
    check::<Query>("users", &object(|n| format!(r#""@{n:x}:b":[]"#)));
    check::<Query>("devices", &object(|n| format!(r#""@{n:x}:b":["a","b","c","d","e","f","g","h","i"]"#)));
    check::<Messages>("messages to all", &object(|n| format!(r#""@{n:x}:b":{{"*":{{}}}}"#)));
    check::<Messages>("users without messages", &object(|n| format!(r#""@{n:x}:b":{{}}"#)));
    check::<Wanted>("claims", &object(|n| format!(r#""@{n:x}:b":{{"D":"signed_curve25519"}}"#)));
    check::<OneTimeKeys>("one-time keys", &object(|n| format!(r#""a:{n:x}":"k""#)));
    let array = |value: &str| format!("[{}]", vec![value; ENTRIES].join(","));
    for value in ["1", r#""""#, "[]", "[1]", "{}", r#"{"":0}"#, r#"{"":{"":{}}}"#, r#"{"a":"b","c":"d"}"#] {
        check::<Value>(value, &array(value));
    }
    check::<Value>("keys", &object(|n| format!(r#""{n:x}":"""#)));
}

/// A parser makes all values before the place where it fails.
#[test]
fn text_that_is_unfit_and_no_json_takes_no_more_than_is_reserved_for_it() {
    let objects = vec![r#"{"":0}"#; ENTRIES].join(",");
    for text in [format!(r#"{{"x":[{objects}],"y":1e999}} z"#), format!(r#"{{"y":"\ud800","x":[{objects}]}} z"#)] {
        let (parts, fits) = json::check(&text);
        assert!(fits.is_err());
        let reserved = parts.parsed_bytes(text.len());
        let (held, parsed) =
            peak_of(|| serde_json::from_str::<BTreeMap<String, Vec<BTreeMap<String, u8>>>>(&text).is_ok());
        assert!(!parsed && held <= reserved, "{held} bytes of {}, and {reserved} were reserved", text.len());
        let (held, parsed) = peak_of(|| serde_json::from_str::<Value>(&text).is_ok());
        assert!(!parsed && held <= reserved, "{held} bytes of {}, and {reserved} were reserved", text.len());
    }
}
