//! Account data and tags ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#client-config

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Client, Engine, TestServer, v3};

fn global(client: &Client, event_type: &str) -> String {
    v3(["user", &client.user_id, "account_data", event_type])
}

fn of_room(client: &Client, room: &str, event_type: &str) -> String {
    v3(["user", &client.user_id, "rooms", room, "account_data", event_type])
}

fn tag(client: &Client, room: &str, tag: &str) -> String {
    v3(["user", &client.user_id, "rooms", room, "tags", tag])
}

/// Returns the content of an event of this type from a list in a sync answer.
fn content<'a>(events: &'a Value, event_type: &str) -> Option<&'a Value> {
    let events = events["events"].as_array()?;
    events.iter().find(|event| event["type"] == event_type).map(|event| &event["content"])
}

both_engines! {
    async fn what_was_stored_is_read_back_and_synced(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let before = alice.sync(None).await;
        alice.get(&global(&alice, "org.example")).await.error(404, "M_NOT_FOUND");
        alice.get(&of_room(&alice, &room, "org.example")).await.error(404, "M_NOT_FOUND");

        alice.put(&global(&alice, "org.example"), json!({ "a": 1 })).await.ok();
        alice.put(&of_room(&alice, &room, "org.example"), json!({ "b": 2 })).await.ok();
        assert_eq!(alice.get(&global(&alice, "org.example")).await.ok(), json!({ "a": 1 }));
        assert_eq!(alice.get(&of_room(&alice, &room, "org.example")).await.ok(), json!({ "b": 2 }));

        let news = alice.sync(before["next_batch"].as_str()).await;
        assert_eq!(content(&news["account_data"], "org.example"), Some(&json!({ "a": 1 })));
        let in_room = &news["rooms"]["join"][room.as_str()]["account_data"];
        assert_eq!(content(in_room, "org.example"), Some(&json!({ "b": 2 })));
        let quiet = alice.sync(news["next_batch"].as_str()).await;
        assert_eq!(content(&quiet["account_data"], "org.example"), None);
    }

    async fn account_data_is_not_replaced_by_a_missing_body(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        for path in [global(&alice, "m.cross_signing.master"), of_room(&alice, &room, "org.example")] {
            alice.put(&path, json!({ "a": 1 })).await.ok();
            for missing in [None, Some(String::new())] {
                alice.request(Method::PUT, &path, missing).await.error(400, "M_BAD_JSON");
            }
            assert_eq!(alice.get(&path).await.ok(), json!({ "a": 1 }));
            alice.put(&path, json!({})).await.ok();
            assert_eq!(alice.get(&path).await.ok(), json!({}));
        }
    }

    async fn account_data_outlives_a_restart(server: TestServer) {
        let mut server = server;
        let alice = server.register("alice").await;
        alice.put(&global(&alice, "org.example"), json!({ "a": 1 })).await.ok();
        server.restart().await;
        assert_eq!(alice.get(&global(&alice, "org.example")).await.ok(), json!({ "a": 1 }));
        let everything = alice.sync(None).await;
        assert_eq!(content(&everything["account_data"], "org.example"), Some(&json!({ "a": 1 })));
    }

    async fn tags_are_changed_one_at_a_time(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let tags = v3(["user", &alice.user_id, "rooms", &room, "tags"]);
        assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": {} }));
        alice.put(&tag(&alice, &room, "m.favourite"), json!({ "order": 0.25 })).await.ok();
        alice.put(&tag(&alice, &room, "u.work"), json!({})).await.ok();
        assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": { "m.favourite": { "order": 0.25 }, "u.work": {} } }));
        alice.delete(&tag(&alice, &room, "u.work"), json!({})).await.ok();
        alice.delete(&tag(&alice, &room, "u.never"), json!({})).await.ok();
        let everything = alice.sync(None).await;
        let in_room = &everything["rooms"]["join"][room.as_str()]["account_data"];
        assert_eq!(content(in_room, "m.tag"), Some(&json!({ "tags": { "m.favourite": { "order": 0.25 } } })));
    }
}

#[tokio::test]
async fn the_data_of_another_user_is_forbidden() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({})).await;
    for path in [global(&alice, "org.example"), of_room(&alice, &room, "org.example"), tag(&alice, &room, "u.work")] {
        bob.put(&path, json!({})).await.error(403, "M_FORBIDDEN");
    }
    bob.get(&global(&alice, "org.example")).await.error(403, "M_FORBIDDEN");
    // A user who has nothing to do with a room must not learn whether it exists.
    bob.put(&of_room(&bob, &room, "org.example"), json!({})).await.error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn types_that_the_server_manages_cannot_be_set() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    for event_type in ["m.fully_read", "m.push_rules"] {
        alice.put(&global(&alice, event_type), json!({})).await.error(405, "M_BAD_JSON");
        alice.put(&of_room(&alice, &room, event_type), json!({})).await.error(405, "M_BAD_JSON");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let server = TestServer::builder()
        .config(|config| {
            config.limits.account_data_bytes = sabha::config::ByteSize::kib(1);
            config.limits.account_data_per_user = 10;
        })
        .start()
        .await;
    let alice = server.register("alice").await;
    alice.put(&global(&alice, "org.example"), json!([])).await.error(400, "M_BAD_JSON");
    alice.put(&global(&alice, "org.example"), json!({ "a": "x".repeat(1024) })).await.error(413, "M_TOO_LARGE");
    alice.put(&global(&alice, &"x".repeat(256)), json!({})).await.error(400, "M_INVALID_PARAM");
    for number in 0..10 {
        alice.put(&global(&alice, &format!("org.example.{number}")), json!({})).await.ok();
    }
    alice.put(&global(&alice, "org.example.more"), json!({})).await.error(400, "M_UNKNOWN");
    alice.put(&global(&alice, "org.example.3"), json!({ "again": true })).await.ok();
}

both_engines! {
    async fn all_data_of_an_account_is_bounded(engine: Engine) {
        let server = TestServer::builder()
            .engine(engine)
            .config(|config| config.limits.account_data_bytes_per_user = sabha::config::ByteSize::kib(64))
            .start()
            .await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({})).await;
        let data = |length: usize| json!({ "a": "x".repeat(length) });
        for number in 0..3 {
            alice.put(&global(&alice, &format!("org.example.{number}")), data(20_000)).await.ok();
        }
        // Account data of rooms counts too.
        alice.put(&of_room(&alice, &room, "org.example"), data(20_000)).await.error(413, "M_TOO_LARGE");
        alice.put(&of_room(&alice, &room, "org.example"), data(4_000)).await.ok();
        // A replacement that is not larger is accepted, and may free space.
        alice.put(&global(&alice, "org.example.0"), json!({ "a": "y".repeat(20_000) })).await.ok();
        alice.put(&global(&alice, "org.example.0"), data(22_000)).await.error(413, "M_TOO_LARGE");
        alice.put(&global(&alice, "org.example.0"), json!({})).await.ok();
        alice.put(&global(&alice, "org.example.1"), data(39_000)).await.ok();
        bob.put(&global(&bob, "org.example"), data(50_000)).await.ok();
    }
}
