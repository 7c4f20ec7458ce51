//! `GET /messages`: paging through a room's history.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

async fn page(client: &Client, room: &str, query: &str) -> Value {
    client.get(&(v3(["rooms", room, "messages"]) + "?" + query)).await.ok()
}

fn ids(page: &Value) -> Vec<String> {
    let chunk = page["chunk"].as_array().expect("a checked answer has it");
    chunk.iter().map(|event| event["event_id"].as_str().expect("every event has one").to_owned()).collect()
}

/// Follows `end` until there is none, or until it no longer changes, as at the live end.
async fn walk(client: &Client, room: &str, query: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut from = String::new();
    for _ in 0..1000 {
        let page = page(client, room, &format!("{query}{from}")).await;
        all.extend(ids(&page));
        match page["end"].as_str().filter(|_| page["end"] != page["start"]) {
            Some(end) => from = format!("&from={end}"),
            None => return all,
        }
    }
    panic!("the walk does not end")
}

fn filter(filter: &Value) -> String {
    let encoded: String = filter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("&filter={encoded}")
}

both_engines! {
    async fn a_walk_meets_every_event_once_in_both_directions(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        // More messages than a room keeps in memory, and of different types.
        let mut sent = Vec::new();
        for number in 0..90 {
            sent.push(alice.send_text(&room, &format!("t{number}"), "hello").await);
        }
        let whole = ids(&page(&alice, &room, "dir=f&limit=1000").await);
        assert_eq!(whole.len(), 96);
        assert!(whole.ends_with(&sent));
        let back: Vec<_> = whole.iter().rev().cloned().collect();
        for limit in [1, 7, 32, 96, 500] {
            assert_eq!(walk(&alice, &room, &format!("dir=f&limit={limit}")).await, whole, "{limit}");
            assert_eq!(walk(&alice, &room, &format!("dir=b&limit={limit}")).await, back, "{limit}");
        }
        assert_eq!(ids(&page(&alice, &room, "dir=b").await).len(), 10);
    }

    async fn tokens_name_a_place_between_events(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let mut sent = Vec::new();
        for number in 0..6 {
            sent.push(alice.send_text(&room, &format!("t{number}"), "hello").await);
        }
        let first = page(&alice, &room, "dir=b&limit=3").await;
        assert_eq!(ids(&first), [sent[5].as_str(), &sent[4], &sent[3]]);
        let end = first["end"].as_str().expect("there is more");
        assert_eq!(ids(&page(&alice, &room, &format!("dir=f&from={end}")).await), sent[3..]);
        assert_eq!(ids(&page(&alice, &room, &format!("dir=b&limit=1&from={end}")).await), sent[2..3]);
        assert_eq!(ids(&page(&alice, &room, &format!("dir=b&to={end}")).await).len(), 3);
        // A token of /sync can be used as a place too.
        let next_batch = alice.sync(None).await["next_batch"].as_str().expect("a checked answer has it").to_owned();
        let last = alice.send_text(&room, "last", "hello").await;
        assert_eq!(ids(&page(&alice, &room, &format!("dir=f&from={next_batch}")).await), [last]);
        assert_eq!(ids(&page(&alice, &room, &format!("dir=b&limit=1&from={next_batch}")).await), sent[5..]);
        for bad in ["x", "p1", "t1", "t1_1", "s1"] {
            let path = v3(["rooms", &room, "messages"]) + "?dir=b&from=" + bad;
            alice.get(&path).await.error(400, "M_INVALID_PARAM");
        }
        for nothing in ["", "?", "?limit=1"] {
            let path = v3(["rooms", &room, "messages"]) + nothing;
            alice.get(&path).await.error(400, "M_MISSING_PARAM");
        }
        alice.leave(&room).await;
        alice.post(&v3(["rooms", &room, "forget"]), json!({})).await.ok();
        alice.get(&v3(["rooms", &room, "messages"])).await.error(403, "M_FORBIDDEN");
    }

    async fn a_client_goes_on_from_the_live_end(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let at_end = page(&alice, &room, "dir=f&limit=100").await;
        let end = at_end["end"].as_str().expect("the room goes on");
        // Events in other rooms do not move the end.
        alice.create_room(json!({})).await;
        let nothing = page(&alice, &room, &format!("dir=f&from={end}")).await;
        assert_eq!((ids(&nothing).len(), &nothing["end"]), (0, &json!(end)));
        let sent = alice.send_text(&room, "1", "hello").await;
        let more = page(&alice, &room, &format!("dir=f&from={end}")).await;
        assert_eq!(ids(&more), [sent.as_str()]);
        // A page that ends at the client's `to` has no `end`, and neither has the last page of a user who has left.
        let to = more["end"].as_str().expect("the room goes on");
        alice.send_text(&room, "2", "hello").await;
        assert_eq!(page(&alice, &room, &format!("dir=f&from={end}&to={to}")).await.get("end"), None);
        bob.leave(&room).await;
        assert_eq!(page(&bob, &room, &format!("dir=f&from={end}")).await.get("end"), None);
    }

    /// A client can have such a token when the database was set back.
    async fn a_place_in_the_future_is_the_live_end(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let future = format!("t{}_0", i64::MAX);
        let nothing = page(&alice, &room, &format!("dir=f&from={future}")).await;
        let end = nothing["end"].as_str().expect("the room goes on");
        assert_eq!(ids(&nothing).len(), 0);
        assert_ne!(end, future);
        let sent = alice.send_text(&room, "1", "hello").await;
        assert_eq!(ids(&page(&alice, &room, &format!("dir=f&from={end}")).await), [sent.as_str()]);
        // An empty token is none.
        for dir in ["b", "f"] {
            let all = page(&alice, &room, &format!("dir={dir}&limit=100")).await;
            assert_eq!(ids(&page(&alice, &room, &format!("dir={dir}&limit=100&from=&to=")).await), ids(&all));
        }
    }

    /// A filter that accepts nothing must not make the server read one event at a time.
    async fn a_filter_that_lets_nothing_through_costs_few_statements(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        for number in 0..300 {
            alice.send_text(&room, &format!("t{number}"), "hello").await;
        }
        let statements = || server.app().db.counters().statements();
        let nothing = filter(&json!({ "types": ["org.sabha.nothing"] }));
        for dir in ["b", "f"] {
            let before = statements();
            let found = page(&alice, &room, &format!("dir={dir}&limit=1{nothing}")).await;
            assert_eq!(ids(&found), [""; 0]);
            let used = statements() - before;
            assert!(used <= 40, "{used} statements, {dir}");
        }
    }

    async fn a_filter_lets_through_what_it_names(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let text = alice.send_text(&room, "1", "hello").await;
        let image = bob.send(&room, "m.room.message", "2", json!({ "msgtype": "m.image", "url": "mxc://a/b" })).await;
        let note = bob.send(&room, "org.example.note", "3", json!({})).await;
        let found = async |wanted: Value| ids(&page(&alice, &room, &format!("dir=f{}", filter(&wanted))).await);
        assert_eq!(found(json!({ "types": ["m.room.message"] })).await, [text.as_str(), &image]);
        assert_eq!(found(json!({ "types": ["org.example.*"] })).await, [note.as_str()]);
        assert_eq!(found(json!({ "not_types": ["m.room.*"] })).await, [note.as_str()]);
        assert_eq!(found(json!({ "types": ["m.room.message"], "senders": [bob.user_id] })).await, [image.as_str()]);
        assert_eq!(found(json!({ "types": ["m.room.message"], "not_senders": [bob.user_id] })).await, [text.as_str()]);
        assert_eq!(found(json!({ "contains_url": true })).await, [image.as_str()]);
        assert_eq!(found(json!({ "contains_url": false, "types": ["m.room.message"] })).await, [text.as_str()]);
        assert!(found(json!({ "not_rooms": [room] })).await.is_empty());
        assert_eq!(found(json!({ "types": ["m.room.message"], "limit": 1 })).await, [text.as_str()]);
    }

    async fn lazy_loading_adds_the_members_who_speak_on_the_page(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let carol = server.register("carol").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        carol.join(&room).await;
        for (txn, client) in [("1", &alice), ("2", &bob), ("3", &bob)] {
            client.send_text(&room, txn, "hello").await;
        }
        let lazy = filter(&json!({ "lazy_load_members": true }));
        let found = page(&carol, &room, &format!("dir=b&limit=3{lazy}")).await;
        let state = found["state"].as_array().expect("it was asked for");
        let mut members: Vec<_> = state.iter().filter_map(|event| event["state_key"].as_str()).collect();
        members.sort_unstable();
        assert_eq!(members, [alice.user_id.as_str(), &bob.user_id]);
        assert!(page(&carol, &room, "dir=b&limit=3").await.get("state").is_none());
    }
}
