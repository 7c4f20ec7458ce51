//! Step 1: the form. One change makes an event that must be dropped, or one that must not.

use serde_json::Value as JsonValue;

use super::*;
use crate::build::tests::NOT_CANONICAL;

/// Reads a message in which something is changed, in every version, and compares the error.
fn refused(change: impl Fn(&mut JsonValue), expected: &str) {
    for room in TestRoom::of_every_version() {
        let mut event: JsonValue = serde_json::from_str(&message(&room).json).unwrap();
        change(&mut event);
        let error = read_in(&room, event.to_string()).unwrap_err().to_string();
        assert_eq!(error, expected, "{} {}", room.version, event.to_string().chars().take(300).collect::<String>());
    }
}

/// A message in which something is changed, hashed and signed by its server.
fn changed(room: &TestRoom, change: impl FnOnce(&mut CanonicalJsonObject)) -> String {
    signed_by(room, &[&room.signer], &message(room), change)
}

#[test]
fn every_field_must_be_there() {
    for field in ["type", "sender", "room_id", "content", "hashes", "signatures", "origin_server_ts", "depth"]
        .into_iter()
        .chain(["prev_events", "auth_events"])
    {
        refused(|event| drop(event.as_object_mut().unwrap().remove(field)), &format!("`{field}` is missing"));
    }
    refused(|event| event["hashes"] = json!({ "sha512": "x" }), "`sha256` is missing");
}

#[test]
fn a_field_of_another_type_is_refused() {
    let others = [json!(null), json!(true), json!(1), json!("x"), json!(["x"]), json!({ "x": 1 })];
    for (fields, expected) in [
        (&["type", "sender", "room_id", "state_key"][..], "a string"),
        (&["content", "hashes", "signatures"], "an object"),
        (&["origin_server_ts", "depth"], "an integer"),
        (&["prev_events", "auth_events"], "a list"),
    ] {
        for field in fields {
            for value in &others {
                let fits = match expected {
                    "a string" => value.is_string(),
                    "an object" => value.is_object(),
                    "an integer" => value.is_i64(),
                    _ => value.is_array(),
                };
                if !fits {
                    refused(|event| event[field] = value.clone(), &format!("`{field}` is not {expected}"));
                }
            }
        }
    }
    refused(|event| event["hashes"] = json!({ "sha256": 1 }), "`sha256` is not a string");
}

#[test]
fn a_sender_must_be_a_user() {
    for sender in ["", "alice", "@alice", "@alice:", "#alice:example.org", "@al\0ice:example.org", "@a:ex ample.org"] {
        refused(|event| event["sender"] = sender.into(), "`sender` is not a user ID");
    }
}

#[test]
fn an_event_of_another_room_is_refused() {
    for room_id in ["", "!other:example.org", "!FIXED:example.org", "!fixed:example.org ", "#fixed:example.org"] {
        refused(|event| event["room_id"] = room_id.into(), "the event belongs to another room");
    }
}

#[test]
fn depths_are_integers_that_canonical_json_can_say() {
    refused(|event| event["depth"] = (-1).into(), "`depth` is negative");
    for depth in [1_u64 << 53, i64::MAX.unsigned_abs(), u64::MAX] {
        refused(|event| event["depth"] = depth.into(), "the event is not canonical JSON");
    }
    for room in TestRoom::of_every_version() {
        for depth in [0, 9_007_199_254_740_991] {
            let json = changed(&room, |event| drop(event.insert("depth".to_owned(), depth_value(depth))));
            assert_eq!(accept(&room, json).pdu().depth, depth);
        }
    }
}

fn depth_value(depth: u64) -> ruma::CanonicalJsonValue {
    ruma::UInt::new(depth).unwrap().into()
}

#[test]
fn a_time_may_be_any_integer_of_canonical_json() {
    for room in TestRoom::of_every_version() {
        for time in [ruma::Int::MIN, ruma::int!(-1), ruma::int!(0), ruma::Int::MAX] {
            let json = changed(&room, |event| drop(event.insert("origin_server_ts".to_owned(), time.into())));
            let unverified = read_in(&room, json.clone()).unwrap();
            assert_eq!(unverified.ts(), i64::from(time));
            let event = accept(&room, json.clone());
            assert_eq!((event.pdu().origin_server_ts, &*event.pdu().json), (i64::from(time), &*json));
        }
    }
}

