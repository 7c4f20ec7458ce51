//! PostgreSQL stores no U+0000 in a text. Wherever a client may write one, both engines must do the same: store it (as
//! JSON, which escapes it) or refuse it.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Client, Engine, FromEngine as _, PASSWORD, TestServer, v3};

const NUL: &str = "a\0b";

/// A request with a NUL in one place.
struct Asked {
    method: Method,
    path: String,
    body: Option<Value>,
}

fn put(path: String, body: Value) -> Asked {
    Asked { method: Method::PUT, path, body: Some(body) }
}

fn post(path: String, body: Value) -> Asked {
    Asked { method: Method::POST, path, body: Some(body) }
}

fn get(path: String) -> Asked {
    Asked { method: Method::GET, path, body: None }
}

fn delete(path: String) -> Asked {
    Asked { method: Method::DELETE, path, body: Some(json!({})) }
}

/// Lists requests that store a NUL with an account.
fn of_accounts(me: &Client) -> Vec<Asked> {
    let user = me.user_id.as_str();
    let text = || json!({ "text": NUL, NUL: { "key": [NUL] } });
    let password = |user: &str| {
        let identifier = json!({ "type": "m.id.user", "user": user });
        json!({ "type": "m.login.password", "password": PASSWORD, "identifier": identifier })
    };
    let with = |mut body: Value, key: &str| {
        body[key] = json!(NUL);
        body
    };
    let dummy = json!({ "type": "m.login.dummy" });
    vec![
        put(v3(["user", user, "account_data", NUL]), json!({})),
        put(v3(["user", user, "account_data", "org.example"]), text()),
        get(v3(["user", user, "account_data", NUL])),
        post(v3(["user", user, "filter"]), json!({ "room": { "rooms": [NUL], "timeline": { "types": [NUL] } } })),
        post(v3(["user", user, "filter"]), text()),
        get(v3(["user", user, "filter", NUL])),
        put(v3(["profile", user, "displayname"]), json!({ "displayname": NUL })),
        put(v3(["profile", user, "avatar_url"]), json!({ "avatar_url": NUL })),
        put(v3(["profile", user, "avatar_url"]), json!({ "avatar_url": format!("mxc://sabha.test/{NUL}") })),
        put(v3(["profile", user, "org.example.field"]), json!({ "org.example.field": text() })),
        put(v3(["profile", user, NUL]), json!({ NUL: "x" })),
        get(v3(["profile", user, NUL])),
        get(v3(["profile", "@a\0b:sabha.test"])),
        delete(v3(["profile", user, NUL])),
        put(v3(["devices", &me.device_id]), json!({ "display_name": NUL })),
        put(v3(["devices", NUL]), json!({ "display_name": "x" })),
        get(v3(["devices", NUL])),
        put(v3(["presence", user, "status"]), json!({ "presence": "online", "status_msg": NUL })),
        put(v3(["pushrules", "global", "room", NUL]), json!({ "actions": [] })),
        put(v3(["pushrules", "global", "content", "nul"]), json!({ "actions": ["notify"], "pattern": NUL })),
        put(v3(["pushrules", "global", "content", "nul", "actions"]), json!({ "actions": [text()] })),
        get(v3(["pushrules", "global", "content", NUL])),
        post(v3(["login"]), password(NUL)),
        post(v3(["login"]), password("@a\0b:sabha.test")),
        post(v3(["login"]), with(password(user), "password")),
        post(v3(["login"]), with(password(user), "initial_device_display_name")),
        post(v3(["login"]), with(password(user), "device_id")),
        post(v3(["login"]), json!({ "type": "m.login.token", "token": NUL })),
        post(v3(["refresh"]), json!({ "refresh_token": NUL })),
        post(v3(["register"]), json!({ "username": NUL, "password": PASSWORD, "auth": dummy })),
        post(v3(["register"]), json!({ "username": "bob", "password": format!("long enough {NUL}"), "auth": dummy })),
        post(v3(["register"]), with(json!({ "username": "carol", "password": PASSWORD, "auth": dummy }), "device_id")),
        post(
            v3(["register"]),
            with(json!({ "username": "dora", "password": PASSWORD, "auth": dummy }), "initial_device_display_name"),
        ),
        get(v3(["register", "available"]) + "?username=a%00b"),
        get("/_matrix/client/v1/register/m.login.registration_token/validity?token=a%00b".to_owned()),
        post(v3(["delete_devices"]), json!({ "devices": [NUL], "auth": password(user) })),
        post(v3(["delete_devices"]), json!({ "devices": ["X"], "auth": { "session": NUL } })),
        get(v3(["sync"]) + "?since=a%00b"),
        get(v3(["sync"]) + "?timeout=0&filter=a%00b"),
        get(v3(["sync"]) + "?timeout=0&filter=%7B%22room%22%3A%7B%22rooms%22%3A%5B%22a%5Cu0000b%22%5D%7D%7D"),
    ]
}

