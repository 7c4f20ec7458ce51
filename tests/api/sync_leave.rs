//! `/sync` and the state endpoints, for users who were never in a room or no longer are.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

async fn private_room(owner: &Client) -> String {
    let secret = json!({ "type": "org.secret", "state_key": "", "content": { "word": "tea" } });
    owner.create_room(json!({ "preset": "private_chat", "topic": "quiet", "initial_state": [secret] })).await
}

fn types(events: &Value) -> Vec<&str> {
    events.as_array().into_iter().flatten().filter_map(|event| event["type"].as_str()).collect()
}

both_engines! {
    /// The end of an invitation tells nothing about the room.
    async fn who_turns_an_invitation_down_learns_nothing_of_the_room(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = private_room(&alice).await;
        let before = bob.sync(None).await;
        alice.invite(&room, &bob.user_id).await;
        bob.post(&v3(["rooms", &room, "leave"]), json!({})).await.ok();
        let answer = bob.sync(before["next_batch"].as_str()).await;
        let left = &answer["rooms"]["leave"][&room];
        assert_eq!(types(&left["timeline"]["events"]), ["m.room.member"], "{answer}");
        assert_eq!(left["timeline"]["events"][0]["state_key"], json!(bob.user_id));
        assert_eq!(types(&left["state"]["events"]), [""; 0], "{answer}");
        bob.get(&v3(["rooms", &room, "state"])).await.error(403, "M_FORBIDDEN");
    }
}

both_engines! {
    /// A ban of a user who was never in the room tells them only about the ban.
    async fn who_is_banned_from_afar_learns_of_the_ban_alone(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = private_room(&alice).await;
        let before = bob.sync(None).await;
        alice.post(&v3(["rooms", &room, "ban"]), json!({ "user_id": bob.user_id })).await.ok();
        let answer = bob.sync(before["next_batch"].as_str()).await;
        let left = &answer["rooms"]["leave"][&room];
        assert_eq!(types(&left["timeline"]["events"]), ["m.room.member"], "{answer}");
        assert_eq!(types(&left["state"]["events"]), [""; 0], "{answer}");
    }
}

both_engines! {
    /// An ex-member sees the room's state as it was when they left, also after a later invitation that they turned down.
    async fn an_invitation_turned_down_does_not_renew_what_an_ex_member_sees(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = private_room(&alice).await;
        alice.invite(&room, &bob.user_id).await;
        bob.join(&room).await;
        bob.leave(&room).await;
        alice.set_state(&room, "m.room.topic", "", json!({ "topic": "without bob" })).await;
        alice.invite(&room, &bob.user_id).await;
        bob.leave(&room).await;
        let topic = bob.get(&v3(["rooms", &room, "state", "m.room.topic"])).await.ok();
        assert_eq!(topic["topic"], "quiet");
    }
}

both_engines! {
    /// Every device of a user learns that a room was left, even if it was forgotten at once.
    async fn a_forgotten_room_leaves_the_other_devices_too(server: TestServer) {
        let bob = server.register("bob").await;
        let room = private_room(&bob).await;
        let before = bob.sync(None).await;
        bob.send_text(&room, "1", "farewell").await;
        let between = bob.sync(before["next_batch"].as_str()).await;
        bob.leave(&room).await;
        bob.post(&v3(["rooms", &room, "forget"]), json!({})).await.ok();
        // Answers contain only the departure, and are limited if there were other events before it.
        for (since, limited) in [(&before, true), (&between, false)] {
            let answer = bob.sync(since["next_batch"].as_str()).await;
            let timeline = &answer["rooms"]["leave"][&room]["timeline"];
            assert_eq!((types(&timeline["events"]), &timeline["limited"]), (vec!["m.room.member"], &json!(limited)), "{answer}");
        }
        let first = bob.sync(None).await;
        assert!(first["rooms"]["leave"].get(&room).is_none(), "{first}");
    }
}

