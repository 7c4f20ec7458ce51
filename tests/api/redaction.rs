//! Redactions.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

async fn event(client: &Client, room: &str, event_id: &str) -> Value {
    client.get(&v3(["rooms", room, "event", event_id])).await.ok()
}

async fn redact(client: &Client, room: &str, event_id: &str, txn: &str) -> crate::harness::Response {
    client.put(&v3(["rooms", room, "redact", event_id, txn]), json!({ "reason": "spam" })).await
}

both_engines! {
    async fn a_redacted_event_keeps_its_id_and_says_why(mut server: TestServer) {
        let alice = server.register("alice").await;
        for version in ["6", "10", "11", "12"] {
            let room = alice.create_room(json!({ "room_version": version })).await;
            let event_id = alice.send_text(&room, "1", "secret").await;
            let redaction = redact(&alice, &room, &event_id, "r").await.ok()["event_id"].clone();
            assert_eq!(redact(&alice, &room, &event_id, "r").await.ok()["event_id"], redaction);
            // Checks the event in memory, and then as it was stored.
            for again in [false, true] {
                if again {
                    server.restart().await;
                }
                let left = event(&alice, &room, &event_id).await;
                assert_eq!(left["event_id"], event_id.as_str(), "{version}");
                assert_eq!(left["content"], json!({}), "{version}");
                let because = &left["unsigned"]["redacted_because"];
                assert_eq!(because["event_id"], redaction, "{version}");
                assert_eq!(because["content"]["reason"], "spam", "{version}");
                let redaction = event(&alice, &room, redaction.as_str().expect("it is a string")).await;
                assert_eq!(redaction["redacts"], event_id.as_str(), "{version}");
                let in_content = redaction["content"].get("redacts").is_some();
                assert_eq!(in_content, version == "11" || version == "12", "{version}");
            }
        }
    }

    async fn only_the_sender_and_the_powerful_redact(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        for version in ["6", "11", "12"] {
            let room = alice.create_room(json!({ "preset": "public_chat", "room_version": version })).await;
            bob.join(&room).await;
            let of_alice = alice.send_text(&room, "1", "hers").await;
            let of_bob = bob.send_text(&room, "1", "his").await;
            let also_of_bob = bob.send_text(&room, "2", "his too").await;
            redact(&bob, &room, &of_alice, "r").await.error(403, "M_FORBIDDEN");
            redact(&bob, &room, &of_bob, "r").await.ok();
            redact(&alice, &room, &also_of_bob, "r").await.ok();
            redact(&alice, &room, "$none", "r").await.error(404, "M_NOT_FOUND");
            // Sending the redaction as an ordinary event is refused too, whichever field the room version reads.
            let body = json!({ "redacts": of_alice });
            let as_message = v3(["rooms", &room, "send", "m.room.redaction", "s"]);
            bob.put(&as_message, body.clone()).await.error(403, "M_FORBIDDEN");
            let as_state = v3(["rooms", &room, "state", "m.room.redaction", &bob.user_id]);
            bob.put(&as_state, body.clone()).await.error(403, "M_FORBIDDEN");
            assert_eq!(event(&bob, &room, &of_alice).await["content"]["body"], "hers", "{version}");
            alice.put(&as_message, body).await.ok();
            assert_eq!(event(&bob, &room, &of_alice).await["content"], json!({}), "{version}");
        }
    }

    async fn a_redacted_redaction_gives_no_reason_any_more(mut server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let event_id = alice.send_text(&room, "1", "secret").await;
        let redaction = redact(&alice, &room, &event_id, "r").await.ok()["event_id"].clone();
        redact(&alice, &room, redaction.as_str().expect("it is a string"), "r2").await.ok();
        // Checks the event in memory, and then as it was stored.
        for again in [false, true] {
            if again {
                server.restart().await;
            }
            let shown = [event(&alice, &room, &event_id).await, alice.sync(None).await];
            for answer in shown {
                assert!(!answer.to_string().contains("secret"), "{answer}");
            }
            let messages = alice.get(&(v3(["rooms", &room, "messages"]) + "?dir=b&limit=5")).await.ok();
            let left = event(&alice, &room, &event_id).await;
            let because = &left["unsigned"]["redacted_because"];
            assert_eq!(because["event_id"], redaction);
            assert_eq!(because["content"].get("reason"), None, "{left}");
            let of_message = |event: &&Value| event["event_id"] == event_id.as_str();
            let listed = messages["chunk"].as_array().expect("checked").iter().find(of_message).expect("it is there");
            assert_eq!(listed["unsigned"]["redacted_because"]["content"].get("reason"), None, "{listed}");
            let sync = alice.sync(None).await;
            let synced = sync["rooms"]["join"][&room]["timeline"]["events"].as_array().expect("checked");
            let synced = synced.iter().find(of_message).expect("it is there");
            assert_eq!(synced["unsigned"]["redacted_because"]["content"].get("reason"), None, "{synced}");
        }
    }

    async fn who_is_outside_does_not_learn_which_events_there_are(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let event_id = alice.send_text(&room, "1", "hers").await;
        let mut answers = Vec::new();
        for (txn, event_id) in [("a", event_id.as_str()), ("b", "$none")] {
            answers.push(redact(&bob, &room, event_id, txn).await.error(403, "M_FORBIDDEN"));
            let as_message = v3(["rooms", &room, "send", "m.room.redaction", txn]);
            answers.push(bob.put(&as_message, json!({ "redacts": event_id })).await.error(403, "M_FORBIDDEN"));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }

    async fn redacted_state_still_counts(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let event_id = alice.set_state(&room, "m.room.name", "", json!({ "name": "Tea" })).await;
        redact(&alice, &room, &event_id, "r").await.ok();
        assert_eq!(alice.get(&v3(["rooms", &room, "state", "m.room.name"])).await.ok(), json!({}));
        let member = v3(["rooms", &room, "state", "m.room.member", &alice.user_id]);
        let own = alice.get(&(member.clone() + "?format=event")).await.ok()["event_id"].clone();
        redact(&alice, &room, own.as_str().expect("it is a string"), "r2").await.ok();
        assert_eq!(alice.get(&member).await.ok(), json!({ "membership": "join" }));
        alice.send_text(&room, "still", "here").await;
    }

    async fn who_is_outside_is_shown_nothing_of_the_room_that_was_redacted_since(mut server: TestServer) {
        let alice = server.register("alice").await;
        let (invited, knocking) = (server.register("bob").await, server.register("carol").await);
        let knock = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
        let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": knock })).await;
        let set = async |event_type: &str, content: Value| alice.set_state(&room, event_type, "", content).await;
        let name = set("m.room.name", json!({ "name": "a secret" })).await;
        let topic = set("m.room.topic", json!({ "topic": "a secret" })).await;
        let avatar = json!({ "url": "mxc://sabha.test/tea" });
        set("m.room.avatar", avatar.clone()).await;
        let mut since = Vec::new();
        for user in [&invited, &knocking] {
            since.push(user.sync(None).await["next_batch"].as_str().expect("checked").to_owned());
        }
        let invite = json!({ "user_id": invited.user_id, "reason": "a secret" });
        alice.post(&v3(["rooms", &room, "invite"]), invite).await.ok();
        knocking.post(&v3(["knock", &room]), json!({ "reason": "a secret" })).await.ok();
        // By then the topic is another one.
        let new_topic = set("m.room.topic", json!({ "topic": "tea" })).await;
        let mut redacted = vec![name, topic, new_topic];
        for user in [&invited, &knocking] {
            let member = v3(["rooms", &room, "state", "m.room.member", &user.user_id]) + "?format=event";
            let member = alice.get(&member).await.ok()["event_id"].clone();
            redacted.push(member.as_str().expect("it is a string").to_owned());
        }
        for (number, event_id) in redacted.iter().enumerate() {
            redact(&alice, &room, event_id, &number.to_string()).await.ok();
        }
        // Checks the events in memory, and then as they were stored.
        for again in [false, true] {
            if again {
                server.restart().await;
            }
            for (user, since, section, field) in
                [(&invited, &since[0], "invite", "invite_state"), (&knocking, &since[1], "knock", "knock_state")]
            {
                for since in [None, Some(since.as_str())] {
                    let answer = user.sync(since).await;
                    assert!(!answer.to_string().contains("secret"), "{answer}");
                    let shown = answer["rooms"][section][&room][field]["events"].as_array().expect("it is there");
                    let content = |event_type: &str, state_key: &str| {
                        let is_it = |event: &&Value| event["type"] == event_type && event["state_key"] == state_key;
                        let contents: Vec<_> = shown.iter().filter(is_it).map(|event| event["content"].clone()).collect();
                        assert_eq!(contents.len(), 1, "{event_type}: {answer}");
                        contents[0].clone()
                    };
                    for redacted in ["m.room.name", "m.room.topic"] {
                        assert_eq!(content(redacted, ""), json!({}), "{redacted} for {section}");
                    }
                    assert_eq!(content("m.room.member", &user.user_id), json!({ "membership": section }));
                    assert_eq!(content("m.room.avatar", ""), avatar);
                    assert_eq!(content("m.room.join_rules", ""), json!({ "join_rule": "knock" }));
                }
            }
        }
    }

    async fn what_was_not_redacted_is_shown_as_it_was_at_the_invitation(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "name": "Tea" })).await;
        alice.invite(&room, &bob.user_id).await;
        let other = alice.set_state(&room, "m.room.name", "", json!({ "name": "Coffee" })).await;
        redact(&alice, &room, &other, "r").await.ok();
        let answer = bob.sync(None).await;
        let shown = answer["rooms"]["invite"][&room]["invite_state"]["events"].as_array().expect("it is there");
        let names: Vec<_> = shown.iter().filter(|event| event["type"] == "m.room.name").collect();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0]["content"], json!({ "name": "Tea" }));
    }
}
