//! Joining, inviting, leaving, kicking, banning, knocking and forgetting.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

async fn membership(client: &Client, room: &str, user_id: &str) -> Value {
    client.get(&v3(["rooms", room, "state", "m.room.member", user_id])).await.ok()["membership"].clone()
}

async fn members(client: &Client, room: &str, query: &str) -> Vec<String> {
    let answer = client.get(&(v3(["rooms", room, "members"]) + query)).await.ok();
    let chunk = answer["chunk"].as_array().expect("a checked answer has it");
    let mut members: Vec<_> = chunk.iter().filter_map(|event| event["state_key"].as_str()).map(String::from).collect();
    members.sort();
    members
}

both_engines! {
    async fn an_invitation_lets_a_user_into_a_private_room(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({})).await;
        bob.post(&v3(["join", &room]), json!({})).await.error(403, "M_FORBIDDEN");
        alice.invite(&room, &bob.user_id).await;
        assert_eq!(membership(&alice, &room, &bob.user_id).await, "invite");
        bob.join(&room).await;
        bob.join(&room).await;
        assert_eq!(membership(&bob, &room, &bob.user_id).await, "join");
        let invite = v3(["rooms", &room, "invite"]);
        alice.post(&invite, json!({ "user_id": bob.user_id })).await.error(403, "M_FORBIDDEN");
        alice.post(&invite, json!({ "user_id": "@bob:elsewhere.test" })).await.error(403, "M_FORBIDDEN");
        let by_mail = json!({ "id_server": "id.test", "id_access_token": "x", "medium": "email", "address": "a@b.c" });
        alice.post(&invite, by_mail).await.error(400, "M_THREEPID_DENIED");
        // Nobody has that name yet; the invitation is kept.
        alice.invite(&room, "@later:sabha.test").await;
        assert_eq!(membership(&alice, &room, "@later:sabha.test").await, "invite");
    }

    async fn an_invitation_stays_small_whatever_the_room_holds(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        // In the first room each event is small enough to be sent whole, but not all of them together.
        for length in [3_600, 30_000] {
            let more = "x".repeat(length);
            let creation = json!({ "org.example.more": more });
            let room = alice.create_room(json!({ "room_version": "10", "creation_content": creation })).await;
            let set = async |event_type: &str, content: Value| alice.set_state(&room, event_type, "", content).await;
            set("m.room.name", json!({ "name": "Tea", "more": more })).await;
            set("m.room.topic", json!({ "topic": more })).await;
            set("m.room.avatar", json!({ "url": "mxc://sabha.test/tea", "info": { "more": more } })).await;
            set("m.room.encryption", json!({ "algorithm": "m.megolm.v1.aes-sha2", "more": more })).await;
            let allow = json!([{ "type": "m.room_membership", "room_id": "!a:sabha.test", "more": more }]);
            set("m.room.join_rules", json!({ "join_rule": "restricted", "allow": allow })).await;
            alice.invite(&room, &bob.user_id).await;
            let news = bob.sync(None).await;
            let shown = &news["rooms"]["invite"][room.as_str()]["invite_state"]["events"];
            assert!(shown.to_string().len() <= 16_384, "{length}: {} bytes", shown.to_string().len());
            let content = |event_type: &str| {
                let mut events = shown.as_array().into_iter().flatten();
                events.find(|event| event["type"] == event_type).map(|event| event["content"].clone())
            };
            assert_eq!(content("m.room.name"), Some(json!({ "name": "Tea" })), "{length}");
            assert_eq!(content("m.room.topic"), Some(json!({})), "{length}");
            assert_eq!(content("m.room.avatar"), Some(json!({ "url": "mxc://sabha.test/tea" })), "{length}");
            assert_eq!(content("m.room.encryption"), Some(json!({ "algorithm": "m.megolm.v1.aes-sha2" })), "{length}");
            assert_eq!(content("m.room.join_rules"), Some(json!({ "join_rule": "restricted" })), "{length}");
            let create = json!({ "creator": alice.user_id, "room_version": "10" });
            assert_eq!(content("m.room.create"), Some(create), "{length}");
            // The room itself keeps the full content.
            let topic = alice.get(&v3(["rooms", &room, "state", "m.room.topic"])).await.ok();
            assert_eq!(topic, json!({ "topic": more }));
        }
    }

    async fn a_room_is_joined_by_id_or_alias(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "tea" })).await;
        let joined = bob.post(&v3(["join", "#tea:sabha.test"]), json!({ "reason": "thirst" })).await.ok();
        assert_eq!(joined["room_id"], room.as_str());
        let event = bob.get(&(v3(["rooms", &room, "state", "m.room.member", &bob.user_id]) + "?format=event")).await.ok();
        assert_eq!(event["content"]["reason"], "thirst");
        assert_eq!(bob.get(&v3(["joined_rooms"])).await.ok()["joined_rooms"], json!([room]));
        bob.leave(&room).await;
        bob.post(&v3(["rooms", &room, "join"]), json!({})).await.ok();
        for nothing in ["!none:sabha.test", "#none:sabha.test", "#tea:elsewhere.test", "!room:elsewhere.test"] {
            bob.post(&v3(["join", nothing]), json!({})).await.error(404, "M_NOT_FOUND");
        }
    }

    async fn a_join_carries_what_the_client_adds_and_nothing_that_is_the_servers_to_say(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "tea" })).await;
        let body = json!({
            "reason": "thirst", "org.example.cup": { "size": 2 }, "membership": "ban", "displayname": "Alice",
            "avatar_url": "mxc://sabha.test/alice", "is_direct": true, "third_party_invite": {},
            "join_authorised_via_users_server": alice.user_id,
        });
        let own = v3(["rooms", &room, "state", "m.room.member", &bob.user_id]);
        let expected = json!({ "membership": "join", "reason": "thirst", "org.example.cup": { "size": 2 } });
        for path in [v3(["join", &room]), v3(["join", "#tea:sabha.test"]), v3(["rooms", &room, "join"])] {
            bob.post(&path, body.clone()).await.ok();
            let mut content = bob.get(&own).await.ok();
            content.as_object_mut().expect("an object").retain(|key, value| key != "displayname" || value == "Alice");
            assert_eq!(content, expected, "{path}");
            bob.leave(&room).await;
        }
        // Content that no event may have is refused, and nothing changes.
        bob.post(&v3(["join", &room]), json!({ "org.example.size": 1.5 })).await.error(400, "M_BAD_JSON");
        assert_eq!(membership(&alice, &room, &bob.user_id).await, "leave");
    }

    async fn kicked_banned_and_unbanned(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let act = async |who: &Client, what: &str, whom: &Client| {
            who.post(&v3(["rooms", &room, what]), json!({ "user_id": whom.user_id, "reason": "because" })).await
        };
        act(&bob, "kick", &alice).await.error(403, "M_FORBIDDEN");
        act(&bob, "ban", &alice).await.error(403, "M_FORBIDDEN");
        act(&alice, "unban", &bob).await.error(403, "M_BAD_STATE");
        act(&alice, "kick", &bob).await.ok();
        assert_eq!(membership(&alice, &room, &bob.user_id).await, "leave");
        act(&alice, "kick", &bob).await.error(403, "M_FORBIDDEN");
        bob.join(&room).await;
        act(&alice, "ban", &bob).await.ok();
        assert_eq!(membership(&alice, &room, &bob.user_id).await, "ban");
        bob.post(&v3(["join", &room]), json!({})).await.error(403, "M_FORBIDDEN");
        let invite = v3(["rooms", &room, "invite"]);
        alice.post(&invite, json!({ "user_id": bob.user_id })).await.error(403, "M_FORBIDDEN");
        act(&bob, "unban", &bob).await.error(403, "M_FORBIDDEN");
        act(&alice, "unban", &bob).await.ok();
        bob.join(&room).await;
    }

    async fn who_is_outside_does_not_learn_who_is_in_the_room(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let (carol, eve) = (server.register("carol").await, server.register("eve").await);
        let room = alice.create_room(json!({})).await;
        alice.post(&v3(["rooms", &room, "ban"]), json!({ "user_id": bob.user_id })).await.ok();
        alice.invite(&room, &carol.user_id).await;
        let mut answers = Vec::new();
        for what in ["kick", "ban", "unban", "invite"] {
            for whom in [&alice, &bob, &carol] {
                let body = json!({ "user_id": whom.user_id });
                answers.push(eve.post(&v3(["rooms", &room, what]), body.clone()).await.error(403, "M_FORBIDDEN"));
                let nowhere = v3(["rooms", "!nowhere:sabha.test", what]);
                answers.push(eve.post(&nowhere, body).await.error(403, "M_FORBIDDEN"));
            }
        }
        for whom in [&alice, &bob, &carol] {
            let state = v3(["rooms", &room, "state", "m.room.member", &whom.user_id]);
            answers.push(eve.put(&state, json!({ "membership": "leave" })).await.error(403, "M_FORBIDDEN"));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }

    async fn knocking_works_from_version_7_on(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        for version in ["6", "7", "10", "11", "12"] {
            let rule = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
            let room = alice.create_room(json!({ "room_version": version, "initial_state": rule })).await;
            let knock = bob.post(&v3(["knock", &room]), json!({ "reason": "let me in" })).await;
            if version == "6" {
                knock.error(403, "M_FORBIDDEN");
                continue;
            }
            assert_eq!(knock.ok()["room_id"], room.as_str());
            assert_eq!(membership(&alice, &room, &bob.user_id).await, "knock");
            bob.post(&v3(["join", &room]), json!({})).await.error(403, "M_FORBIDDEN");
            alice.invite(&room, &bob.user_id).await;
            bob.join(&room).await;
        }
        let closed = alice.create_room(json!({})).await;
        bob.post(&v3(["knock", &closed]), json!({})).await.error(403, "M_FORBIDDEN");
        bob.post(&v3(["knock", "!none:sabha.test"]), json!({})).await.error(404, "M_NOT_FOUND");
    }

    async fn a_restricted_room_lets_the_members_of_another_in(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let eve = server.register("eve").await;
        let club = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&club).await;
        for version in ["8", "9", "10", "11", "12"] {
            let rule = json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
            let state = json!([{ "type": "m.room.join_rules", "content": rule }]);
            let room = alice.create_room(json!({ "room_version": version, "initial_state": state })).await;
            eve.post(&v3(["join", &room]), json!({})).await.error(403, "M_FORBIDDEN");
            bob.join(&room).await;
            let member = bob.get(&v3(["rooms", &room, "state", "m.room.member", &bob.user_id])).await.ok();
            assert_eq!(member["join_authorised_via_users_server"], alice.user_id.as_str(), "{version}");
        }
    }

    async fn a_room_that_was_left_can_be_forgotten(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let forget = v3(["rooms", &room, "forget"]);
        bob.post(&forget, json!({})).await.error(400, "M_UNKNOWN");
        bob.join(&room).await;
        bob.post(&forget, json!({})).await.error(400, "M_UNKNOWN");
        bob.leave(&room).await;
        let messages = v3(["rooms", &room, "messages"]) + "?dir=b";
        bob.get(&messages).await.ok();
        bob.post(&forget, json!({})).await.ok();
        bob.get(&messages).await.error(403, "M_FORBIDDEN");
        bob.join(&room).await;
        bob.get(&messages).await.ok();
    }

    async fn members_are_listed_by_membership_and_as_of_a_place(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let before = alice.get(&(v3(["rooms", &room, "messages"]) + "?dir=b&limit=1")).await.ok();
        let before = before["start"].as_str().expect("a checked answer has it");
        bob.join(&room).await;
        alice.invite(&room, "@carol:sabha.test").await;
        let (a, b, c) = (alice.user_id.as_str(), bob.user_id.as_str(), "@carol:sabha.test");
        assert_eq!(members(&alice, &room, "").await, [a, b, c]);
        assert_eq!(members(&alice, &room, "?membership=join").await, [a, b]);
        assert_eq!(members(&alice, &room, "?not_membership=join").await, [c]);
        assert_eq!(members(&alice, &room, "?membership=join&not_membership=invite").await, [a, b]);
        assert_eq!(members(&alice, &room, &format!("?at={before}")).await, [a]);
        bob.leave(&room).await;
        alice.post(&v3(["rooms", &room, "kick"]), json!({ "user_id": c })).await.ok();
        // A user who left sees the room as it was at that time.
        assert_eq!(members(&bob, &room, "?membership=invite").await, [c]);
        bob.get(&v3(["rooms", &room, "joined_members"])).await.error(403, "M_FORBIDDEN");
        alice.get(&(v3(["rooms", &room, "members"]) + "?at=nonsense")).await.error(400, "M_INVALID_PARAM");
        alice.get(&(v3(["rooms", &room, "members"]) + "?membership=maybe")).await.error(400, "M_INVALID_PARAM");
    }
}
