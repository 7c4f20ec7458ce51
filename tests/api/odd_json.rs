//! JSON that some client cannot parse, in every place from which it would be passed on. It is refused on arrival, so
//! that nobody's `/sync` breaks.

use http::Method;
use serde_json::json;

use crate::harness::{Client, TestServer, v3};

/// Placeholder for [`odd`] JSON.
const ODD: &str = "ODD";

/// Lists JSON that the grammar allows, each with a description of its oddity.
fn odd() -> Vec<(&'static str, String)> {
    let nested = |open: &str, close: &str| open.repeat(30_000) + "1" + &close.repeat(30_000);
    vec![
        ("deep objects", nested("{\"a\":", "}")),
        ("deep arrays", nested("[", "]")),
        ("too large a number", "{\"a\":1e999999}".to_owned()),
        ("a number of a thousand digits", format!("{{\"a\":{}}}", "1".repeat(1_001))),
        ("half a surrogate pair", r#"{"a":"\ud800"}"#.to_owned()),
        ("half a surrogate pair in a key", r#"{"\udc00":1}"#.to_owned()),
        ("a key twice", r#"{"a":1,"a":2}"#.to_owned()),
        ("a key twice, spelled differently", r#"{"a":1,"\u0061":2}"#.to_owned()),
    ]
}

/// Lists requests whose bodies contain [`ODD`].
fn requests(me: &Client, victim: &Client, room: &str, event: &str, version: &str) -> Vec<(Method, String, String)> {
    let (user, device) = (me.user_id.as_str(), me.device_id.as_str());
    let put = |path: String, body: serde_json::Value| (Method::PUT, path, body.to_string());
    let post = |path: String, body: serde_json::Value| (Method::POST, path, body.to_string());
    let signing = |usage: &str| json!({ "user_id": user, "usage": [usage], "keys": {}, "more": ODD });
    let session = json!({
        "first_message_index": 0, "forwarded_count": 0, "is_verified": false, "session_data": { "more": ODD },
    });
    let backup = |below: &[&str]| {
        let below: String = below.iter().map(|segment| format!("/{}", segment.replace('!', "%21"))).collect();
        v3(["room_keys", "keys"]) + &below + "?version=" + version
    };
    vec![
        put(v3(["sendToDevice", "m.test", "1"]), json!({ "messages": { &victim.user_id: { "*": { "a": ODD } } } })),
        put(v3(["sendToDevice", "m.test", "2"]), json!({ "messages": { &victim.user_id: { "*": ODD } } })),
        put(v3(["user", user, "account_data", "m.test"]), json!({ "more": ODD })),
        (Method::PUT, v3(["user", user, "account_data", "m.test"]), "\"ODD\"".to_owned()),
        put(v3(["user", user, "rooms", room, "account_data", "m.test"]), json!({ "more": ODD })),
        put(v3(["user", user, "rooms", room, "tags", "u.test"]), json!({ "order": 0.5, "more": ODD })),
        put(v3(["profile", user, "org.example.field"]), json!({ "org.example.field": ODD })),
        put(v3(["profile", user, "displayname"]), json!({ "displayname": "a", "more": ODD })),
        put(v3(["presence", user, "status"]), json!({ "presence": "online", "more": ODD })),
        post(v3(["rooms", room, "receipt", "m.read", event]), json!({ "more": ODD })),
        post(v3(["rooms", room, "read_markers"]), json!({ "m.read": event, "more": ODD })),
        put(v3(["rooms", room, "typing", user]), json!({ "typing": false, "more": ODD })),
        put(v3(["rooms", room, "send", "m.room.message", "1"]), json!({ "body": "x", "more": ODD })),
        put(v3(["rooms", room, "state", "org.example", ""]), json!({ "more": ODD })),
        post(v3(["createRoom"]), json!({ "creation_content": { "more": ODD } })),
        post(v3(["user", user, "filter"]), json!({ "more": ODD })),
        put(v3(["pushrules", "global", "override", "x"]), json!({ "actions": [{ "more": ODD }], "conditions": [] })),
        put(v3(["devices", device]), json!({ "display_name": "x", "more": ODD })),
        post(
            v3(["keys", "upload"]),
            json!({ "device_keys": { "user_id": user, "device_id": device, "algorithms": [], "keys": {}, "more": ODD } }),
        ),
        post(
            v3(["keys", "upload"]),
            json!({ "one_time_keys": { "signed_curve25519:A": { "key": "a", "more": ODD } } }),
        ),
        post(
            v3(["keys", "upload"]),
            json!({ "fallback_keys": { "signed_curve25519:A": { "key": "a", "more": ODD } } }),
        ),
        post(v3(["keys", "device_signing", "upload"]), json!({ "master_key": signing("master") })),
        post(v3(["keys", "signatures", "upload"]), json!({ user: { device: { "more": ODD } } })),
        post(v3(["room_keys", "version"]), json!({ "algorithm": "m.test", "auth_data": { "more": ODD } })),
        put(v3(["room_keys", "version", version]), json!({ "algorithm": "m.test", "auth_data": { "more": ODD } })),
        put(backup(&[]), json!({ "rooms": { room: { "sessions": { "s": session } } } })),
        put(backup(&[room]), json!({ "sessions": { "s": session } })),
        put(backup(&[room, "s"]), session.clone()),
    ]
}

both_engines! {
    async fn what_some_client_cannot_parse_is_refused_wherever_it_would_be_passed_on(server: TestServer) {
        let (alice, victim) = (server.register("alice").await, server.register("victim").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        victim.join(&room).await;
        let event = alice.send_text(&room, "0", "hello").await;
        let backup = json!({ "algorithm": "m.test", "auth_data": {} });
        let backup = alice.post(&v3(["room_keys", "version"]), backup).await.ok();
        let version = backup["version"].as_str().expect("a checked answer has it");
        let before = victim.sync(None).await;
        for (method, path, body) in requests(&alice, &victim, &room, &event, version) {
            for (what, odd) in odd() {
                let body = body.replace("\"ODD\"", &odd);
                let answer = alice.request(method.clone(), &path, Some(body)).await;
                let errcode = &answer.json["errcode"];
                assert_eq!((answer.status.as_u16(), errcode), (400, &json!("M_BAD_JSON")), "{what}: {method} {path}");
            }
        }
        // None of it has reached anyone. The harness parses each answer as strictly as serde_json does.
        let since = before["next_batch"].as_str().expect("a token");
        let after = victim.sync(Some(since)).await;
        assert_eq!((&after["to_device"], &after["rooms"]["join"]), (&json!(null), &json!(null)), "{after}");
        alice.sync(None).await;
    }

    async fn a_body_that_is_no_object_is_refused(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let event = alice.send_text(&room, "0", "hello").await;
        let user = alice.user_id.as_str();
        let rule = v3(["pushrules", "global", "override", ".m.rule.master", "enabled"]);
        let enabled = alice.get(&rule).await.ok();
        for (method, path, array) in [
            (Method::PUT, v3(["user", user, "rooms", &room, "tags", "u.x"]), "[0.5]"),
            (Method::POST, v3(["user", user, "filter"]), "[[]]"),
            (Method::PUT, rule.clone(), "[true]"),
            (Method::POST, v3(["rooms", &room, "receipt", "m.read", &event]), "[]"),
            (Method::POST, v3(["createRoom"]), "[]"),
        ] {
            for body in [array, " \n[]", "null", "true", "7", "\"text\""] {
                let answer = alice.request(method.clone(), &path, Some(body.to_owned())).await;
                let errcode = &answer.json["errcode"];
                assert_eq!((answer.status.as_u16(), errcode), (400, &json!("M_BAD_JSON")), "{body}: {method} {path}");
            }
            alice.request(method, &path, Some("[".to_owned())).await.error(400, "M_NOT_JSON");
        }
        let tags = alice.get(&v3(["user", user, "rooms", &room, "tags"])).await.ok();
        assert_eq!(tags, json!({ "tags": {} }));
        assert_eq!(alice.get(&rule).await.ok(), enabled);
        assert_eq!(alice.get(&v3(["joined_rooms"])).await.ok()["joined_rooms"], json!([room]));
        // White space before an object is allowed, and an endpoint without a body ignores it.
        alice.request(Method::POST, &v3(["createRoom"]), Some(" \n{}".to_owned())).await.ok();
        alice.request(Method::POST, &v3(["logout"]), Some("[]".to_owned())).await.ok();
    }

    async fn what_is_unusual_and_can_be_read_arrives_as_it_was_written(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let content = r#"{"a":1.5,"b":[-0.0,1E10,{"a":{"a":[[[]]]}}],"c":"\ud83d\ude00\u0000","":null}"#;
        let body = format!(r#"{{"messages":{{"{}":{{"{}":{content}}}}}}}"#, bob.user_id, bob.device_id);
        assert_eq!(alice.request(Method::PUT, &v3(["sendToDevice", "m.test", "1"]), Some(body)).await.status, 200);
        let news = bob.sync(None).await;
        let expected: serde_json::Value = serde_json::from_str(content).expect("the test writes JSON");
        assert_eq!(news["to_device"]["events"][0]["content"], expected);
    }
}
