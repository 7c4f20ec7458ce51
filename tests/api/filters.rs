//! Stored filters ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering

use ruma::UserId;
use sabha::filter::{Definition, MAX_ENTRIES};
use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

async fn create(client: &Client, filter: Value) -> String {
    let answer = client.post(&v3(["user", &client.user_id, "filter"]), filter).await.ok();
    answer["filter_id"].as_str().expect("a checked answer has it").to_owned()
}

both_engines! {
    async fn a_stored_filter_is_read_back(server: TestServer) {
        let mut server = server;
        let alice = server.register("alice").await;
        let filter = json!({ "room": { "timeline": { "limit": 7, "types": ["m.room.message"] } } });
        let id = create(&alice, filter.clone()).await;
        let path = v3(["user", &alice.user_id, "filter", &id]);
        assert_eq!(alice.get(&path).await.ok(), filter);
        server.restart().await;
        assert_eq!(alice.get(&path).await.ok(), filter);
        assert_eq!(create(&alice, filter).await, id, "the same filter has the same id");
    }
}

#[tokio::test]
async fn another_filter_has_another_id() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    assert_ne!(create(&alice, json!({})).await, create(&alice, json!({ "event_fields": ["type"] })).await);
}

#[tokio::test]
async fn a_filter_is_only_found_by_its_owner_and_under_its_own_id() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let id = create(&alice, json!({})).await;
    bob.get(&v3(["user", &alice.user_id, "filter", &id])).await.error(403, "M_FORBIDDEN");
    bob.get(&v3(["user", &bob.user_id, "filter", &id])).await.error(404, "M_NOT_FOUND");
    for other in ["nonsense", &format!("0{id}"), &format!("+{id}"), "99999999999999999999"] {
        alice.get(&v3(["user", &alice.user_id, "filter", other])).await.error(404, "M_NOT_FOUND");
    }
    bob.post(&v3(["user", &alice.user_id, "filter"]), json!({})).await.error(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn filters_are_limited_in_size_and_number() {
    let server = TestServer::builder()
        .config(|config| {
            config.limits.filter_bytes = sabha::config::ByteSize::kib(1);
            config.limits.filters_per_user = 2;
        })
        .start()
        .await;
    let alice = server.register("alice").await;
    let path = v3(["user", &alice.user_id, "filter"]);
    alice.post(&path, json!({ "event_fields": ["x".repeat(1024)] })).await.error(413, "M_TOO_LARGE");
    let first = create(&alice, json!({ "event_fields": ["a"] })).await;
    let second = create(&alice, json!({ "event_fields": ["b"] })).await;
    assert_eq!(create(&alice, json!({ "event_fields": ["a"] })).await, first);
    // The oldest filter is deleted, because a client that cannot store a filter cannot start.
    let third = create(&alice, json!({ "event_fields": ["c"] })).await;
    let find = async |id: &str| alice.get(&v3(["user", &alice.user_id, "filter", id])).await;
    find(&first).await.error(404, "M_NOT_FOUND");
    find(&second).await.ok();
    find(&third).await.ok();
    assert_ne!(create(&alice, json!({ "event_fields": ["a"] })).await, first);
}

both_engines! {
    /// Checks stored filters and those given with the request.
    async fn patterns_of_types_are_limited(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let event = alice.send_text(&room, "1", "hello").await;
        let many: Vec<String> = (0..65).map(|n| format!("m{n}.*")).collect();
        let long = "a".repeat(255) + "*";
        let check = async |types: Value, taken: bool| {
            let events = json!({ "types": types });
            let split = json!({ "not_types": types });
            let filters = [
                json!({ "room": { "timeline": events } }), json!({ "room": { "state": split } }),
                json!({ "room": { "ephemeral": events } }), json!({ "room": { "account_data": split } }),
                json!({ "presence": events }), json!({ "account_data": split }),
            ];
            let mut answers = Vec::new();
            for filter in &filters {
                answers.push(alice.post(&v3(["user", &alice.user_id, "filter"]), filter.clone()).await);
                answers.push(alice.get(&format!("{}?timeout=0&filter={}", v3(["sync"]), encoded(&filter.to_string()))).await);
            }
            answers.push(alice.get(&format!("{}?dir=b&filter={}", v3(["rooms", &room, "messages"]), encoded(&events.to_string()))).await);
            answers.push(alice.get(&format!("{}?filter={}", v3(["rooms", &room, "context", &event]), encoded(&split.to_string()))).await);
            for answer in answers {
                if taken {
                    answer.ok();
                } else {
                    answer.error(400, "M_INVALID_PARAM");
                }
            }
        };
        check(json!(many[1..]), true).await;
        check(json!(many), false).await;
        check(json!([long]), false).await;
        // All lists of a filter count together.
        let half = json!({ "types": many[..33] });
        let both = json!({ "room": { "timeline": half, "state": half } });
        alice.post(&v3(["user", &alice.user_id, "filter"]), both).await.error(400, "M_INVALID_PARAM");
    }
}

/// Returns the filter for a query.
fn encoded(filter: &str) -> String {
    v3([filter]).rsplit('/').next().expect("one segment").to_owned()
}

both_engines! {
    async fn the_entries_of_all_lists_are_limited_together(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let event = alice.send_text(&room, "1", "hello").await;
        let path = v3(["user", &alice.user_id, "filter"]);
        let list = |entry: &str, more: usize| json!(vec![entry; MAX_ENTRIES + more]);
        let filter = |more| json!({ "room": { "timeline": { "not_rooms": list("!a:b", more) } } });
        create(&alice, filter(0)).await;
        alice.post(&path, filter(1)).await.error(400, "M_INVALID_PARAM");
        // Lists of different parts count together.
        let half = vec!["a"; MAX_ENTRIES / 2 + 1];
        let both = json!({ "presence": { "types": half }, "room": { "state": { "not_types": half } } });
        alice.post(&path, both).await.error(400, "M_INVALID_PARAM");
        // Filters that are given with the request.
        for more in [0, 1] {
            let events = json!({ "types": list("a", more) });
            let (sync, events) = (encoded(&json!({ "account_data": events }).to_string()), encoded(&events.to_string()));
            for answer in [
                alice.get(&format!("{}?timeout=0&filter={sync}", v3(["sync"]))).await,
                alice.get(&format!("{}?dir=b&filter={events}", v3(["rooms", &room, "messages"]))).await,
                alice.get(&format!("{}?filter={events}", v3(["rooms", &room, "context", &event]))).await,
            ] {
                if more == 0 {
                    answer.ok();
                } else {
                    assert!(answer.text.contains("at most 1000 types, senders and rooms"), "{}", answer.text);
                    answer.error(400, "M_INVALID_PARAM");
                }
            }
        }
    }

    async fn a_filter_that_was_stored_under_other_limits_is_refused_with_the_reason(server: TestServer) {
        let alice = server.register("alice").await;
        let user_id = UserId::parse(&*alice.user_id).expect("a user ID");
        let user = server.app().db.find_user(&user_id).await.expect("read").expect("she is registered");
        let filter = json!({ "presence": { "types": vec!["a"; MAX_ENTRIES + 1] } });
        let definition = Definition::read(&filter.to_string()).expect("a filter");
        let id = server.app().filters.create(user.nid, &definition).await.expect("stored");
        let answer = alice.get(&format!("{}?timeout=0&filter={id}", v3(["sync"]))).await;
        for reason in ["stored filter with this ID", "at most 1000", "Store one within this limit"] {
            assert!(answer.text.contains(reason), "{}", answer.text);
        }
        answer.error(400, "M_INVALID_PARAM");
        assert_eq!(alice.get(&v3(["user", &alice.user_id, "filter", &id])).await.ok(), filter, "its owner can read it");
    }
}

/// A definition with a mistake is not read as the ID of a stored filter.
#[tokio::test]
async fn a_broken_filter_is_refused_alike_wherever_it_comes_from() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    for (filter, code, reason) in [
        (r#"{"room":{"timeline":{"limit":-1}}}"#, "M_BAD_JSON", "-1"),
        (r#"{"presence":null}"#, "M_BAD_JSON", "null"),
        (r#" {"room":[7]}"#, "M_BAD_JSON", "7"),
        ("{", "M_NOT_JSON", "JSON"),
    ] {
        let inline = alice.get(&format!("{}?timeout=0&filter={}", v3(["sync"]), encoded(filter))).await;
        assert!(inline.text.contains(reason) && !inline.text.contains("with this ID"), "{filter}: {}", inline.text);
        inline.error(400, code);
        if let Ok(body) = serde_json::from_str::<Value>(filter) {
            alice.post(&v3(["user", &alice.user_id, "filter"]), body).await.error(400, code);
        }
    }
    let unknown = alice.get(&format!("{}?timeout=0&filter=12345", v3(["sync"]))).await;
    assert!(unknown.text.contains("There is no filter with this ID"), "{}", unknown.text);
    unknown.error(400, "M_INVALID_PARAM");
}
