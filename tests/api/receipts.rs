//! Read receipts and the read marker ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receipts

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

fn receipt(room: &str, kind: &str, event: &str) -> String {
    v3(["rooms", room, "receipt", kind, event])
}

/// Returns the content of `m.receipt` in a sync answer.
fn shown<'a>(answer: &'a Value, room: &str) -> Option<&'a Value> {
    let events = answer["rooms"]["join"][room]["ephemeral"]["events"].as_array()?;
    events.iter().find(|event| event["type"] == "m.receipt").map(|event| &event["content"])
}

fn next(answer: &Value) -> Option<&str> {
    answer["next_batch"].as_str()
}

/// Creates two users and a room with two messages.
async fn scene(server: &TestServer) -> (Client, Client, String, [String; 2]) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let events = [alice.send_text(&room, "1", "one").await, alice.send_text(&room, "2", "two").await];
    (alice, bob, room, events)
}

both_engines! {
    async fn a_receipt_is_shown_to_the_room_and_only_moves_forwards(server: TestServer) {
        let mut server = server;
        let (alice, bob, room, [first, second]) = scene(&server).await;
        let before = alice.sync(None).await;
        bob.post(&receipt(&room, "m.read", &second), json!({})).await.ok();
        let news = alice.sync(next(&before)).await;
        let content = shown(&news, &room).expect("bob has read");
        assert!(content[&second]["m.read"][&bob.user_id]["ts"].is_i64(), "{content}");

        bob.post(&receipt(&room, "m.read", &first), json!({})).await.ok();
        bob.post(&receipt(&room, "m.read", &second), json!({})).await.ok();
        assert_eq!(shown(&alice.sync(next(&news)).await, &room), None, "nothing moved");

        server.restart().await;
        bob.post(&receipt(&room, "m.read", &first), json!({})).await.ok();
        let everything = alice.sync(None).await;
        let content = shown(&everything, &room).expect("it is stored");
        assert_eq!(content.as_object().map(|events| events.keys().collect::<Vec<_>>()), Some(vec![&second]));
    }

    async fn a_private_receipt_is_shown_to_its_owner_only(server: TestServer) {
        let (alice, bob, room, [first, _]) = scene(&server).await;
        let (of_alice, of_bob) = (alice.sync(None).await, bob.sync(None).await);
        bob.post(&receipt(&room, "m.read.private", &first), json!({ "thread_id": "main" })).await.ok();
        assert_eq!(shown(&alice.sync(next(&of_alice)).await, &room), None);
        let news = bob.sync(next(&of_bob)).await;
        let content = shown(&news, &room).expect("it is bob's own");
        assert_eq!(content[&first]["m.read.private"][&bob.user_id]["thread_id"], "main");
        assert_eq!(shown(&alice.sync(None).await, &room), None);
    }

    async fn threads_have_receipts_of_their_own(server: TestServer) {
        let (alice, bob, room, [first, second]) = scene(&server).await;
        bob.post(&receipt(&room, "m.read", &second), json!({ "thread_id": "main" })).await.ok();
        bob.post(&receipt(&room, "m.read", &first), json!({ "thread_id": first })).await.ok();
        let everything = alice.sync(None).await;
        let content = shown(&everything, &room).expect("bob has read");
        assert_eq!(content[&second]["m.read"][&bob.user_id]["thread_id"], "main");
        assert_eq!(content[&first]["m.read"][&bob.user_id]["thread_id"], json!(first));
    }

    async fn the_read_marker_moves_with_the_receipts_and_only_forwards(server: TestServer) {
        let (alice, bob, room, [first, second]) = scene(&server).await;
        let marker = v3(["user", &bob.user_id, "rooms", &room, "account_data", "m.fully_read"]);
        let markers = v3(["rooms", &room, "read_markers"]);
        bob.post(&markers, json!({ "m.fully_read": second, "m.read": second, "m.read.private": first })).await.ok();
        assert_eq!(bob.get(&marker).await.ok(), json!({ "event_id": second }));
        bob.post(&receipt(&room, "m.fully_read", &first), json!({})).await.ok();
        assert_eq!(bob.get(&marker).await.ok(), json!({ "event_id": second }), "what was read stays read");
        let everything = alice.sync(None).await;
        let content = shown(&everything, &room).expect("bob has read");
        assert!(content[&second]["m.read"].get(&bob.user_id).is_some(), "{content}");
        assert!(content.get(&first).is_none(), "{content}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let server = TestServer::start().await;
    let (alice, bob, room, [first, _]) = scene(&server).await;
    let other_room = alice.create_room(json!({})).await;
    let elsewhere = alice.send_text(&other_room, "1", "elsewhere").await;
    bob.post(&receipt(&room, "m.read", &elsewhere), json!({})).await.error(404, "M_NOT_FOUND");
    bob.post(&receipt(&room, "m.read", "$nothing"), json!({})).await.error(404, "M_NOT_FOUND");
    bob.post(&receipt(&other_room, "m.read", &elsewhere), json!({})).await.error(403, "M_FORBIDDEN");
    bob.post(&receipt(&room, "org.example", &first), json!({})).await.error(400, "M_INVALID_PARAM");
    bob.post(&receipt(&room, "m.read", &first), json!({ "thread_id": "nonsense" })).await.error(400, "M_INVALID_PARAM");
    bob.post(&receipt(&room, "m.read", &first), json!({ "thread_id": "$nonsense" }))
        .await
        .error(400, "M_INVALID_PARAM");
    bob.post(&receipt(&room, "m.fully_read", &first), json!({ "thread_id": "main" }))
        .await
        .error(400, "M_INVALID_PARAM");
    bob.leave(&room).await;
    bob.post(&receipt(&room, "m.read", &first), json!({})).await.error(403, "M_FORBIDDEN");
}

both_engines! {
    async fn a_threaded_receipt_is_for_an_event_of_the_thread(server: TestServer) {
        let (alice, bob, room, [root, other]) = scene(&server).await;
        let related = async |txn: &str, rel_type: &str, event: &str| {
            let relation = json!({ "rel_type": rel_type, "event_id": event, "key": "x" });
            let content = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": relation });
            alice.send(&room, "m.room.message", txn, content).await
        };
        let answer = related("a", "m.thread", &root).await;
        let edit = related("b", "m.replace", &answer).await;
        let reaction = related("c", "m.annotation", &edit).await;
        let beside = related("d", "m.reference", &other).await;
        let read = async |event: &str, thread: &str| {
            let asked = bob.post(&receipt(&room, "m.read", event), json!({ "thread_id": thread })).await;
            if asked.status != 200 {
                asked.error(400, "M_INVALID_PARAM");
                return false;
            }
            true
        };
        for (event, in_thread, in_main) in [
            (&root, true, true),
            (&other, false, true),
            (&answer, true, false),
            (&edit, true, false),
            (&reaction, true, false),
            (&beside, false, true),
        ] {
            assert_eq!((read(event, &root).await, read(event, "main").await), (in_thread, in_main), "{event}");
        }
    }
}
