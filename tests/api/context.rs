//! `GET /context` and `GET /event`.

use serde_json::{Value, json};

use crate::harness::{TestServer, v3};

fn ids(events: &Value) -> Vec<&str> {
    let events = events.as_array().expect("a checked answer has it");
    events.iter().filter_map(|event| event["event_id"].as_str()).collect()
}

both_engines! {
    async fn an_event_is_shown_with_its_surroundings(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let mut sent = Vec::new();
        for number in 0..9 {
            sent.push(alice.send_text(&room, &format!("t{number}"), "hello").await);
        }
        let path = v3(["rooms", &room, "context", &sent[4]]);
        let context = alice.get(&(path.clone() + "?limit=4")).await.ok();
        assert_eq!(context["event"]["event_id"], sent[4].as_str());
        assert_eq!(ids(&context["events_before"]), [sent[3].as_str(), &sent[2]]);
        assert_eq!(ids(&context["events_after"]), [sent[5].as_str(), &sent[6]]);
        assert_eq!(context["state"].as_array().map(Vec::len), Some(6));
        // Pages from both ends continue without a gap.
        let (start, end) = (context["start"].as_str().expect("given"), context["end"].as_str().expect("given"));
        let messages = v3(["rooms", &room, "messages"]);
        let before = alice.get(&format!("{messages}?dir=b&limit=1&from={start}")).await.ok();
        assert_eq!(ids(&before["chunk"]), [sent[1].as_str()]);
        let after = alice.get(&format!("{messages}?dir=f&limit=1&from={end}")).await.ok();
        assert_eq!(ids(&after["chunk"]), [sent[7].as_str()]);
        let alone = alice.get(&(path + "?limit=0")).await.ok();
        assert!(ids(&alone["events_before"]).is_empty() && ids(&alone["events_after"]).is_empty());
    }

    async fn with_lazy_loading_the_state_has_only_the_members_whose_events_are_shown(server: TestServer) {
        let (alice, bob, carol) =
            (server.register("alice").await, server.register("bob").await, server.register("carol").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        carol.join(&room).await;
        let before = bob.send_text(&room, "1", "from bob").await;
        let event = alice.send_text(&room, "2", "hello").await;
        let state = async |event: &str, parameters: &str| {
            let context = alice.get(&format!("{}?{parameters}", v3(["rooms", &room, "context", event]))).await.ok();
            let state = context["state"].as_array().expect("a checked answer has it").clone();
            let (members, others): (Vec<_>, Vec<_>) = state.into_iter().partition(|e| e["type"] == "m.room.member");
            let mut members: Vec<_> = members.iter().map(|member| member["state_key"].clone()).collect();
            members.sort_by_key(ToString::to_string);
            (json!(members), others.len())
        };
        let (all, others) = state(&event, "limit=0").await;
        assert_eq!(all, json!([alice.user_id, bob.user_id, carol.user_id]));
        let lazy = |limit: usize| format!("limit={limit}&filter=%7B%22lazy_load_members%22%3Atrue%7D");
        assert_eq!(state(&event, &lazy(0)).await, (json!([alice.user_id]), others));
        assert_eq!(state(&event, &lazy(2)).await, (json!([alice.user_id, bob.user_id]), others));
        assert_eq!(state(&before, &lazy(0)).await, (json!([bob.user_id]), others));
    }

    async fn what_may_not_be_seen_is_not_found(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({})).await;
        let other = alice.create_room(json!({})).await;
        let event_id = alice.send_text(&room, "1", "hello").await;
        bob.get(&v3(["rooms", &room, "event", &event_id])).await.error(404, "M_NOT_FOUND");
        bob.get(&v3(["rooms", &room, "context", &event_id])).await.error(403, "M_FORBIDDEN");
        alice.get(&v3(["rooms", &other, "event", &event_id])).await.error(404, "M_NOT_FOUND");
        alice.get(&v3(["rooms", &other, "context", &event_id])).await.error(404, "M_NOT_FOUND");
        alice.get(&v3(["rooms", &room, "event", "$none"])).await.error(404, "M_NOT_FOUND");
    }
}
