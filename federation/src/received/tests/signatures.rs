//! Step 2: the signatures. Whose are needed, and which count.

use ruma::{CanonicalJsonValue, OwnedServerName, UserId, owned_server_name, user_id};

use super::{super::signatures::NeededSignature, *};

fn elsewhere() -> ServerSigner {
    ServerSigner::generate(owned_server_name!("elsewhere.org"))
}

fn needed(event: &Unverified) -> Vec<&str> {
    event.needed().iter().map(|needed| needed.server().as_str()).collect()
}

/// Puts the signatures of `server` into an event.
fn with_signatures(json: &str, server: &str, change: impl FnOnce(&mut CanonicalJsonObject)) -> String {
    let mut event = object(json);
    let Some(CanonicalJsonValue::Object(all)) = event.get_mut("signatures") else { panic!("no signatures") };
    let of_server = all.entry(server.to_owned()).or_insert_with(|| CanonicalJsonObject::new().into());
    let CanonicalJsonValue::Object(of_server) = of_server else { panic!("no signatures of a server") };
    change(of_server);
    serde_json::to_string(&event).unwrap()
}

#[test]
fn the_senders_server_must_have_signed() {
    for room in TestRoom::of_every_version() {
        let (event, other) = (message(&room), elsewhere());
        let check = |json: String, expected: Option<SignatureError>| {
            let unverified = read_in(&room, json).unwrap();
            assert_eq!(needed(&unverified), ["example.org"]);
            assert_eq!(verify_with(unverified, &[&room.signer, &other]).err(), expected);
        };
        let server: OwnedServerName = room.signer.server_name().to_owned();
        let not_signed = || Some(SignatureError::NotSigned { server: server.clone() });
        check(event.json.to_string(), None);
        check(signed_by(&room, &[], &event, |_| {}), not_signed());
        check(signed_by(&room, &[&other], &event, |_| {}), not_signed());
        for of_server in [CanonicalJsonValue::Null, "x".into(), CanonicalJsonValue::Array(Vec::new())] {
            let signatures = CanonicalJsonObject::from([(server.to_string(), of_server)]);
            let mut unsigned = object(&event.json);
            unsigned.insert("signatures".to_owned(), signatures.into());
            check(serde_json::to_string(&unsigned).unwrap(), not_signed());
        }

        // Another key of the same name.
        let thief = ServerSigner::generate(server.clone());
        let thief =
            signed_by(&room, &[&thief], &event, |_| {}).replace(thief.key_id().as_str(), room.signer.key_id().as_str());
        let wrong = SignatureError::Wrong { server: server.clone(), key_id: room.signer.key_id().to_owned() };
        check(thief, Some(wrong));
    }
}

#[test]
fn without_a_key_nothing_is_settled() {
    for room in TestRoom::of_every_version() {
        let event = read_in(&room, &*message(&room).json).unwrap();
        assert!(event.needed().iter().flat_map(NeededSignature::keys).eq([room.signer.key_id()]));
        let error = verify_with(event, &[]).unwrap_err();
        assert!(matches!(error, SignatureError::NoKey { .. }) && !error.is_definite(), "{error}");
    }
}

#[test]
fn every_signature_with_a_known_key_must_be_right_and_others_do_not_matter() {
    for room in TestRoom::of_every_version() {
        let json = message(&room).json;
        let second = ServerSigner::generate(room.signer.server_name().to_owned());
        let right = |signer: &ServerSigner| {
            let message = super::super::hash::signed_bytes(&room.rules, &object(&json)).unwrap();
            CanonicalJsonValue::from(signer.current().sign_bytes(message.as_bytes()).encode())
        };
        let check = |key_id: &str, signature: CanonicalJsonValue, signers: &[&ServerSigner], is_good: bool| {
            let json = with_signatures(&json, "example.org", |of_server| {
                of_server.insert(key_id.to_owned(), signature.clone());
            });
            let result = verify_with(read_in(&room, json).unwrap(), signers);
            assert_eq!(result.is_ok(), is_good, "{key_id} {signature:?}: {result:?}");
        };
        let (first_only, both) = ([&room.signer], [&room.signer, &second]);
        let second_id = second.key_id();
        let second_id = second_id.as_str();
        check(second_id, right(&second), &both, true);
        check(second_id, right(&second), &first_only, true);
        check(second_id, right(&second), &[&second], true);
        let wrong =
            [right(&room.signer), "AAAA".into(), "*".into(), "".into(), ruma::int!(1).into(), CanonicalJsonValue::Null];
        for signature in wrong {
            check(second_id, signature.clone(), &both, false);
            check(second_id, signature.clone(), &first_only, true);
            // Another algorithm, and names that no key can have.
            for key_id in ["rsa:1", "ed25519", "", "ed25519:", "ed25519:a-b", "\0"] {
                check(key_id, signature.clone(), &both, true);
            }
        }
        // Servers whose signature is not needed.
        let other = elsewhere();
        let json = with_signatures(&json, "elsewhere.org", |of_server| {
            of_server.insert(other.key_id().to_string(), "AAAA".into());
        });
        verify_with(read_in(&room, json).unwrap(), &[&room.signer, &other]).unwrap();
    }
}

