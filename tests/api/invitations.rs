//! Invitations and knocks that wait for an answer: what is shown of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

/// More rooms than one statement reads.
const ROOMS: usize = 45;

/// Creates a room on which users may knock.
async fn door(client: &Client, name: &str) -> String {
    let knock = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
    client.create_room(json!({ "preset": "private_chat", "initial_state": knock, "name": name })).await
}

/// The names of the rooms in a section of an answer, by room.
fn names(answer: &Value, section: &str, field: &str) -> BTreeMap<String, String> {
    let rooms = answer["rooms"][section].as_object().into_iter().flatten();
    let name = |events: &Value| {
        let mut events = events.as_array().expect("a checked answer has it").iter();
        let name = events.find(|event| event["type"] == "m.room.name").expect("each room has a name");
        name["content"]["name"].as_str().expect("text").to_owned()
    };
    rooms.map(|(room, shown)| (room.clone(), name(&shown[field]["events"]))).collect()
}

both_engines! {
    async fn many_invitations_and_knocks_are_shown_with_their_rooms(server: TestServer) {
        let mut server = server;
        let (alice, bob, eve) = (server.register("alice").await, server.register("bob").await, server.register("eve").await);
        let list = v3(["user", &bob.user_id, "account_data", "m.ignored_user_list"]);
        bob.put(&list, json!({ "ignored_users": { eve.user_id.clone(): {} } })).await.ok();
        let start = bob.sync(None).await;
        let since = start["next_batch"].as_str().expect("checked");
        let (mut invited, mut knocked) = (BTreeMap::new(), BTreeMap::new());
        for number in 0..ROOMS {
            let name = format!("room {number}");
            let room = door(&alice, &name).await;
            if number % 5 == 0 {
                bob.post(&v3(["knock", &room]), json!({})).await.ok();
                knocked.insert(room, name);
            } else {
                alice.invite(&room, &bob.user_id).await;
                invited.insert(room, name);
            }
        }
        assert!(invited.len() > 32);
        // From somebody whom bob ignores, and one that he has answered.
        eve.invite(&door(&eve, "ignored").await, &bob.user_id).await;
        let answered = door(&alice, "answered").await;
        alice.invite(&answered, &bob.user_id).await;
        bob.leave(&answered).await;
        // Checks what memory has, and then what was stored.
        for again in [false, true] {
            if again {
                server.restart().await;
            }
            for since in [None, Some(since)] {
                let answer = bob.sync(since).await;
                assert_eq!(names(&answer, "invite", "invite_state"), invited, "again: {again}, since: {since:?}");
                assert_eq!(names(&answer, "knock", "knock_state"), knocked, "again: {again}, since: {since:?}");
                let next = bob.sync(answer["next_batch"].as_str()).await;
                assert_eq!(next.get("rooms"), None, "they are told once: {next}");
            }
        }
        let first = invited.keys().next().expect("there are some").clone();
        let waiting = bob.sync(None).await;
        bob.join(&first).await;
        invited.remove(&first);
        let answer = bob.sync(waiting["next_batch"].as_str()).await;
        assert!(answer["rooms"]["join"].get(&first).is_some(), "{answer}");
        assert_eq!(names(&bob.sync(None).await, "invite", "invite_state"), invited);
    }
}