both_engines! {
    /// State that the timeline's filter hides is told as state.
    async fn state_that_the_timeline_hides_is_told_as_state(server: TestServer) {
        let alice = server.register("alice").await;
        let room = private_room(&alice).await;
        let before = alice.sync(None).await;
        let since = before["next_batch"].as_str();
        alice.send_text(&room, "1", "one").await;
        alice.set_state(&room, "m.room.name", "", json!({ "name": "Tea" })).await;
        alice.send_text(&room, "2", "two").await;
        let filter = "filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22types%22%3A%5B%22m.room.message%22%5D%7D%7D%7D";
        let answer = alice.sync_with(since, filter).await;
        let joined = &answer["rooms"]["join"][&room];
        assert_eq!(types(&joined["timeline"]["events"]), ["m.room.message"; 2], "{answer}");
        assert_eq!(types(&joined["state"]["events"]), ["m.room.name"], "{answer}");
    }
}

both_engines! {
    /// A redacted state event is not shown in the `unsigned` of the one that replaced it.
    async fn what_was_redacted_is_not_shown_as_previous_content(server: TestServer) {
        let alice = server.register("alice").await;
        let room = private_room(&alice).await;
        let first = alice.set_state(&room, "m.room.topic", "", json!({ "topic": "a slip" })).await;
        let second = alice.set_state(&room, "m.room.topic", "", json!({ "topic": "fine" })).await;
        alice.put(&v3(["rooms", &room, "redact", &first, "1"]), json!({})).await.ok();
        let event = alice.get(&v3(["rooms", &room, "event", &second])).await.ok();
        assert_eq!(event["unsigned"]["prev_content"], json!({}), "{event}");
        let answer = alice.sync(None).await;
        assert!(!answer.to_string().contains("a slip"), "{answer}");
    }
}

/// Returns the parameters of a `/sync` with this filter.
fn filtered(timeline: Value) -> String {
    let filter = json!({ "room": { "timeline": timeline } }).to_string();
    format!("timeout=0&filter={}", v3([&filter]).rsplit('/').next().expect("one segment"))
}

both_engines! {
    async fn a_filtered_timeline_that_just_fits_is_not_limited(server: TestServer) {
        let alice = server.register("alice").await;
        let room = private_room(&alice).await;
        alice.set_state(&room, "m.room.name", "", json!({ "name": "Tea" })).await;
        for txn in ["1", "2", "3"] {
            alice.send_text(&room, txn, "hello").await;
        }
        for (limit, limited) in [(2, true), (3, false), (4, false)] {
            let filter = filtered(json!({ "types": ["m.room.message"], "limit": limit }));
            let answer = alice.sync_with(None, &filter).await;
            let timeline = &answer["rooms"]["join"][&room]["timeline"];
            assert_eq!(timeline["events"].as_array().map(Vec::len), Some(limit.min(3)), "{answer}");
            assert_eq!(timeline["limited"], limited, "{limit}: {answer}");
        }
    }

    /// Own membership events are shown with a filter and without. Here bob rejected an invitation, and may not read
    /// that part of the history otherwise.
    async fn a_user_always_sees_what_became_of_themselves(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let visibility = json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
        let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": [visibility] })).await;
        alice.invite(&room, &bob.user_id).await;
        bob.leave(&room).await;
        alice.invite(&room, &bob.user_id).await;
        bob.join(&room).await;
        let of_bob = |answer: &Value| {
            let events = answer["rooms"]["join"][&room]["timeline"]["events"].as_array().expect("a list").clone();
            let own = events.into_iter().filter(|event| event["state_key"] == bob.user_id);
            own.map(|event| event["content"]["membership"].as_str().expect("it has one").to_owned()).collect::<Vec<_>>()
        };
        let plain = bob.sync_with(None, &filtered(json!({ "limit": 50 }))).await;
        let members = bob.sync_with(None, &filtered(json!({ "limit": 50, "types": ["m.room.member"] }))).await;
        assert_eq!(of_bob(&plain), ["invite", "leave", "invite", "join"], "{plain}");
        assert_eq!(of_bob(&members), of_bob(&plain), "{members}");
    }
}
