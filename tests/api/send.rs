//! Sending message events.

use http::Method;
use serde_json::json;

use crate::harness::{TestServer, v3};

/// Delayed events must not be sent at once: a client schedules its leave for the end of a call, and would leave it now.
#[tokio::test]
async fn an_event_for_later_is_refused_and_not_sent() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let send = v3(["rooms", &room, "send", "m.room.message", "later"]);
    let state = v3(["rooms", &room, "state", "org.matrix.msc3401.call.member", &alice.user_id]);
    let before = alice.sync(None).await["next_batch"].clone();
    for query in [
        "org.matrix.msc4140.delay=10000",
        "org.matrix.msc4140.delay",
        "org.matrix.msc4140%2Edelay=1",
        "org.matrix.msc4140.parent_delay_id=1",
        "ts=1&delay=10000",
    ] {
        let body = json!({ "msgtype": "m.text", "body": "later" });
        alice.put(&format!("{send}?{query}"), body.clone()).await.error(400, "M_UNRECOGNIZED");
        alice.put(&format!("{state}?{query}"), body).await.error(400, "M_UNRECOGNIZED");
    }
    let after = alice.sync(before.as_str()).await;
    assert!(after["rooms"]["join"].get(&room).is_none(), "{after}");
    // The transaction ID is still unused, and other parameters have no effect.
    alice.put(&format!("{send}?delayed=10000"), json!({ "msgtype": "m.text", "body": "now" })).await.ok();
}

both_engines! {
    async fn repeating_a_transaction_id_sends_nothing_new(mut server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let first = alice.send_text(&room, "txn1", "hello").await;
        assert_eq!(alice.send_text(&room, "txn1", "hello again").await, first);
        // The same ID counts anew for another type, another room and another device.
        let other = alice.create_room(json!({})).await;
        assert_ne!(alice.send(&room, "org.example.note", "txn1", json!({})).await, first);
        assert_ne!(alice.send_text(&other, "txn1", "hello").await, first);
        assert_ne!(alice.login_again().await.send_text(&room, "txn1", "hello").await, first);
        server.restart().await;
        assert_eq!(alice.send_text(&room, "txn1", "hello").await, first);
    }

    async fn only_the_device_that_sent_an_event_sees_its_transaction_id(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let event_id = alice.send_text(&room, "txn1", "hello").await;
        let path = v3(["rooms", &room, "event", &event_id]);
        assert_eq!(alice.get(&path).await.ok()["unsigned"]["transaction_id"], "txn1");
        assert!(alice.login_again().await.get(&path).await.ok()["unsigned"].get("transaction_id").is_none());
    }

    async fn an_event_is_stored_with_exactly_the_type_and_content_that_were_sent(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        // Ruma knows these as aliases of stable types.
        for event_type in ["org.matrix.msc3381.poll.start", "m.room.message", "org.example/a b", "m.poll.start"] {
            let content = json!({ "deep": { "list": [1, "two", null] }, "ü": true });
            let event_id = alice.send(&room, event_type, &format!("t-{event_type}"), content.clone()).await;
            let event = alice.get(&v3(["rooms", &room, "event", &event_id])).await.ok();
            assert_eq!(event["type"], event_type);
            assert_eq!(event["content"], content);
            assert_eq!(event["sender"], alice.user_id.as_str());
            assert_eq!(event["room_id"], room.as_str());
            assert_eq!(event["unsigned"]["membership"], "join");
        }
    }

    async fn what_cannot_be_an_event_is_refused(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let refused = async |body: String, status: u16, errcode: &str| {
            let path = v3(["rooms", &room, "send", "m.room.message", "t"]);
            alice.request(Method::PUT, &path, Some(body)).await.error(status, errcode);
        };
        refused(r#"{"half":0.5}"#.to_owned(), 400, "M_BAD_JSON").await;
        refused(r#"{"big":9007199254740993}"#.to_owned(), 400, "M_BAD_JSON").await;
        refused("[]".to_owned(), 400, "M_BAD_JSON").await;
        refused("{".to_owned(), 400, "M_NOT_JSON").await;
        refused(String::new(), 400, "M_BAD_JSON").await;
        let state = v3(["rooms", &room, "state", "org.example.empty", ""]);
        alice.request(Method::PUT, &state, Some(String::new())).await.error(400, "M_BAD_JSON");
        alice.request(Method::PUT, &state, None).await.error(400, "M_BAD_JSON");
        refused(json!({ "body": "x".repeat(66_000) }).to_string(), 413, "M_TOO_LARGE").await;
        refused(json!({ "body": "x".repeat(1_100_000) }).to_string(), 413, "M_TOO_LARGE").await;
        let nested = |levels: usize| format!(r#"{{"body":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
        refused(nested(101), 400, "M_BAD_JSON").await;
        let long = v3(["rooms", &room, "send", &"t".repeat(256), "t"]);
        alice.put(&long, json!({})).await.error(413, "M_TOO_LARGE");
        let long = v3(["rooms", &room, "send", "m.room.message", &"t".repeat(256)]);
        alice.put(&long, json!({})).await.error(400, "M_INVALID_PARAM");
        // None of them used up the transaction ID.
        alice.send_text(&room, "t", "hello").await;
    }

    async fn only_members_may_send(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let text = json!({ "msgtype": "m.text", "body": "hello" });
        let path = v3(["rooms", &room, "send", "m.room.message", "t"]);
        bob.put(&path, text.clone()).await.error(403, "M_FORBIDDEN");
        let nowhere = v3(["rooms", "!nowhere:sabha.test", "send", "m.room.message", "t"]);
        bob.put(&nowhere, text.clone()).await.error(403, "M_FORBIDDEN");
        bob.join(&room).await;
        bob.put(&path, text.clone()).await.ok();
        bob.leave(&room).await;
        bob.put(&v3(["rooms", &room, "send", "m.room.message", "t2"]), text).await.error(403, "M_FORBIDDEN");
    }
}
