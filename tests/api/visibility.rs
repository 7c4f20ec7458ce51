//! History visibility: the events that a user sees from before they joined and after they left.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

/// Returns the texts in the room that a user sees.
async fn bodies(client: &Client, room: &str) -> Vec<String> {
    let page = client.get(&(v3(["rooms", room, "messages"]) + "?dir=f&limit=100")).await.ok();
    let chunk = page["chunk"].as_array().expect("a checked answer has it").clone();
    chunk.iter().filter_map(|event| event["content"]["body"].as_str().map(String::from)).collect()
}

async fn room_with(alice: &Client, visibility: &str) -> String {
    let state = json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": visibility } }]);
    alice.create_room(json!({ "preset": "public_chat", "initial_state": state })).await
}

both_engines! {
    async fn each_visibility_shows_what_the_specification_says(server: TestServer) {
        let alice = server.register("alice").await;
        let table: [(&str, &[&str]); 4] = [
            ("world_readable", &["before", "invited", "joined", "left"]),
            ("shared", &["before", "invited", "joined"]),
            ("invited", &["invited", "joined"]),
            ("joined", &["joined"]),
        ];
        for (visibility, seen) in table {
            let bob = server.register(&format!("bob-{visibility}")).await;
            let room = room_with(&alice, visibility).await;
            alice.send_text(&room, "1", "before").await;
            alice.invite(&room, &bob.user_id).await;
            alice.send_text(&room, "2", "invited").await;
            bob.join(&room).await;
            let joined = alice.send_text(&room, "3", "joined").await;
            bob.leave(&room).await;
            let left = alice.send_text(&room, "4", "left").await;
            assert_eq!(bodies(&bob, &room).await, seen, "{visibility}");
            bob.get(&v3(["rooms", &room, "event", &joined])).await.ok();
            let after = bob.get(&v3(["rooms", &room, "event", &left])).await;
            if visibility == "world_readable" {
                after.ok();
            } else {
                after.error(404, "M_NOT_FOUND");
            }
        }
    }

    async fn a_stranger_reads_only_what_the_world_may_read(server: TestServer) {
        let alice = server.register("alice").await;
        let eve = server.register("eve").await;
        for (visibility, readable) in [("world_readable", true), ("shared", false), ("invited", false), ("joined", false)] {
            let room = room_with(&alice, visibility).await;
            let event_id = alice.send_text(&room, "1", "hello").await;
            for path in [
                v3(["rooms", &room, "messages"]) + "?dir=b",
                v3(["rooms", &room, "state"]),
                v3(["rooms", &room, "state", "m.room.create"]),
                v3(["rooms", &room, "members"]),
                v3(["rooms", &room, "context", &event_id]),
            ] {
                let answer = eve.get(&path).await;
                if readable {
                    answer.ok();
                } else {
                    answer.error(403, "M_FORBIDDEN");
                }
            }
            eve.get(&v3(["rooms", &room, "joined_members"])).await.error(403, "M_FORBIDDEN");
        }
        eve.get(&(v3(["rooms", "!none:sabha.test", "messages"]) + "?dir=b")).await.error(403, "M_FORBIDDEN");
    }

    async fn who_left_reads_on_while_they_are_invited_again(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = room_with(&alice, "joined").await;
        bob.join(&room).await;
        alice.send_text(&room, "1", "together").await;
        bob.leave(&room).await;
        let before = bob.get(&v3(["rooms", &room, "state"])).await.ok();
        alice.send_text(&room, "2", "apart").await;
        alice.invite(&room, &bob.user_id).await;
        assert_eq!(bodies(&bob, &room).await, ["together"]);
        let state = bob.get(&v3(["rooms", &room, "state"])).await.ok();
        let ids = |state: &Value| {
            let events = state.as_array().expect("a list").iter();
            events.map(|event| event["event_id"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&state), ids(&before));
        bob.leave(&room).await;
        bob.post(&v3(["rooms", &room, "forget"]), json!({})).await.ok();
        bob.get(&v3(["rooms", &room, "state"])).await.error(403, "M_FORBIDDEN");
    }

    async fn who_left_sees_the_state_as_it_was_then(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = room_with(&alice, "shared").await;
        alice.set_state(&room, "m.room.topic", "", json!({ "topic": "old" })).await;
        bob.join(&room).await;
        bob.leave(&room).await;
        alice.set_state(&room, "m.room.topic", "", json!({ "topic": "new" })).await;
        let topic = v3(["rooms", &room, "state", "m.room.topic"]);
        assert_eq!(bob.get(&topic).await.ok(), json!({ "topic": "old" }));
        assert_eq!(alice.get(&topic).await.ok(), json!({ "topic": "new" }));
        let state = bob.get(&v3(["rooms", &room, "state"])).await.ok();
        let is_old = |event: &Value| event["type"] == "m.room.topic" && event["content"]["topic"] == "old";
        assert!(state.as_array().is_some_and(|events| events.iter().any(is_old)), "{state}");
    }

    async fn an_event_says_what_its_reader_was_in_the_room_then(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = room_with(&alice, "shared").await;
        alice.send_text(&room, "1", "before").await;
        bob.join(&room).await;
        alice.send_text(&room, "2", "joined").await;
        let page = bob.get(&(v3(["rooms", &room, "messages"]) + "?dir=f&limit=100")).await.ok();
        let chunk = page["chunk"].as_array().expect("a checked answer has it");
        let of = |body: &str| {
            let found = chunk.iter().find(|event| event["content"]["body"] == body);
            found.expect("it was sent")["unsigned"]["membership"].clone()
        };
        assert_eq!((of("before"), of("joined")), (json!("leave"), json!("join")));
    }
}
