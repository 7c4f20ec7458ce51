//! The answer about a room that its user has just joined.

use serde_json::json;

use crate::harness::{TestServer, v3};

both_engines! {
    async fn the_timeline_of_a_room_that_was_left_does_not_seem_to_go_on(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        alice.send_text(&room, "1", "seen by bob").await;
        let filter: String = v3([&json!({ "room": { "timeline": { "types": ["m.room.message"] } } }).to_string()]);
        let filtered = format!("timeout=0&filter={}", filter.rsplit('/').next().expect("one segment"));
        let timeline = |answer: &serde_json::Value| {
            let timeline = &answer["rooms"]["join"][&room]["timeline"];
            (timeline["events"].as_array().map_or(0, Vec::len), timeline["limited"].clone())
        };
        let first = bob.sync_with(None, &filtered).await;
        assert_eq!(timeline(&first), (1, json!(false)));
        bob.leave(&room).await;
        alice.send_text(&room, "2", "while bob was away").await;
        let away = bob.sync(first["next_batch"].as_str()).await;
        bob.join(&room).await;
        alice.send_text(&room, "3", "bob is back").await;
        // All events from the beginning fit into the answer, but they do not continue the client's timeline.
        for parameters in ["timeout=0", &filtered] {
            let (events, limited) = timeline(&bob.sync_with(away["next_batch"].as_str(), parameters).await);
            assert!(events >= 3 && limited == true, "{parameters}: {events}, {limited}");
        }
    }

    /// The first events of the room are older than its hidden history, so bob sees them, but not the messages after
    /// them.
    async fn hidden_events_do_not_hide_that_there_are_older_ones(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let state = json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
        let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": state })).await;
        for txn in ["1", "2", "3"] {
            alice.send_text(&room, txn, "before bob").await;
        }
        bob.join(&room).await;
        let filter: String = v3([&json!({ "room": { "timeline": { "limit": 3 } } }).to_string()]);
        let filter = filter.rsplit('/').next().expect("one segment");
        let answer = bob.sync_with(None, &format!("timeout=0&filter={filter}")).await;
        let timeline = &answer["rooms"]["join"][&room]["timeline"];
        assert_eq!(timeline["events"].as_array().map(Vec::len), Some(1), "{timeline}");
        assert_eq!(timeline["limited"], true, "{timeline}");
        let from = timeline["prev_batch"].as_str().expect("a gap says where it ends");
        let page = bob.get(&format!("{}?dir=b&limit=100&from={from}", v3(["rooms", &room, "messages"]))).await.ok();
        let oldest = page["chunk"].as_array().and_then(|chunk| chunk.last()).expect("older events");
        assert_eq!(oldest["type"], "m.room.create", "{page}");
    }

    async fn each_event_says_what_the_user_was_when_it_happened(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        alice.send_text(&room, "1", "before").await;
        bob.join(&room).await;
        alice.send_text(&room, "2", "after").await;
        let answer = bob.sync(None).await;
        let events = answer["rooms"]["join"][&room]["timeline"]["events"].as_array().expect("a list").clone();
        let joined = events.iter().position(|event| event["state_key"] == bob.user_id).expect("bob's join");
        for (n, event) in events.iter().enumerate() {
            let expected = if n < joined { "leave" } else { "join" };
            assert_eq!(event["unsigned"]["membership"], expected, "{event}");
        }
    }
}