#[test]
fn lists_of_events_hold_a_few_ids() {
    for (field, limit) in [("prev_events", 20), ("auth_events", 10)] {
        let many = |count: usize| (0..count).map(|n| format!("${n}")).collect::<Vec<_>>();
        let expected = format!("`{field}` has {} entries, more than {limit}", limit + 1);
        refused(|event| event[field] = many(limit + 1).into(), &expected);
        for room in TestRoom::of_every_version() {
            let mut event: JsonValue = serde_json::from_str(&message(&room).json).unwrap();
            event[field] = many(limit).into();
            read_in(&room, event.to_string()).unwrap();
        }
        for id in [
            json!(1),
            json!(null),
            json!(""),
            json!("x"),
            json!("$a\0"),
            json!("$a:b c"),
            json!(format!("${}", "x".repeat(255))),
            // The form of room versions 1 and 2.
            json!(["$a", { "sha256": "x" }]),
        ] {
            let expected = format!("`{field}` holds something that is not the ID of an event");
            refused(|event| event[field] = json!(["$good", id]), &expected);
        }
    }
}

#[test]
fn fields_are_limited_to_255_characters_and_from_version_11_on_to_255_bytes() {
    let many = |character: &str, count: usize| character.repeat(count);
    let user = |character: &str, count: usize| format!("@{}:example.org", character.repeat(count - 13));
    for room in TestRoom::of_every_version() {
        let is_strict = [RoomVersionId::V11, RoomVersionId::V12].contains(&room.version);
        let check = |field: &str, text: String, expected: Result<bool, ()>| {
            let size_bytes = text.len();
            let json = changed(&room, |event| drop(event.insert(field.to_owned(), text.into())));
            match (read_in(&room, json), expected) {
                (Ok(event), Ok(ends_rejected)) => {
                    let event = verify_with(event, &[&room.signer]).unwrap();
                    assert_eq!(event.ends_rejected(), ends_rejected, "{} {field}", room.version);
                }
                (Err(error), Err(())) => {
                    assert_eq!(error.to_string(), format!("`{field}` has {size_bytes} bytes, more than 255"));
                }
                (result, _) => panic!("{} {field} {expected:?}: {result:?}", room.version),
            }
        };
        let lenient = if is_strict { Err(()) } else { Ok(true) };
        for field in ["type", "state_key"] {
            check(field, many("x", 255), Ok(false));
            check(field, many("x", 256), Err(()));
            check(field, format!("{}é", many("x", 254)), lenient);
            check(field, many("\u{1f600}", 255), lenient);
            check(field, many("é", 256), Err(()));
        }
        check("sender", user("x", 255), Ok(false));
        check("sender", user("x", 256), Err(()));
        check("sender", user("é", 255), lenient);
        check("sender", user("é", 256), Err(()));
    }
}

#[test]
fn an_event_may_have_65536_bytes_without_what_is_left_out() {
    for room in TestRoom::of_every_version() {
        let with_body = |length: usize| {
            changed(&room, |event| {
                let content = CanonicalJsonObject::from([("body".to_owned(), "x".repeat(length).into())]);
                event.insert("content".to_owned(), content.into());
            })
        };
        let rest = with_body(0).len();
        let greatest = with_body(65_536 - rest);
        assert_eq!(greatest.len(), 65_536);
        assert_eq!(*accept(&room, &*greatest).pdu().json, *greatest);

        let unsigned = format!("{{\"unsigned\":{{\"x\":\"{}\"}},{}", "x".repeat(1 << 20), &greatest[1..]);
        assert_eq!(*accept(&room, unsigned).pdu().json, *greatest);
        // As ASCII, a server may write more than twice as many bytes.
        let escaped = greatest.replace("xxx", "\\u0078\\u0078\\u0078");
        assert_eq!(*accept(&room, escaped).pdu().json, *greatest);

        for json in [greatest.replacen("xx", "xxx", 1), greatest.replacen("xx", &"x".repeat(1 << 20), 1)] {
            let error = read_in(&room, json).unwrap_err();
            assert!(matches!(error, FormatError::TooLarge { limit_bytes: 65_536, .. }), "{error}");
        }
    }
}

