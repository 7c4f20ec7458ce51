//! The members of a room in its state: those that have changed, those that a lazy client needs, and heroes.

use sabha::store::committer::CommitStep;

use super::*;
use crate::harness::steps::Steps;

both_engines! {
    /// The sync ends after the departure, while memory already has the return, which is committed next.
    async fn a_departure_is_told_also_when_the_return_is_not_visible_yet(server: TestServer) {
        let (alice, bob, carol) = (server.register("alice").await, server.register("bob").await, server.register("carol").await);
        let mut steps = Steps::of(server.app());
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
            let join = {
                let (bob, room) = (bob.clone(), room.clone());
                async move { bob.join(&room).await }
            };
            let mut told = false;
            steps.during(join, async |step| {
                // Only the first time: the server may commit something of its own too.
                if step == CommitStep::Remembered && !std::mem::replace(&mut told, true) {
                    let answer = follower.sync().await;
                    assert!(answer["rooms"]["leave"].get(&room).is_some(), "{how}: {answer}");
                }
            }).await;
            assert!(told, "{how}");
            follower.way.timeline_limit = Some(1);
            let answer = follower.sync().await;
            assert!(answer["rooms"]["join"].get(&room).is_some(), "{how}: {answer}");
            follower.compare().await;
        }
    }

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
}
