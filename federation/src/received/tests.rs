//! Events as other servers could send them: right, wrong, and forged.

mod corpus;
mod format;
mod hash;
mod signatures;

use ruma::{CanonicalJsonObject, RoomVersionId, ServerName, ServerSigningKeyId};
use serde_json::json;

use super::*;
use crate::{
    PublicKey, ServerSigner,
    build::tests::{drafts, hash_and_sign_with_ruma},
    test_room::{TestRoom, alice, draft},
};

fn raw(json: impl Into<String>) -> Box<RawValue> {
    RawValue::from_string(json.into()).unwrap()
}

fn object(json: &str) -> CanonicalJsonObject {
    serde_json::from_str(json).unwrap()
}

/// Reads an event as one of the room.
fn read_in(room: &TestRoom, json: impl Into<String>) -> Result<Unverified, FormatError> {
    read(&room.rules, &room.room_id, &raw(json))
}

/// Verifies an event, when only the keys of these servers are known.
fn verify_with(event: Unverified, signers: &[&ServerSigner]) -> Result<Verified, SignatureError> {
    let key = |server: &ServerName, key_id: &ServerSigningKeyId| {
        let signer = signers.iter().find(|signer| signer.server_name() == server && signer.key_id() == key_id);
        signer.map(|signer| PublicKey::of(signer))
    };
    event.verify(&Ed25519, &key)
}

/// Reads and verifies an event of the room's only server.
fn accept(room: &TestRoom, json: impl Into<String>) -> Verified {
    verify_with(read_in(room, json).unwrap(), &[&room.signer]).unwrap()
}

/// An event in which something is changed, with the hash and the signatures that these servers would make.
fn signed_by(
    room: &TestRoom,
    signers: &[&ServerSigner],
    event: &Pdu,
    change: impl FnOnce(&mut CanonicalJsonObject),
) -> String {
    let mut event = object(&event.json);
    change(&mut event);
    event.remove("hashes");
    event.remove("signatures");
    for signer in signers {
        hash_and_sign_with_ruma(&room.rules, signer, &mut event);
    }
    if signers.is_empty() {
        let mut signed = event.clone();
        hash_and_sign_with_ruma(&room.rules, &room.signer, &mut signed);
        event.insert("hashes".to_owned(), signed.remove("hashes").unwrap());
        event.insert("signatures".to_owned(), CanonicalJsonObject::new().into());
    }
    serde_json::to_string(&event).unwrap()
}

fn message(room: &TestRoom) -> Pdu {
    room.build(alice(), draft("m.room.message", None, json!({ "body": "hello" }))).unwrap()
}

#[test]
fn what_we_build_is_accepted_by_others_byte_for_byte() {
    for room in TestRoom::of_every_version() {
        let built = drafts().into_iter().map(|draft| room.build(alice(), draft).unwrap());
        for event in built.chain(room.state.values().map(|event| Pdu::clone(event))) {
            let (pdu, form, ends_rejected) = accept(&room, &*event.json).into_parts();
            assert_eq!((form, ends_rejected), (Form::Whole, false), "{} {event:?}", room.version);
            assert_eq!((&pdu.event_id, &pdu.json), (&event.event_id, &event.json));
            assert_eq!((&pdu.room_id, pdu.rejected), (&event.room_id, false));
        }
    }
}
