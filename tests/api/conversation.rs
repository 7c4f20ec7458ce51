//! The shortest complete story: two people meet in a room and talk, and a restart changes nothing.

use serde_json::{Value, json};

use crate::harness::TestServer;

/// Returns the bodies of the messages in a room's part of a `/sync`, in order.
fn bodies(sync: &Value, room: &str) -> Vec<String> {
    let events = sync["rooms"]["join"][room]["timeline"]["events"].as_array().cloned().unwrap_or_default();
    let body = |event: Value| event["content"]["body"].as_str().map(str::to_owned);
    events.into_iter().filter_map(body).collect()
}

both_engines! {
    async fn two_people_talk_across_a_restart(mut server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.user_id] })).await;
        let invited = bob.sync(None).await;
        assert!(invited["rooms"]["invite"][&room].is_object(), "{invited:#}");
        bob.join(&room).await;
        let before = bob.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
        let sent = alice.send_text(&room, "txn1", "hello").await;

        server.restart().await;
        assert_eq!(alice.send_text(&room, "txn1", "hello").await, sent, "the transaction ID is remembered");
        bob.send_text(&room, "txn1", "hi yourself").await;
        let news = bob.sync(Some(&before)).await;
        assert_eq!(bodies(&news, &room), ["hello", "hi yourself"]);
        let again = alice.login_again().await;
        assert_eq!(bodies(&again.sync(None).await, &room), ["hello", "hi yourself"]);
    }
}
