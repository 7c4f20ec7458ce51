//! Events after advisories about other servers: each file of the corpus, and its result in a room.
//!
//! Each file is named after an advisory in which an event alone did the harm, as far as bytes can. Others need a room, a
//! request or a client: their tests are where those are.

use ruma::{RoomVersionId, ServerName, ServerSigningKeyId, room_id};
use serde_json::value::RawValue;

use super::*;
use crate::{
    PublicKey,
    broken_keys::tests::{leaked, weak},
    received::{Ed25519, Form, Signatures, read},
    rules,
};

/// The result of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Result {
    /// Step 1 or 3 ends with this error.
    Dropped(&'static str),
    /// Step 2 ends with this error.
    Unproved(&'static str),
    /// Step 3 leaves a redacted event.
    Redacted,
    Accepted,
    /// The form passes, but others store such an event as a rejected one.
    Rejected,
}

use self::Result::{Accepted, Dropped, Redacted, Rejected, Unproved};

const NOT_CANONICAL: Result = Dropped("the event is not canonical JSON");
const OTHER_ROOM: Result = Dropped("the event belongs to another room");
const NOT_SIGNED: Result = Unproved("example.org has not signed the event");
const WRONG: Result = Unproved("the signature of example.org with the key ed25519:now is wrong");

/// The room from version 12 on: the hash of `CVE-2025-49090-create.json`.
const ROOM_12: &str = "!37iwD-DyT01UTC3QaO2Ot9nDS1G-rmVcGz0DYMPzG6c";

/// File, room version and result.
const EVENTS: [(&str, RoomVersionId, Result); 53] = [
    // FORGE.
    ("CVE-2018-16515-signature-of-another-event", RoomVersionId::V11, WRONG),
    ("CVE-2019-18835-join-signed-by-another-server", RoomVersionId::V11, NOT_SIGNED),
    ("CVE-2019-18835-leave-without-signature", RoomVersionId::V11, NOT_SIGNED),
    ("CVE-2022-39200-content-changed", RoomVersionId::V11, Redacted),
    ("CVE-2022-39200-depth-changed", RoomVersionId::V11, WRONG),
    ("CVE-2022-39200-intact", RoomVersionId::V11, Accepted),
    ("CVE-2022-39200-no-hash", RoomVersionId::V11, Dropped("`hashes` is missing")),
    ("CVE-2022-39200-no-signature", RoomVersionId::V11, NOT_SIGNED),
    ("CVE-2022-39200-signature-of-zeros", RoomVersionId::V11, WRONG),
    ("CVE-2024-6299-old-event-with-a-retired-key", RoomVersionId::V11, Accepted),
    (
        "CVE-2024-6299-signed-with-a-retired-key",
        RoomVersionId::V11,
        Unproved("none of the keys with which example.org has signed is known and was valid then"),
    ),
    ("CVE-2025-68667-signed-by-another-server", RoomVersionId::V11, NOT_SIGNED),
    // Without its hash it is an ordinary invite of Alice's.
    ("CVE-2025-68667-third-party-invite-with-a-wrong-hash", RoomVersionId::V10, NOT_SIGNED),
    ("CVE-2026-24471-join-in-the-name-of-an-authoriser", RoomVersionId::V11, NOT_SIGNED),
    ("CVE-2026-24471-join-with-both-signatures", RoomVersionId::V11, Accepted),
    // KEY.
    (
        "CVE-2026-24044-signed-with-a-leaked-key",
        RoomVersionId::V11,
        Unproved("the signature of evil.test with the key ed25519:leaked is wrong"),
    ),
    (
        "weak-key-whose-signature-fits-every-message",
        RoomVersionId::V11,
        Unproved("the signature of evil.test with the key ed25519:weak is wrong"),
    ),
    // AUTHZ. The auth rules refuse the first one, and nothing is redacted by the next two.
    ("Synapse-5744-join-of-another-user", RoomVersionId::V11, Accepted),
    ("Synapse-5767-redaction-of-no-event", RoomVersionId::V11, Accepted),
    ("Synapse-5767-redaction-of-two-events", RoomVersionId::V11, Accepted),
    ("tuwunel-1.5.1-sender-in-capitals", RoomVersionId::V11, Unproved("EXAMPLE.ORG has not signed the event")),
    ("tuwunel-1.5.1-sender-with-a-port", RoomVersionId::V11, Unproved("example.org:8448 has not signed the event")),
    // RULES. The auth rules refuse the first one.
    ("CVE-2018-12423-power-levels-that-are-no-numbers", RoomVersionId::V11, Accepted),
    ("CVE-2025-49090-create", RoomVersionId::V12, Accepted),
    (
        "CVE-2025-49090-create-in-auth-events",
        RoomVersionId::V12,
        Dropped("`auth_events` must not hold the create event from room version 12 on"),
    ),
    (
        "CVE-2025-49090-create-names-a-room",
        RoomVersionId::V12,
        Dropped("an event that creates a room of version 12 or later must not name the room"),
    ),
    ("CVE-2025-49090-create-of-another-room", RoomVersionId::V12, OTHER_ROOM),
    ("Synapse-6501-event-of-another-room", RoomVersionId::V11, OTHER_ROOM),
    // POISON.
    ("CVE-2018-10657-depth-2-to-63", RoomVersionId::V11, NOT_CANONICAL),
    ("CVE-2018-10657-depth-with-a-thousand-digits", RoomVersionId::V11, NOT_CANONICAL),
    ("CVE-2020-26257-invite-to-another-room", RoomVersionId::V11, OTHER_ROOM),
    ("CVE-2020-26890-fraction", RoomVersionId::V11, NOT_CANONICAL),
    ("CVE-2020-26890-infinity", RoomVersionId::V11, Dropped("no JSON")),
    ("CVE-2020-26890-nan", RoomVersionId::V11, Dropped("no JSON")),
    ("CVE-2020-26890-number-beyond-every-float", RoomVersionId::V11, NOT_CANONICAL),
    ("CVE-2021-21393-type-of-256-characters", RoomVersionId::V11, Dropped("`type` has 256 bytes, more than 255")),
    ("CVE-2021-21393-type-of-256-characters", RoomVersionId::V10, Dropped("`type` has 256 bytes, more than 255")),
    ("CVE-2023-32323-invite-state-larger-than-an-event", RoomVersionId::V11, Accepted),
    ("CVE-2024-52815-invite-state-is-null", RoomVersionId::V11, Accepted),
    ("CVE-2024-52815-knock-state-is-null", RoomVersionId::V11, Accepted),
    ("CVE-2025-30355-depth-2-to-53", RoomVersionId::V11, NOT_CANONICAL),
    ("CVE-2025-30355-greatest-depth", RoomVersionId::V11, Accepted),
    ("Dendrite-3090-state-key-of-255-characters", RoomVersionId::V10, Rejected),
    (
        "Dendrite-3090-state-key-of-255-characters",
        RoomVersionId::V11,
        Dropped("`state_key` has 510 bytes, more than 255"),
    ),
    ("Synapse-8324-content-is-a-list", RoomVersionId::V11, Dropped("`content` is not an object")),
    ("Synapse-8324-half-a-surrogate-pair", RoomVersionId::V11, NOT_CANONICAL),
    ("Synapse-8324-two-depths", RoomVersionId::V11, Accepted),
    ("Synapse-8350-membership-is-a-list", RoomVersionId::V11, Accepted),
    ("Synapse-8350-state-key-is-null", RoomVersionId::V11, Dropped("`state_key` is not a string")),
    ("nested-3000-levels", RoomVersionId::V11, Dropped("a field of the event is nested more than 100 levels deep")),
    ("nul-in-type-and-state-key", RoomVersionId::V11, Accepted),
    // LEAK.
    ("Synapse-6553-forged-unsigned", RoomVersionId::V11, Accepted),
    ("tuwunel-1.9.0-transaction-id-of-another-user", RoomVersionId::V11, Accepted),
];

/// The end of the old key's validity, in milliseconds since 1970.
const OLD_KEY_ENDED: i64 = 1_600_000_000_000;

/// The key of a server at a time.
fn key_at(server: &ServerName, key_id: &ServerSigningKeyId, ts: i64) -> Option<PublicKey> {
    let [now, old, evil] = signers();
    match (server.as_str(), key_id.as_str()) {
        ("example.org", "ed25519:now") => Some(PublicKey::of(&now)),
        ("example.org", "ed25519:old") => Some(PublicKey::of(&old)).filter(|_| ts <= OLD_KEY_ENDED),
        ("evil.test", "ed25519:1") => Some(PublicKey::of(&evil)),
        ("evil.test", "ed25519:weak") => Some(weak()),
        ("evil.test", "ed25519:leaked") => Some(leaked()),
        _ => None,
    }
}

/// Real signatures, and those of the leaked key, whose private half we do not have.
struct AnyoneSigns;

impl Signatures for AnyoneSigns {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
        *key == leaked() || Ed25519.verify(key, message, signature)
    }
}

