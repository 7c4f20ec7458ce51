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
}