#[test]
fn unsigned_and_event_id_are_left_out_whatever_they_hold() {
    for room in TestRoom::of_every_version() {
        let event = message(&room);
        for left_out in [
            r#""unsigned":{"age":4612.5,"redacted_because":{}}"#.to_owned(),
            r#""unsigned":null,"event_id":"$forged""#.to_owned(),
            r#""event_id":{"not":["an","ID",1e999]}"#.to_owned(),
            format!(r#""unsigned":{}{}"#, "[".repeat(10_000), "]".repeat(10_000)),
        ] {
            let accepted = accept(&room, format!("{{{left_out},{}", &event.json[1..]));
            assert_eq!((&accepted.pdu().event_id, &accepted.pdu().json), (&event.event_id, &event.json), "{left_out}");
        }
    }
}

#[test]
fn json_that_is_not_canonical_is_made_canonical_or_refused() {
    for room in TestRoom::of_every_version() {
        let event = message(&room);
        let with_content = |content: &str| event.json.replace(r#"{"body":"hello"}"#, content);
        for content in [
            r#"{ "body" : "hello" }"#,
            r#"{"body":"\u0068ello"}"#,
            // The last one of two equal names counts.
            r#"{"body":1.5e0,"body":"hello"}"#.replace("1.5e0", "1").as_str(),
        ] {
            let accepted = accept(&room, with_content(content));
            assert_eq!((accepted.form(), &accepted.pdu().json), (Form::Whole, &event.json), "{content}");
        }
        let twice = format!(r#"{{"type":"m.room.create","depth":-5,{}"#, &event.json[1..]);
        assert_eq!(accept(&room, twice).pdu().json, event.json);

        for content in NOT_CANONICAL.into_iter().chain([r#"{"a":1e999}"#]) {
            let error = read_in(&room, with_content(content)).unwrap_err();
            assert!(matches!(error, FormatError::NotCanonical(_)), "{content}: {error}");
        }
        for json in ["[]", "1", "null", r#""{}""#, "true"] {
            assert!(matches!(read_in(&room, json), Err(FormatError::NotAnObject)), "{json}");
        }
    }
}

#[test]
fn an_event_may_be_as_deep_as_ours_and_no_deeper() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for room in TestRoom::of_every_version() {
        let json = message(&room).json;
        let in_content = |levels: usize| json.replace(r#""hello""#, &nested(levels - 1));
        let in_another_field = |levels: usize| format!(r#"{{"other":{},{}"#, nested(levels), &json[1..]);
        for json in [in_content(100), in_another_field(100)] {
            let event = verify_with(read_in(&room, json).unwrap(), &[&room.signer]).unwrap();
            crate::redact(&room.rules, &event.pdu().json, None).unwrap();
        }
        for levels in [101, 127, 128, 20_000] {
            for json in [in_content(levels), in_another_field(levels)] {
                assert!(matches!(read_in(&room, json), Err(FormatError::TooDeep)), "{levels}");
            }
        }
    }
}

#[test]
fn text_may_hold_any_character_and_other_fields_anything() {
    for room in TestRoom::of_every_version() {
        let json = changed(&room, |event| {
            event.insert("state_key".to_owned(), "a\0b\u{10FFFE}".into());
            event.insert("type".to_owned(), "\u{1}\"\\é\0".into());
            event.insert("origin".to_owned(), "example.org".into());
            event.insert("prev_state".to_owned(), ruma::CanonicalJsonValue::Null);
            event.insert("org.example.new\0".to_owned(), true.into());
        });
        let event = accept(&room, json.clone());
        assert_eq!((event.form(), &*event.pdu().json), (Form::Whole, &*json));
        assert_eq!(event.pdu().state_key.as_deref(), Some("a\0b\u{10FFFE}"));
    }
}

#[test]
fn from_version_12_the_room_is_the_hash_of_its_create_event() {
    for room in TestRoom::of_every_version() {
        let create = &room.state[&("m.room.create".to_owned(), String::new())];
        let from_12 = room.version == RoomVersionId::V12;
        let named = signed_by(&room, &[&room.signer], create, |event| {
            event.insert("room_id".to_owned(), room.room_id.as_str().into());
        });
        let another = signed_by(&room, &[&room.signer], create, |event| {
            event.insert("origin_server_ts".to_owned(), ruma::int!(5).into());
        });
        let with_create = changed(&room, |event| {
            event.insert("auth_events".to_owned(), vec![create.event_id.as_str().into()].into());
        });
        if from_12 {
            assert!(matches!(read_in(&room, named), Err(FormatError::CreateNamesRoom)));
            assert!(matches!(read_in(&room, another), Err(FormatError::OtherRoom)));
            assert!(matches!(read_in(&room, with_create), Err(FormatError::CreateInAuthEvents)));
            assert_eq!(accept(&room, &*create.json).pdu().room_id, room.room_id);
        } else {
            // The auth rules refuse a second create event.
            for json in [named, another, with_create] {
                accept(&room, json);
            }
        }
    }
}
