//! State in `/sync`: every event that a client does not see in the timeline must be in the state.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sabha::store::committer::CommitStep;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

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
    /// The sync ends after the departure, while memory already has the return, which is committed next.
    async fn a_departure_is_told_also_when_the_return_is_not_visible_yet(server: TestServer) {
        let (alice, bob, carol) = (server.register("alice").await, server.register("bob").await, server.register("carol").await);
        let armed = Arc::new(AtomicBool::new(false));
        let (sender, mut reached) = mpsc::unbounded_channel();
        let waits = Arc::clone(&armed);
        server.app().db.committer().on_step(Arc::new(move |step| {
            let waits = step == CommitStep::Remembered && waits.swap(false, Ordering::AcqRel);
            let sender = sender.clone();
            Box::pin(async move {
                let (go_on, gone_on) = oneshot::channel::<()>();
                if waits && sender.send(go_on).is_ok() {
                    let _: Result<(), _> = gone_on.await;
                }
            })
        }));
        for how in ["leave", "kick", "invite"] {
            let room = alice.create_room(json!({ "preset": "public_chat" })).await;
            for user in [&bob, &carol] {
                user.join(&room).await;
                user.send_text(&room, &format!("hello {room}"), "hello").await;
            }
            let mut follower = Follower::new(bob.login_again().await, Way { timeline_limit: Some(10), ..way(false, true) });
            follower.sync().await;
            match how {
                "leave" => bob.leave(&room).await,
                _ => _ = alice.post(&v3(["rooms", &room, "kick"]), json!({ "user_id": bob.user_id })).await.ok(),
            }
let renamed = json!({ "membership": "join", "displayname": how });
            carol.set_state(&room, "m.room.member", &carol.user_id, renamed).await;
            if how == "invite" {
                alice.invite(&room, &bob.user_id).await;
            }
            armed.store(true, Ordering::Release);
            let join = {
                let (bob, room) = (bob.clone(), room.clone());
                tokio::spawn(async move { bob.join(&room).await })
            };
            let go_on = reached.recv().await.expect("the committer gets there");
            let answer = follower.sync().await;
            assert!(answer["rooms"]["leave"].get(&room).is_some(), "{how}: {answer}");
            go_on.send(()).expect("the committer waits");
            join.await.expect("bob is back");
            follower.way.timeline_limit = Some(1);
            let answer = follower.sync().await;
            assert!(answer["rooms"]["join"].get(&room).is_some(), "{how}: {answer}");
            follower.compare().await;
        }
    }
}

