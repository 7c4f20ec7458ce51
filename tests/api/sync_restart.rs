//! Clients after a restart, which makes the server forget who types and who is online.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

fn next(answer: &Value) -> &str {
    answer["next_batch"].as_str().expect("a checked answer has it")
}

fn typists<'a>(answer: &'a Value, room: &str) -> Option<&'a Value> {
    let events = answer["rooms"]["join"][room]["ephemeral"]["events"].as_array()?;
    events.iter().find(|event| event["type"] == "m.typing").map(|event| &event["content"]["user_ids"])
}

fn presence<'a>(answer: &'a Value, client: &Client) -> Option<&'a Value> {
    let events = answer["presence"]["events"].as_array()?;
    events.iter().find(|event| event["sender"] == client.user_id).map(|event| &event["content"]["presence"])
}

both_engines! {
    async fn typing_ends_with_the_server_that_told_of_it(mut server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let mut rooms = Vec::new();
        for _ in 0..3 {
            let room = alice.create_room(json!({ "preset": "public_chat" })).await;
            bob.join(&room).await;
            rooms.push(room);
        }
        let quiet = alice.sync(None).await;
        for room in &rooms[..2] {
            let path = v3(["rooms", room, "typing", &bob.user_id]);
            bob.put(&path, json!({ "typing": true, "timeout": 60_000 })).await.ok();
        }
        let told = alice.sync(Some(next(&quiet))).await;
        assert_eq!(typists(&told, &rooms[0]), Some(&json!([bob.user_id])), "{told}");
        // The token still names the room after an answer without news of it.
        let later = alice.sync(Some(next(&told))).await;
        bob.put(&v3(["rooms", &rooms[1], "typing", &bob.user_id]), json!({ "typing": false })).await.ok();
        let later = alice.sync(Some(next(&later))).await;
        assert_eq!(typists(&later, &rooms[1]), Some(&json!([])), "{later}");

        server.restart().await;
        let after = alice.sync(Some(next(&later))).await;
        assert_eq!(typists(&after, &rooms[0]), Some(&json!([])), "{after}");
        for room in &rooms[1..] {
            assert!(after["rooms"]["join"].get(room).is_none(), "there is no news of {room}: {after}");
        }
        // The end of typing is told once, and again if that answer was lost.
        assert_eq!(typists(&alice.sync(Some(next(&later))).await, &rooms[0]), Some(&json!([])));
        assert!(alice.sync(Some(next(&after))).await.get("rooms").is_none());
        // A client that saw nobody type is told nothing.
        assert!(alice.sync(Some(next(&quiet))).await.get("rooms").is_none());
    }

    async fn whoever_was_online_before_a_restart_is_offline_until_they_are_back(mut server: TestServer) {
        let (alice, bob, carol) = (server.register("alice").await, server.register("bob").await, server.register("carol").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let quiet = alice.sync(None).await;
        bob.sync(None).await;
        carol.sync(None).await;
        let told = alice.sync(Some(next(&quiet))).await;
        assert_eq!(presence(&told, &bob), Some(&json!("online")), "{told}");

        server.restart().await;
        let after = alice.sync(Some(next(&told))).await;
        assert_eq!(presence(&after, &bob), Some(&json!("offline")), "{after}");
        assert_eq!(presence(&after, &carol), None, "alice shares no room with carol: {after}");
        assert_eq!(presence(&alice.sync(Some(next(&after))).await, &bob), None);
        bob.sync(None).await;
        assert_eq!(presence(&alice.sync(Some(next(&after))).await, &bob), Some(&json!("online")));
        assert_eq!(presence(&alice.sync(Some(next(&told))).await, &bob), Some(&json!("online")));
    }
}