#[test]
fn more_signatures_of_a_server_than_it_can_have_keys_are_refused() {
    let room = TestRoom::new(RoomVersionId::V11);
    let json = message(&room).json;
    let with_more = |count: usize| {
        with_signatures(&json, "example.org", |of_server| {
            of_server.extend((0..count).map(|n| (format!("ed25519:{n}"), "AAAA".into())));
        })
    };
    let event = read_in(&room, with_more(15)).unwrap();
    assert_eq!(event.needed()[0].keys().len(), 16);
    verify_with(event, &[&room.signer]).unwrap();
    let error = read_in(&room, with_more(16)).unwrap_err();
    assert_eq!(error.to_string(), "`signatures` has 17 entries, more than 16");
}

fn member(room: &TestRoom, user: &UserId, content: serde_json::Value) -> Pdu {
    room.build(alice(), draft("m.room.member", Some(user.as_str()), content)).unwrap()
}

/// A member event with content that nobody could build.
fn any_member(room: &TestRoom, content: &serde_json::Value) -> String {
    let mut event = object(&message(room).json);
    event.insert("type".to_owned(), "m.room.member".into());
    event.insert("content".to_owned(), serde_json::from_value(content.clone()).unwrap());
    serde_json::to_string(&event).unwrap()
}

fn third_party_invite(room: &TestRoom) -> Pdu {
    let signed = json!({ "mxid": "@bob:elsewhere.org", "token": "t", "signatures": {} });
    let invite = json!({ "membership": "invite", "third_party_invite": { "display_name": "b", "signed": signed } });
    member(room, user_id!("@bob:elsewhere.org"), invite)
}

#[test]
fn an_invite_by_third_party_id_needs_no_signature_of_the_senders_server() {
    for room in TestRoom::of_every_version() {
        let other = elsewhere();
        let unverified = read_in(&room, signed_by(&room, &[&other], &third_party_invite(&room), |_| {})).unwrap();
        assert!(unverified.needed().is_empty());
        assert_eq!(verify_with(unverified, &[]).unwrap().form(), Form::Whole);

        // An ordinary invite does, and one whose mark is not an object is none.
        let ordinary = member(&room, user_id!("@bob:elsewhere.org"), json!({ "membership": "invite" }));
        let unverified = read_in(&room, signed_by(&room, &[&other], &ordinary, |_| {})).unwrap();
        assert_eq!(needed(&unverified), ["example.org"]);
        verify_with(unverified, &[&other]).unwrap_err();
        for mark in [json!(null), json!(true), json!("x"), json!([])] {
            let marked = json!({ "membership": "invite", "third_party_invite": mark });
            let result = read_in(&room, any_member(&room, &marked));
            assert!(matches!(result, Err(FormatError::WrongType { .. })), "{mark}: {result:?}");
        }
        // The mark counts only in an invite.
        for content in [
            json!({ "membership": "ban", "third_party_invite": {} }),
            json!({ "membership": ["invite"], "third_party_invite": {} }),
            json!({ "third_party_invite": {} }),
        ] {
            let unverified = read_in(&room, any_member(&room, &content)).unwrap();
            assert_eq!(needed(&unverified), ["example.org"], "{content}");
        }
    }
}

