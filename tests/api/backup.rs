//! Key backup ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

fn version(public_key: &str) -> Value {
    json!({ "algorithm": ALGORITHM, "auth_data": { "public_key": public_key, "signatures": {} } })
}

async fn create(client: &Client) -> String {
    let answer = client.post(&v3(["room_keys", "version"]), version("YWJj")).await.ok();
    answer["version"].as_str().expect("a checked answer has it").to_owned()
}

fn key(first_message_index: i64) -> Value {
    json!({
        "first_message_index": first_message_index, "forwarded_count": 0, "is_verified": false,
        "session_data": { "ephemeral": "YQ", "ciphertext": "Yg", "mac": "Yw" },
    })
}

fn path<const N: usize>(below: [&str; N], version: &str) -> String {
    below.iter().fold(v3(["room_keys", "keys"]), |path, segment| format!("{path}/{}", segment.replace('!', "%21")))
        + "?version="
        + version
}

const ROOM: &str = "!room:sabha.test";

both_engines! {
    async fn of_two_keys_the_better_stays(server: TestServer) {
        let alice = server.register("alice").await;
        let number = create(&alice).await;
        let session = path([ROOM, "session"], &number);
        let first = alice.put(&session, key(5)).await.ok();
        assert_eq!(first["count"], 1);
        // A worse key changes nothing.
        assert_eq!(alice.put(&session, key(6)).await.ok(), first);
        assert_eq!(alice.get(&session).await.ok(), key(5));
        let better = alice.put(&session, key(4)).await.ok();
        assert_eq!(better["count"], 1);
        assert_ne!(better["etag"], first["etag"]);
        assert_eq!(alice.get(&session).await.ok(), key(4));
    }

    async fn keys_are_stored_and_deleted_in_parts(server: TestServer) {
        let alice = server.register("alice").await;
        let number = create(&alice).await;
        let rooms = json!({ "rooms": {
            ROOM: { "sessions": { "a": key(0), "b": key(0) } },
            "!other:sabha.test": { "sessions": { "a": key(0) } },
        } });
        let all = path([], &number);
        assert_eq!(alice.put(&all, rooms.clone()).await.ok()["count"], 3);
        assert_eq!(alice.get(&all).await.ok(), rooms);
        let of_room = path([ROOM], &number);
        assert_eq!(alice.put(&of_room, json!({ "sessions": { "c": key(0) } })).await.ok()["count"], 4);
        assert_eq!(alice.get(&of_room).await.ok()["sessions"].as_object().map(serde_json::Map::len), Some(3));
        assert_eq!(alice.delete(&path([ROOM, "a"], &number), json!({})).await.ok()["count"], 3);
        alice.get(&path([ROOM, "a"], &number)).await.error(404, "M_NOT_FOUND");
        assert_eq!(alice.delete(&of_room, json!({})).await.ok()["count"], 1);
        assert_eq!(alice.get(&of_room).await.ok(), json!({ "sessions": {} }));
        assert_eq!(alice.delete(&all, json!({})).await.ok()["count"], 0);
        assert_eq!(alice.get(&all).await.ok(), json!({ "rooms": {} }));
    }

    async fn many_keys_are_stored_and_deleted_piece_by_piece(server: TestServer) {
        let alice = server.register("alice").await;
        let number = create(&alice).await;
        let keys = |number: usize, index: i64| {
            let keys = (0..number).map(|session| (format!("s{session}"), key(index)));
            json!({ "sessions": keys.collect::<serde_json::Map<String, Value>>() })
        };
        let of_room = path([ROOM], &number);
        let first = alice.put(&of_room, keys(450, 5)).await.ok();
        assert_eq!(first["count"], 450);
        assert_eq!(alice.put(&of_room, keys(450, 5)).await.ok(), first);
        let better = alice.put(&of_room, keys(500, 4)).await.ok();
        assert_eq!(better["count"], 500);
        assert_ne!(better["etag"], first["etag"]);
        assert_eq!(alice.get(&of_room).await.ok(), keys(500, 4));
        // Rooms whose keys end within a page, at its end, and after several pages.
        let mut rooms = json!({ ROOM: keys(500, 4) });
        for (room, number) in [("!a:sabha.test", 100), ("!b:sabha.test", 1), ("!c:sabha.test", 99), ("!z:sabha.test", 101)] {
            rooms[room] = keys(number, 0);
        }
        let all = path([], &number);
        assert_eq!(alice.put(&all, json!({ "rooms": rooms })).await.ok()["count"], 801);
        assert_eq!(alice.get(&all).await.ok(), json!({ "rooms": rooms }));
        assert_eq!(alice.get(&path(["!a:sabha.test"], &number)).await.ok(), keys(100, 0));
        assert_eq!(alice.delete(&path([], &number), json!({})).await.ok()["count"], 0);
        assert_eq!(alice.get(&of_room).await.ok(), json!({ "sessions": {} }));
    }

    async fn the_number_of_a_deleted_version_is_not_used_again(server: TestServer) {
        let alice = server.register("alice").await;
        let latest = v3(["room_keys", "version"]);
        alice.get(&latest).await.error(404, "M_NOT_FOUND");
        let first = create(&alice).await;
        let second = create(&alice).await;
        alice.put(&path([ROOM, "a"], &second), key(0)).await.ok();
        assert_eq!(alice.get(&latest).await.ok()["version"], json!(second));
        let deleted = v3(["room_keys", "version", &second]);
        alice.delete(&deleted, json!({})).await.ok();
        alice.delete(&deleted, json!({})).await.ok();
        alice.get(&deleted).await.error(404, "M_NOT_FOUND");
        alice.get(&path([], &second)).await.error(404, "M_NOT_FOUND");
        assert_eq!(alice.get(&latest).await.ok()["version"], json!(first));
        let third = create(&alice).await;
        assert!(third != first && third != second, "{first} {second} {third}");
    }
}

#[tokio::test]
async fn keys_go_into_the_current_version_only() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    alice.put(&path([ROOM, "a"], "1"), key(0)).await.error(404, "M_NOT_FOUND");
    let first = create(&alice).await;
    let second = create(&alice).await;
    let refused = alice.put(&path([ROOM, "a"], &first), key(0)).await.error(403, "M_WRONG_ROOM_KEYS_VERSION");
    assert_eq!(refused["current_version"], json!(second));
    alice.put(&path([ROOM, "a"], &second), json!({})).await.error(400, "M_BAD_JSON");
}

#[tokio::test]
async fn only_the_public_data_of_a_version_can_be_replaced() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let number = create(&alice).await;
    let info = v3(["room_keys", "version", &number]);
    alice.put(&info, version("ZGVm")).await.ok();
    assert_eq!(alice.get(&info).await.ok()["auth_data"]["public_key"], "ZGVm");
    let mut other = version("YWJj");
    other["algorithm"] = json!("m.other");
    alice.put(&info, other).await.error(400, "M_INVALID_PARAM");
    let mut other = version("YWJj");
    other["version"] = json!("77");
    alice.put(&info, other).await.error(400, "M_INVALID_PARAM");
    bob.get(&info).await.error(404, "M_NOT_FOUND");
    bob.put(&info, version("YWJj")).await.error(404, "M_NOT_FOUND");
}
