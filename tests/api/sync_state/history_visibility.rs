//! Newcomers who may not see all of the history: their state is whole, and hidden events do not end their timeline.

use super::*;

both_engines! {
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
}