both_engines! {
    /// A client that asks for the full state keeps its known members. Lazy loading leaves out members that it need not
    /// know, but not those that have changed.
    async fn the_full_state_tells_a_lazy_client_which_members_changed(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = room_with(&alice, "shared").await;
        alice.invite(&room, &bob.user_id).await;
        bob.join(&room).await;
        let filter = json!({ "room": { "timeline": { "limit": 1 }, "state": { "lazy_load_members": true } } });
        let filter: String = v3([&filter.to_string()]).rsplit('/').next().expect("one segment").to_owned();
        for state_after in [false, true] {
            let parameters = format!("timeout=0&filter={filter}&use_state_after={state_after}");
            let first = alice.sync_with(None, &parameters).await;
            let nonce = format!("{state_after}");
            alice.post(&v3(["rooms", &room, "ban"]), json!({ "user_id": bob.user_id, "reason": nonce })).await.ok();
            alice.send_text(&room, &nonce, "the timeline shows this alone").await;
            let since = first["next_batch"].as_str();
            let answer = alice.sync_with(since, &format!("{parameters}&full_state=true")).await;
            let told = members(&answer["rooms"]["join"][&room], state_after);
            assert!(told.contains(&bob.user_id), "{state_after}: {told:?}");
        }
    }

    /// A user who comes back keeps the members that they knew, so changes are told, however the earlier stay ended.
    async fn who_comes_back_lazily_is_told_which_members_changed(server: TestServer) {
        let alice = server.register("alice").await;
        for state_after in [false, true] {
            for how in ["leave", "leave unseen", "leave and invite", "invite and reject", "forget"] {
                let name = |who: &str| format!("{who}-{}-{}", how.replace(' ', "-"), u8::from(state_after));
                let (bob, dora) = (server.register(&name("bob")).await, server.register(&name("dora")).await);
                let room = alice.create_room(json!({ "preset": "public_chat", "name": "Tea" })).await;
                bob.join(&room).await;
                let way = Way { timeline_limit: Some(1), ..way(state_after, true) };
                let mut follower = Follower::new(bob.login_again().await, way);
                follower.sync().await;
                dora.join(&room).await;
                follower.sync().await;
                let key = ("m.room.member".to_owned(), dora.user_id.clone());
                assert!(follower.rooms[&room].contains_key(&key), "{how}");

                if how == "leave and invite" || how == "invite and reject" {
                    // The client is never told of the events before the departure.
                    dora.leave(&room).await;
                }
                bob.leave(&room).await;
                match how {
                    "leave unseen" => {}
                    "leave and invite" => alice.invite(&room, &bob.user_id).await,
                    "invite and reject" => {
                        alice.invite(&room, &bob.user_id).await;
                        follower.sync().await;
                        bob.leave(&room).await;
                    }
                    "forget" => _ = bob.post(&v3(["rooms", &room, "forget"]), json!({})).await.ok(),
                    _ => {}
                }
                if how != "leave unseen" {
                    follower.sync().await;
                }
                if how != "leave and invite" && how != "invite and reject" {
                    dora.leave(&room).await;
                }
                bob.join(&room).await;
                alice.send_text(&room, "last", "the timeline shows this alone").await;
                let answer = follower.sync().await;
                let told = members(&answer["rooms"]["join"][&room], state_after);
                assert!(told.contains(&dora.user_id), "{how}, {state_after}: {answer}");
                follower.compare().await;
            }
        }
    }

    /// Members that the newcomer does not see are not told.
    async fn who_comes_for_the_first_time_is_told_of_no_member_that_they_do_not_see(server: TestServer) {
        let (alice, bob, dora) = (server.register("alice").await, server.register("bob").await, server.register("dora").await);
        for state_after in [false, true] {
            let room = alice.create_room(json!({ "preset": "public_chat", "name": "Tea" })).await;
            let way = Way { timeline_limit: Some(1), ..way(state_after, true) };
            let mut follower = Follower::new(bob.login_again().await, way);
            follower.sync().await;
            dora.join(&room).await;
            bob.join(&room).await;
            alice.send_text(&room, "last", "the timeline shows this alone").await;
            let answer = follower.sync().await;
            let told = members(&answer["rooms"]["join"][&room], state_after);
            assert!(!told.contains(&dora.user_id) && told.contains(&alice.user_id), "{answer}");
        }
    }

    /// The room gets its encryption and name while the newcomer may not see the history yet.
    async fn who_comes_later_knows_that_the_room_is_encrypted(server: TestServer) {
        let alice = server.register("alice").await;
        for visibility in ["world_readable", "shared", "invited", "joined"] {
            for (state_after, lazy, initial) in [
                (false, false, true), (false, true, true), (true, false, true), (true, true, true),
                (false, false, false), (false, true, false), (true, false, false), (true, true, false),
            ] {
                let (bob, carol) = {
                    let name = |who: &str| format!("{who}-{visibility}-{}{}{}", u8::from(state_after), u8::from(lazy), u8::from(initial));
                    (server.register(&name("bob")).await, server.register(&name("carol")).await)
                };
                let room = room_with(&alice, visibility).await;
                alice.invite(&room, &bob.user_id).await;
                alice.invite(&room, &carol.user_id).await;
                let mut follower = Follower::new(carol.clone(), way(state_after, lazy));
                if !initial {
                    follower.sync().await;
                }
                bob.join(&room).await;
                alice.set_state(&room, "m.room.encryption", "", json!({ "algorithm": "m.megolm.v1.aes-sha2" })).await;
                alice.set_state(&room, "m.room.name", "", json!({ "name": "Tea" })).await;
                carol.join(&room).await;
                follower.sync().await;
                follower.compare().await;

                // Repeats the check after an absence in which more happened.
                for how in ["leave", "kick", "forget"] {
                    match how {
                        "kick" => _ = alice.post(&v3(["rooms", &room, "kick"]), json!({ "user_id": carol.user_id })).await.ok(),
                        _ => carol.leave(&room).await,
                    }
                    if how == "forget" {
                        carol.post(&v3(["rooms", &room, "forget"]), json!({})).await.ok();
                    }
                    follower.sync().await;
                    alice.set_state(&room, "m.room.topic", "", json!({ "topic": how })).await;
                    bob.leave(&room).await;
                    alice.invite(&room, &bob.user_id).await;
                    alice.invite(&room, &carol.user_id).await;
                    carol.join(&room).await;
                    bob.join(&room).await;
                    follower.sync().await;
                    follower.compare().await;
                }
            }
        }
    }

    /// An older topic could be shown in the timeline, but not the newer one. The older topic must not come last.
    async fn an_older_event_that_is_shown_does_not_win_over_a_newer_one_that_is_not(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = room_with(&alice, "shared").await;
        alice.invite(&room, &bob.user_id).await;
        alice.set_state(&room, "m.room.topic", "", json!({ "topic": "old" })).await;
        alice.set_state(&room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" })).await;
        let newer = alice.set_state(&room, "m.room.topic", "", json!({ "topic": "new" })).await;
        bob.join(&room).await;
        let mut follower = Follower::new(bob.clone(), Way { timeline_limit: Some(50), ..Way::default() });
        let answer = follower.sync().await;
        let told = &answer["rooms"]["join"][&room];
        assert_eq!(of_type(events(&told["timeline"]), "m.room.topic"), [&Value::Null; 0], "{answer}");
        assert_eq!(of_type(events(&told["state"]), "m.room.topic")[0]["event_id"], newer, "{answer}");
        follower.compare().await;
        // Events that are left out of the timeline can be read from its start.
        assert_eq!(told["timeline"]["limited"], true);
        let from = told["timeline"]["prev_batch"].as_str().expect("it says where");
        let page = bob.get(&format!("{}?dir=b&limit=100&from={from}", v3(["rooms", &room, "messages"]))).await.ok();
        let topics = page["chunk"].as_array().expect("a page").iter().filter(|event| event["type"] == "m.room.topic");
        assert_eq!(topics.map(|event| event["content"]["topic"].clone()).collect::<Vec<_>>(), ["old"], "{page}");
    }

    /// The latest events before the newcomer's join are hidden, but older ones are not.
    async fn what_is_hidden_in_between_does_not_end_the_timeline(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = room_with(&alice, "shared").await;
        alice.invite(&room, &bob.user_id).await;
        let seen = alice.send_text(&room, "1", "for all").await;
        alice.set_state(&room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" })).await;
        for txn in ["2", "3"] {
            alice.send_text(&room, txn, "for members").await;
        }
        bob.join(&room).await;
        for initial in [true, false] {
            let since = if initial { None } else { Some(bob.sync(None).await["next_batch"].as_str().expect("a token").to_owned()) };
            if !initial {
                bob.leave(&room).await;
                bob.sync(since.as_deref()).await;
                alice.invite(&room, &bob.user_id).await;
                bob.join(&room).await;
            }
            let way = Way { timeline_limit: Some(2), ..Way::default() };
            let answer = bob.sync_with(since.as_deref(), &Follower::new(bob.clone(), way).parameters()).await;
            let timeline = &answer["rooms"]["join"][&room]["timeline"];
            assert_eq!(timeline["limited"], true, "{answer}");
            let from = timeline["prev_batch"].as_str().expect("a checked answer has it");
            let page = bob.get(&format!("{}?dir=b&limit=100&from={from}", v3(["rooms", &room, "messages"]))).await.ok();
            let before: Vec<_> = page["chunk"].as_array().expect("a page").iter().map(|event| &event["event_id"]).collect();
            assert!(before.contains(&&json!(seen)), "{page}");
        }
    }

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

    async fn heroes_come_with_their_member_events_and_once(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        for state_after in [false, true] {
            let room = alice.create_room(json!({ "preset": "public_chat" })).await;
            bob.join(&room).await;
            alice.send_text(&room, "1", "one").await;
            alice.send_text(&room, "2", "two").await;
            let way = Way { timeline_limit: Some(1), ..way(state_after, true) };
            let mut follower = Follower::new(alice.login_again().await, way);
            let answer = follower.sync().await;
            let told = &answer["rooms"]["join"][&room];
            assert_eq!(told["summary"]["m.heroes"], json!([bob.user_id]), "{answer}");
            assert!(members(told, state_after).contains(&bob.user_id), "{answer}");

            // The room gets a name and loses it again: by then the client has bob's member event.
            alice.set_state(&room, "m.room.name", "", json!({ "name": "Tea" })).await;
            follower.sync().await;
            alice.set_state(&room, "m.room.name", "", json!({})).await;
            let answer = follower.sync().await;
            let told = &answer["rooms"]["join"][&room];
            assert_eq!(told["summary"]["m.heroes"], json!([bob.user_id]), "{answer}");
            assert_eq!(members(told, state_after), [""; 0], "{answer}");
        }
    }

    async fn a_hero_whom_the_client_does_not_know_is_told_when_a_name_is_removed(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        for state_after in [false, true] {
            let room = alice.create_room(json!({ "preset": "public_chat", "name": "Tea" })).await;
            bob.join(&room).await;
            alice.send_text(&room, "1", "one").await;
            let way = Way { timeline_limit: Some(1), ..way(state_after, true) };
            let mut follower = Follower::new(alice.login_again().await, way);
            let answer = follower.sync().await;
            let told = &answer["rooms"]["join"][&room];
            assert!(!members(told, state_after).contains(&bob.user_id), "{answer}");
            alice.set_state(&room, "m.room.name", "", json!({})).await;
            let answer = follower.sync().await;
            let told = &answer["rooms"]["join"][&room];
            assert_eq!(told["summary"]["m.heroes"], json!([bob.user_id]), "{answer}");
            assert_eq!(members(told, state_after), [bob.user_id.as_str()], "{answer}");
        }
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