/// Lists requests that store a NUL in rooms.
fn of_rooms(me: &Client, room: &str, event: &str) -> Vec<Asked> {
    let user = me.user_id.as_str();
    let text = || json!({ "text": NUL, NUL: { "key": [NUL] } });
    let in_room = |action: &str| v3(["rooms", room, action]);
    let new = |key: &str, value: Value| post(v3(["createRoom"]), json!({ key: value }));
    let initial = |key: &str| {
        let mut event = json!({ "type": "org.example", "state_key": "", "content": {} });
        event[key] = json!(NUL);
        new("initial_state", json!([event]))
    };
    let mut asked = vec![
        new("name", json!(NUL)),
        new("topic", json!(NUL)),
        new("room_alias_name", json!(NUL)),
        new("room_version", json!(NUL)),
        new("invite", json!(["@a\0b:sabha.test"])),
        new("creation_content", json!({ "type": NUL })),
        new("power_level_content_override", json!({ "events": { NUL: 50 } })),
        initial("type"),
        initial("state_key"),
        new("initial_state", json!([{ "type": "org.example", "content": text() }])),
        put(v3(["directory", "room", "#a\0b:sabha.test"]), json!({ "room_id": room })),
        get(v3(["directory", "room", "#a\0b:sabha.test"])),
        delete(v3(["directory", "room", "#a\0b:sabha.test"])),
        post(v3(["publicRooms"]), json!({ "filter": { "generic_search_term": NUL } })),
        get(v3(["publicRooms"]) + "?since=a%00b"),
        post(v3(["join", "#a\0b:sabha.test"]), json!({})),
        post(v3(["join", "!a\0b:sabha.test"]), json!({})),
        post(v3(["knock", "!a\0b:sabha.test"]), json!({ "reason": NUL })),
        post(in_room("join"), json!({ "reason": NUL })),
        put(v3(["user", user, "rooms", room, "account_data", NUL]), json!({})),
        put(v3(["user", user, "rooms", room, "account_data", "org.example"]), text()),
        get(v3(["user", user, "rooms", room, "account_data", NUL])),
        put(v3(["user", user, "rooms", room, "tags", NUL]), json!({})),
        put(v3(["user", user, "rooms", room, "tags", "u.tag"]), json!({ "order": 0.5, "more": NUL })),
        delete(v3(["user", user, "rooms", room, "tags", NUL])),
        put(v3(["rooms", room, "send", NUL, "1"]), json!({})),
        put(v3(["rooms", room, "send", "m.room.message", NUL]), json!({})),
        put(v3(["rooms", room, "send", "m.room.message", "2"]), text()),
        put(v3(["rooms", room, "redact", NUL, "3"]), json!({})),
        put(v3(["rooms", room, "redact", event, NUL]), json!({})),
        put(v3(["rooms", room, "redact", event, "4"]), json!({ "reason": NUL })),
        put(v3(["rooms", room, "state", NUL, ""]), json!({})),
        put(v3(["rooms", room, "state", "org.example", NUL]), json!({})),
        put(v3(["rooms", room, "state", "org.example", ""]), text()),
        put(v3(["rooms", room, "state", "m.room.canonical_alias", ""]), json!({ "alias": "#a\0b:sabha.test" })),
        put(v3(["rooms", room, "state", "m.room.member", "@a\0b:sabha.test"]), json!({ "membership": "invite" })),
        get(v3(["rooms", room, "state", NUL, NUL])),
        get(v3(["rooms", room, "event", NUL])),
        get(v3(["rooms", room, "context", NUL])),
        get(v3(["rooms", room, "messages"]) + "?dir=b&from=a%00b"),
        get(v3(["rooms", room, "messages"]) + "?dir=b&filter=%7B%22types%22%3A%5B%22a%5Cu0000b%22%5D%7D"),
        get(v3(["rooms", "!a\0b:sabha.test", "state"])),
        get(v3(["rooms", room, "members"]) + "?at=a%00b"),
        post(v3(["rooms", room, "receipt", "m.read", NUL]), json!({})),
        post(v3(["rooms", room, "receipt", "m.read", event]), json!({ "thread_id": NUL })),
        post(v3(["rooms", room, "receipt", "m.read", event]), json!({ "thread_id": format!("${NUL}") })),
        post(v3(["rooms", room, "read_markers"]), json!({ "m.fully_read": NUL, "m.read": NUL })),
        post(v3(["rooms", room, "read_markers"]), json!({ "m.fully_read": format!("${NUL}") })),
        put(v3(["rooms", room, "send", "m.room.redaction", "5"]), json!({ "redacts": format!("${NUL}") })),
        put(v3(["rooms", room, "typing", NUL]), json!({ "typing": false })),
    ];
    for action in ["invite", "kick", "ban", "unban"] {
        asked.push(post(in_room(action), json!({ "user_id": "@bob:sabha.test", "reason": NUL })));
        asked.push(post(in_room(action), json!({ "user_id": "@a\0b:sabha.test" })));
    }
    asked.push(post(in_room("leave"), json!({ "reason": NUL })));
    asked
}

