//! Messages from device to device ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

async fn send(from: &Client, txn: &str, messages: Value) {
    from.put(&v3(["sendToDevice", "m.test", txn]), json!({ "messages": messages })).await.ok();
}

fn received(answer: &Value) -> Vec<Value> {
    answer["to_device"]["events"].as_array().cloned().unwrap_or_default()
}

fn next_batch(answer: &Value) -> &str {
    answer["next_batch"].as_str().expect("a checked answer has it")
}

both_engines! {
    async fn a_message_arrives_until_it_is_acknowledged(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let first = bob.sync(None).await;
        let content = json!({ "text": "hello" });
        let to_bob = json!({ &bob.user_id: { &bob.device_id: content } });
        send(&alice, "1", to_bob.clone()).await;
        // A repeated request sends nothing.
        send(&alice, "1", to_bob).await;

        let expected = json!({ "sender": alice.user_id, "type": "m.test", "content": content });
        let answer = bob.sync(Some(next_batch(&first))).await;
        assert_eq!(received(&answer), std::slice::from_ref(&expected));
        // The answer was lost, so the client asks again.
        assert_eq!(received(&bob.sync(Some(next_batch(&first))).await), [expected]);
        assert_eq!(received(&bob.sync(Some(next_batch(&answer))).await), [Value::Null; 0]);
        // The message has arrived, so it is deleted for every token.
        assert_eq!(received(&bob.sync(None).await), [Value::Null; 0]);
    }
}

both_engines! {
    /// A sync only reads: acknowledged messages are deleted later.
    async fn an_acknowledgement_writes_nothing_and_holds(mut server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        send(&alice, "1", json!({ &bob.user_id: { &bob.device_id: { "number": 1 } } })).await;
        let first = bob.sync(None).await;
        assert_eq!(received(&first).len(), 1);
        send(&alice, "2", json!({ &bob.user_id: { &bob.device_id: { "number": 2 } } })).await;
        let published = server.app().db.committer().published();
        let second = bob.sync(Some(next_batch(&first))).await;
        assert_eq!(received(&second)[0]["content"]["number"], 2, "{second}");
        // With any token, the first message counts as arrived; the second may not have arrived yet.
        for since in [None, Some(next_batch(&first))] {
            let again = received(&bob.sync(since).await);
            assert_eq!(again.iter().map(|message| &message["content"]["number"]).collect::<Vec<_>>(), [2]);
        }
        assert_eq!(server.app().db.committer().published(), published, "no sync has committed anything");

        server.app().keys.delete_acknowledged().await.expect("deleted");
        assert!(server.app().db.committer().published() > published);
        assert_eq!(received(&bob.sync(None).await).len(), 1);
        // Nothing is left to delete, so nothing is written.
        let published = server.app().db.committer().published();
        server.app().keys.delete_acknowledged().await.expect("deleted");
        assert_eq!(server.app().db.committer().published(), published);

        // A clean stop deletes what was acknowledged last.
        bob.sync(Some(next_batch(&second))).await;
        server.restart().await;
        assert_eq!(received(&bob.sync(None).await), [Value::Null; 0]);
    }
}

both_engines! {
    async fn a_token_that_was_changed_deletes_no_message(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let token = next_batch(&bob.sync(None).await).to_owned();
        send(&alice, "1", json!({ &bob.user_id: { &bob.device_id: {} } })).await;
        // With the number of a message after the position of the token.
        for position in [i64::MAX, server.app().db.committer().published().0] {
            let path = v3(["sync"]) + &format!("?since={token}_{position}");
            bob.get(&path).await.error(400, "M_INVALID_PARAM");
        }
        server.app().keys.delete_acknowledged().await.expect("deleted");
        assert_eq!(received(&bob.sync(Some(&token)).await).len(), 1);
    }
}

both_engines! {
    async fn a_message_that_devices_share_stays_for_those_that_have_not_got_it(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let (second, third) = (bob.login_again().await, bob.login_again().await);
        let to_all = json!({ "a": 1 });
        send(&alice, "1", json!({ &bob.user_id: { "*": to_all, &bob.device_id: { "b": 2 } } })).await;
        let contents = |answer: &Value| received(answer).iter().map(|event| event["content"].clone()).collect::<Vec<_>>();
        let first = bob.sync(None).await;
        assert_eq!(contents(&first), [json!({ "b": 2 }), to_all.clone()]);
        assert_eq!(received(&bob.sync(Some(next_batch(&first))).await).len(), 0);
        // The deletion of a device takes no message from the others.
        third.post(&v3(["logout"]), json!({})).await.ok();
        sabha::store::leftovers::sweep(&server.app().db).await.expect("swept");
        let answer = second.sync(None).await;
        assert_eq!(contents(&answer), [to_all]);
        assert_eq!(received(&second.sync(Some(next_batch(&answer))).await).len(), 0);
        assert_eq!(received(&second.sync(None).await).len(), 0);
    }
}

#[tokio::test]
async fn a_message_to_all_devices_reaches_each_of_them() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let other = bob.login_again().await;
    send(&alice, "1", json!({ &bob.user_id: { "*": {} }, "@nobody:sabha.test": { "*": {} } })).await;
    for device in [&bob, &other] {
        assert_eq!(received(&device.sync(None).await).len(), 1);
    }
    assert_eq!(received(&alice.sync(None).await).len(), 0);
}

#[tokio::test]
async fn messages_outlive_a_restart() {
    let mut server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    send(&alice, "1", json!({ &bob.user_id: { &bob.device_id: {} } })).await;
    server.restart().await;
    assert_eq!(received(&bob.sync(None).await).len(), 1);
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let messages = |content: Value| json!({ "messages": { &alice.user_id: { "*": content } } });
    let path = v3(["sendToDevice", "m.test", "1"]);
    alice.put(&path, messages(json!("text"))).await.error(400, "M_BAD_JSON");
    alice.put(&path, messages(json!({ "x": "x".repeat(65_536) }))).await.error(413, "M_TOO_LARGE");
    let long = v3(["sendToDevice", &"t".repeat(256), "1"]);
    alice.put(&long, messages(json!({}))).await.error(400, "M_INVALID_PARAM");
    assert_eq!(received(&alice.sync(None).await).len(), 0);
}
