//! State in `/sync`: every event that a client does not see in the timeline must be in the state.

mod history_visibility;
mod members;

use serde_json::{Value, json};

use crate::harness::{
    Client, TestServer,
    follower::{Follower, Way, events},
    v3,
};

async fn room_with(owner: &Client, visibility: &str) -> String {
    let state = json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": visibility } }]);
    owner.create_room(json!({ "preset": "private_chat", "initial_state": state })).await
}

fn way(state_after: bool, lazy: bool) -> Way {
    Way { state_after, lazy, ..Way::default() }
}

fn of_type<'a>(events: &'a [Value], event_type: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == event_type).collect()
}

/// Returns the users whose member events are in the state of an answer.
fn members(room: &Value, state_after: bool) -> Vec<String> {
    let state = if state_after { &room["state_after"] } else { &room["state"] };
    let of = of_type(events(state), "m.room.member");
    of.iter().filter_map(|event| event["state_key"].as_str().map(str::to_owned)).collect()
}

both_engines! {
    /// A filter of senders lets through Alice's topic and hides Bob's newer one.
    async fn a_filter_of_the_timeline_leaves_no_outdated_state(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let power = json!({ "state_default": 0 });
        let room = alice.create_room(json!({ "preset": "public_chat", "power_level_content_override": power })).await;
        bob.join(&room).await;
        let timeline = [("senders", json!([alice.user_id]))].into();
        let mut follower = Follower::new(alice.clone(), Way { timeline, ..Way::default() });
        follower.sync().await;
        alice.set_state(&room, "m.room.topic", "", json!({ "topic": "of alice" })).await;
        bob.set_state(&room, "m.room.topic", "", json!({ "topic": "of bob" })).await;
        alice.send_text(&room, "1", "hello").await;
        let answer = follower.sync().await;
        follower.compare().await;
        let shown = events(&answer["rooms"]["join"][&room]["timeline"]);
        assert_eq!(shown.iter().map(|event| &event["type"]).collect::<Vec<_>>(), ["m.room.message"], "{answer}");
    }

    /// Clients with `use_state_after` do not look for state in the timeline.
    async fn the_end_of_an_invitation_a_knock_or_a_ban_is_told_as_state_after(server: TestServer) {
        let alice = server.register("alice").await;
        for (how, end) in [("invite", "leave"), ("invite", "kick"), ("knock", "leave"), ("knock", "kick"), ("ban", "unban")] {
            let bob = server.register(&format!("bob-{how}-{end}")).await;
            let rules = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
            let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": rules })).await;
            let target = json!({ "user_id": bob.user_id });
            match how {
                "invite" => alice.invite(&room, &bob.user_id).await,
                "knock" => _ = bob.post(&v3(["knock", &room]), json!({})).await.ok(),
                how => _ = alice.post(&v3(["rooms", &room, how]), target.clone()).await.ok(),
            }
            let mut follower = Follower::new(bob.clone(), way(true, false));
            follower.sync().await;
            match end {
                "leave" => bob.leave(&room).await,
                end => _ = alice.post(&v3(["rooms", &room, end]), target).await.ok(),
            }
            let answer = follower.sync().await;
            let told = events(&answer["rooms"]["leave"][&room]["state_after"]);
            assert_eq!(told.len(), 1, "{how}, {end}: {answer}");
            assert_eq!((&told[0]["state_key"], &told[0]["content"]["membership"]), (&json!(bob.user_id), &json!("leave")));
        }
    }

    /// The end of an invitation is told as state if the timeline's filter hides it. If the state's filter hides it too,
    /// the room is still listed among those that were left.
    async fn a_filter_does_not_hide_that_a_room_was_left(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let nothing: Vec<&str> = Vec::new();
        for state_types in [None, Some(nothing)] {
            let told_as_state = usize::from(state_types.is_none());
            let way = Way { timeline: [("types", json!(["m.room.message"]))].into(), state_types, ..Way::default() };
            let mut follower = Follower::new(bob.login_again().await, way);
            let invited = room_with(&alice, "shared").await;
            let joined = room_with(&alice, "shared").await;
            for room in [&invited, &joined] {
                alice.invite(room, &bob.user_id).await;
            }
            bob.join(&joined).await;
            follower.sync().await;
            for room in [&invited, &joined] {
                bob.leave(room).await;
            }
            bob.post(&v3(["rooms", &joined, "forget"]), json!({})).await.ok();
            let answer = follower.sync().await;
            for room in [&invited, &joined] {
                let told = &answer["rooms"]["leave"][room];
                assert!(told.is_object(), "{answer}");
                assert_eq!(members(told, false).len(), told_as_state, "{answer}");
            }
        }
    }
}