/// Lists requests that store a NUL for encryption.
fn of_keys(me: &Client, room: &str, version: &str) -> Vec<Asked> {
    let (user, device) = (me.user_id.as_str(), me.device_id.as_str());
    let upload = |body: Value| post(v3(["keys", "upload"]), body);
    let device_keys = |key: &str, value: Value| {
        let mut keys = json!({
            "user_id": user, "device_id": device, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": { (format!("ed25519:{device}")): "AAAA" }, "signatures": {},
        });
        keys[key] = value;
        upload(json!({ "device_keys": keys }))
    };
    let signed = json!({ "key": "AAAA", "signatures": { user: { (format!("ed25519:{device}")): NUL } } });
    let session = json!({
        "first_message_index": 0, "forwarded_count": 0, "is_verified": false, "session_data": { "text": NUL },
    });
    let backup = |room: &str, session_id: &str| {
        put(v3(["room_keys", "keys", room, session_id]) + "?version=" + version, session.clone())
    };
    let to = |user: &str, device: &str, content: Value| json!({ "messages": { user: { device: content } } });
    vec![
        device_keys("algorithms", json!([NUL])),
        device_keys("keys", json!({ (format!("ed25519:{NUL}")): NUL })),
        device_keys("unsigned", json!({ "device_display_name": NUL })),
        device_keys("org.example", json!({ NUL: NUL })),
        device_keys("device_id", json!(NUL)),
        upload(json!({ "one_time_keys": { (format!("signed_curve25519:{NUL}")): signed } })),
        upload(json!({ "one_time_keys": { "signed_curve25519:A": signed } })),
        upload(json!({ "one_time_keys": { (format!("{NUL}:A")): NUL } })),
        upload(json!({ "fallback_keys": { (format!("signed_curve25519:{NUL}")): signed } })),
        upload(json!({ "fallback_keys": { (format!("{NUL}:A")): signed } })),
        upload(json!({ "fallback_keys": { "signed_curve25519:F": signed } })),
        post(v3(["keys", "claim"]), json!({ "one_time_keys": { user: { device: NUL } } })),
        post(v3(["keys", "claim"]), json!({ "one_time_keys": { user: { NUL: "signed_curve25519" } } })),
        post(v3(["keys", "claim"]), json!({ "one_time_keys": { "@a\0b:sabha.test": { "X": "signed_curve25519" } } })),
        post(v3(["keys", "query"]), json!({ "device_keys": { user: [NUL], "@a\0b:sabha.test": [] } })),
        post(v3(["keys", "signatures", "upload"]), json!({ user: { NUL: { "user_id": user } } })),
        post(
            v3(["keys", "signatures", "upload"]),
            json!({ user: { device: { "signatures": { user: { NUL: NUL } } } } }),
        ),
        post(
            v3(["keys", "device_signing", "upload"]),
            json!({ "master_key": { "user_id": user, "usage": ["master"], "keys": { (format!("ed25519:{NUL}")): NUL } } }),
        ),
        get(v3(["keys", "changes"]) + "?from=a%00b&to=a%00b"),
        put(v3(["sendToDevice", NUL, "1"]), to(user, device, json!({}))),
        put(v3(["sendToDevice", "org.example", NUL]), to(user, device, json!({}))),
        put(v3(["sendToDevice", "org.example", "2"]), to(user, device, json!({ "text": NUL, NUL: 1 }))),
        put(v3(["sendToDevice", "org.example", "3"]), to(user, NUL, json!({}))),
        put(v3(["sendToDevice", "org.example", "4"]), to("@a\0b:sabha.test", device, json!({}))),
        post(v3(["room_keys", "version"]), json!({ "algorithm": NUL, "auth_data": {} })),
        put(
            v3(["room_keys", "version", version]),
            json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "text": NUL } }),
        ),
        get(v3(["room_keys", "version", NUL])),
        backup(room, "session"),
        backup(room, NUL),
        backup("!a\0b:sabha.test", "session"),
        get(v3(["room_keys", "keys", room, NUL]) + "?version=" + version),
        get(v3(["room_keys", "keys"]) + "?version=a%00b"),
        delete(v3(["room_keys", "keys", room, NUL]) + "?version=" + version),
    ]
}