/// Compares the result of an event, and looks at what would be stored.
fn check(name: &str, version: &RoomVersionId, text: &str, expected: Result) {
    let Ok(json) = RawValue::from_string(text.to_owned()) else {
        assert_eq!(expected, Dropped("no JSON"), "{name}");
        return;
    };
    let room_id = match version {
        RoomVersionId::V12 => ROOM_12.try_into().unwrap(),
        _ => room_id!("!fixed:example.org"),
    };
    let read = read(&rules(version).unwrap(), room_id, &json);
    let unverified = match (read, expected) {
        (Err(error), Dropped(expected)) => return assert_eq!(error.to_string(), expected, "{name}"),
        (result, _) => result.unwrap_or_else(|error| panic!("{name}: {error}")),
    };
    let ts = unverified.ts();
    let verified = match (unverified.verify(&AnyoneSigns, &|server, key_id| key_at(server, key_id, ts)), expected) {
        (Err(error), Unproved(expected)) => return assert_eq!(error.to_string(), expected, "{name}"),
        (result, _) => result.unwrap_or_else(|error| panic!("{name}: {error}")),
    };
    let (pdu, form, ends_rejected) = verified.into_parts();
    let result = match (form, ends_rejected) {
        (Form::Redacted, _) => Redacted,
        (Form::Whole, true) => Rejected,
        (Form::Whole, false) => Accepted,
    };
    assert_eq!(result, expected, "{name}");
    let forbidden = ["unsigned", "event_id", "invite_room_state", "transaction_id", "forged"];
    assert!(forbidden.iter().all(|word| !pdu.json.contains(word)), "{name}: {}", pdu.json);
}

#[test]
fn each_event_has_its_result() {
    let corpus = corpus("advisory");
    for (name, version, expected) in &EVENTS {
        let file = corpus.iter().find(|(file, _)| file.strip_suffix(".json") == Some(name));
        check(name, version, &file.unwrap_or_else(|| panic!("no file {name}")).1, *expected);
    }
    for (file, _) in &corpus {
        let is_listed = EVENTS.iter().any(|(name, ..)| file.strip_suffix(".json") == Some(name));
        assert!(is_listed, "{file} has no result");
    }
}