#[test]
fn an_invite_whose_redaction_removes_the_mark_of_a_third_party_needs_the_signature() {
    for room in TestRoom::of_every_version() {
        let other = elsewhere();
        let mark_stays = [RoomVersionId::V11, RoomVersionId::V12].contains(&room.version);
        // With a wrong content hash, the event that would be stored is an ordinary invite by Alice.
        let forged = |signers: &[&ServerSigner]| {
            let signed = signed_by(&room, signers, &third_party_invite(&room), |_| {});
            signed.replace(r#""display_name":"b""#, r#""display_name":"forged""#)
        };
        let unverified = read_in(&room, forged(&[&other])).unwrap();
        assert_eq!(
            (unverified.form(), needed(&unverified).is_empty()),
            (Form::Redacted, mark_stays),
            "{}",
            room.version
        );
        let result = verify_with(unverified, &[&room.signer, &other]);
        assert_eq!(result.is_ok(), mark_stays, "{}: {result:?}", room.version);

        let accepted = accept(&room, forged(&[&room.signer, &other]));
        assert_eq!(accepted.pdu().content.get().contains("third_party_invite"), mark_stays, "{}", room.version);
    }
}

#[test]
fn a_restricted_join_needs_the_signature_of_the_server_that_authorised_it() {
    for room in TestRoom::of_every_version() {
        let other = elsewhere();
        let carol = "@carol:elsewhere.org";
        let authorised =
            json!({ "membership": "join", "join_authorised_via_users_server": carol, "displayname": "Alice" });
        let join = member(&room, alice(), authorised.clone());
        let both = signed_by(&room, &[&room.signer, &other], &join, |_| {});
        let from_8 = ![RoomVersionId::V6, RoomVersionId::V7].contains(&room.version);
        let servers = if from_8 { vec!["elsewhere.org", "example.org"] } else { vec!["example.org"] };
        let check = |json: &str, form: Form| {
            let read = || read_in(&room, json).unwrap();
            assert_eq!((read().form(), needed(&read())), (form, servers.clone()), "{}", room.version);
            verify_with(read(), &[&room.signer, &other]).unwrap();
            assert_eq!(verify_with(read(), &[&room.signer]).is_err(), from_8);
        };
        check(&both, Form::Whole);
        // Version 8 removes the field in a redaction. The signature is needed nevertheless.
        check(&both.replace(r#""displayname":"Alice""#, r#""displayname":"Mallory""#), Form::Redacted);

        let one = read_in(&room, &*join.json).unwrap();
        let result = verify_with(one, &[&room.signer, &other]);
        assert_eq!(result.is_err(), from_8, "{}: {result:?}", room.version);
        if from_8 {
            for user in [json!(1), json!(null), json!("carol"), json!("@carol")] {
                let wrong = json!({ "membership": "join", "join_authorised_via_users_server": user });
                read_in(&room, any_member(&room, &wrong)).unwrap_err();
            }
        }

        // Only a join can be authorised.
        let leave = json!({ "membership": "leave", "join_authorised_via_users_server": carol });
        let message = room.build(alice(), draft("m.room.message", Some("k"), authorised)).unwrap();
        for event in [member(&room, alice(), leave), message] {
            assert_eq!(needed(&read_in(&room, &*event.json).unwrap()), ["example.org"]);
        }
    }
}

#[test]
fn one_wrong_signature_settles_it_whatever_keys_are_missing() {
    let room = TestRoom::new(RoomVersionId::V11);
    let other = elsewhere();
    let authorised = json!({ "membership": "join", "join_authorised_via_users_server": "@carol:elsewhere.org" });
    let join = member(&room, alice(), authorised);
    let both = signed_by(&room, &[&room.signer, &other], &join, |_| {});
    for (broken, known) in [(&room.signer, &other), (&other, &room.signer)] {
        let json = with_signatures(&both, broken.server_name().as_str(), |of_server| {
            of_server.insert(broken.key_id().to_string(), "AAAA".into());
        });
        let error = verify_with(read_in(&room, json.clone()).unwrap(), &[broken]).unwrap_err();
        assert!(error.is_definite(), "{error}");
        let error = verify_with(read_in(&room, json).unwrap(), &[known]).unwrap_err();
        assert!(!error.is_definite(), "{error}");
    }
}

#[test]
fn a_weak_key_proves_nothing() {
    // The neutral element of the curve: with it as the key and as R, and with S = 0, a signature fits every message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let key = PublicKey::from_bytes(&neutral).unwrap();
    assert!(!Ed25519.verify(&key, b"anything", &signature));
    // Bytes that are no point of the curve.
    assert!(!Ed25519.verify(&PublicKey::from_bytes(&[0xff; 32]).unwrap(), b"anything", &signature));
}