async fn answers(server: &TestServer) -> Vec<(String, u16)> {
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let event = alice.send_text(&room, "0", "hello").await;
    let backup = json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "text": NUL } });
    let backup = alice.post(&v3(["room_keys", "version"]), backup).await.ok();
    let version = backup["version"].as_str().expect("a checked answer has it");
    let asked = [of_accounts(&alice), of_keys(&alice, &room, version), of_rooms(&alice, &room, &event)];
    let mut answers = Vec::new();
    for (number, Asked { method, path, body }) in asked.into_iter().flatten().enumerate() {
        let path = path.replace(&room, "ROOM");
        let body = body.map(|body| body.to_string());
        let answer = alice.request(method.clone(), &path.replace("ROOM", &room), body.clone()).await;
        answers.push((format!("{number}: {method} {path} {}", body.unwrap_or_default()), answer.status.as_u16()));
    }
    // Stored values are also told in a sync.
    let news = alice.sync(None).await;
    assert!(news.to_string().contains("a\\u0000b"), "{news}");
    answers
}

#[tokio::test]
async fn a_nul_is_stored_or_refused_on_both_engines_alike() {
    let mut all = Vec::new();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        if Engine::from_engine(engine).await.is_some() {
            let server = TestServer::builder().engine(engine).start().await;
            all.push(answers(&server).await);
        }
    }
    let failed: Vec<_> = all.iter().flatten().filter(|(_, status)| *status >= 500).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    if let [sqlite, postgres] = all.as_slice() {
        // Compares only the status, because the IDs in the texts differ.
        let differ = |(sqlite, postgres): &(&(String, u16), &(String, u16))| sqlite.1 != postgres.1;
        let differences: Vec<_> = sqlite.iter().zip(postgres).filter(differ).collect();
        assert!(differences.is_empty(), "{differences:#?}");
    }
}

both_engines! {
    /// Other servers may send such state, but some of them cannot store it.
    async fn a_local_user_sends_no_type_and_no_state_key_with_a_nul(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let initial = |key: &str| {
            let mut event = json!({ "type": "org.example", "state_key": "", "content": {} });
            event[key] = json!(NUL);
            post(v3(["createRoom"]), json!({ "initial_state": [event] }))
        };
        for Asked { method, path, body } in [
            initial("type"),
            initial("state_key"),
            put(v3(["rooms", &room, "send", NUL, "1"]), json!({})),
            put(v3(["rooms", &room, "state", NUL, ""]), json!({})),
            put(v3(["rooms", &room, "state", "org.example", NUL]), json!({})),
        ] {
            let body = body.map(|body| body.to_string());
            alice.request(method, &path, body).await.error(400, "M_INVALID_PARAM");
        }
    }

    /// The database holds it in another form, which nobody sees.
    async fn the_character_that_stands_for_a_nul_in_the_database_is_an_ordinary_one(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let words = ["a\u{10FFFE}0b", "a\u{10FFFE}b", "ab"];
        for word in words {
            let path = v3(["rooms", &room, "state", word, word]);
            alice.put(&path, json!({ "word": word })).await.ok();
        }
        for word in words {
            let path = v3(["rooms", &room, "state", word, word]);
            assert_eq!(alice.get(&path).await.ok(), json!({ "word": word }));
        }
        let state = alice.get(&v3(["rooms", &room, "state"])).await.ok();
        for word in words {
            let is_it = |event: &&Value| event["type"] == word && event["state_key"] == word;
            assert_eq!(state.as_array().expect("a list").iter().filter(is_it).count(), 1, "{word:?}");
        }
    }
}
