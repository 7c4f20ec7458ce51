//! Presence ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#presence

use std::time::Duration;

use sabha::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

fn status(client: &Client) -> String {
    v3(["presence", &client.user_id, "status"])
}

/// Returns the content of a user's presence in a sync answer.
fn shown<'a>(answer: &'a Value, client: &Client) -> Option<&'a Value> {
    let events = answer["presence"]["events"].as_array()?;
    events.iter().find(|event| event["sender"] == client.user_id).map(|event| &event["content"])
}

async fn scene(server: &TestServer) -> (Client, Client, Client) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    (alice, bob, server.register("carol").await)
}

#[tokio::test]
async fn those_in_the_same_room_see_a_chosen_presence() {
    let server = TestServer::start().await;
    let (alice, bob, carol) = scene(&server).await;
    let (of_alice, of_carol) = (alice.sync(None).await, carol.sync(None).await);
    bob.put(&status(&bob), json!({ "presence": "unavailable", "status_msg": "lunch" })).await.ok();

    let news = alice.sync(of_alice["next_batch"].as_str()).await;
    let content = shown(&news, &bob).expect("it changed");
    assert_eq!((&content["presence"], &content["status_msg"]), (&json!("unavailable"), &json!("lunch")));
    let asked = alice.get(&status(&bob)).await.ok();
    assert_eq!((&asked["presence"], &asked["status_msg"]), (&json!("unavailable"), &json!("lunch")));

    assert_eq!(shown(&carol.sync(of_carol["next_batch"].as_str()).await, &bob), None);
    carol.get(&status(&bob)).await.error(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn who_syncs_is_online_until_they_no_longer_do() {
    let clock = Clock::manual(1_000_000);
    let server = TestServer::builder().clock(clock.clone()).start().await;
    let (alice, bob, _) = scene(&server).await;
    bob.sync_with(None, "timeout=0&set_presence=offline").await;
    assert_eq!(alice.get(&status(&bob)).await.ok()["presence"], "offline");
    bob.sync(None).await;
    assert_eq!(alice.get(&status(&bob)).await.ok()["presence"], "online");
    clock.advance(Duration::from_secs(30));
    let app = server.app();
    app.ephemeral.expire(&app.rooms).await;
    assert_eq!(alice.get(&status(&bob)).await.ok()["presence"], "offline");
}

#[tokio::test]
async fn nobody_is_online_on_a_server_without_presence() {
    let server = TestServer::builder().config(|config| config.presence.enabled = false).start().await;
    let (alice, bob, _) = scene(&server).await;
    bob.put(&status(&bob), json!({ "presence": "online" })).await.ok();
    assert_eq!(alice.get(&status(&bob)).await.ok()["presence"], "offline");
    assert_eq!(shown(&alice.sync(None).await, &bob), None);
}

#[tokio::test]
async fn a_presence_that_cannot_be_is_refused() {
    let server = TestServer::start().await;
    let (alice, bob, _) = scene(&server).await;
    alice.put(&status(&bob), json!({ "presence": "online" })).await.error(403, "M_FORBIDDEN");
    alice.put(&status(&alice), json!({ "presence": "asleep" })).await.error(400, "M_INVALID_PARAM");
    let long = json!({ "presence": "online", "status_msg": "x".repeat(1025) });
    alice.put(&status(&alice), long).await.error(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn who_sends_a_message_is_active_and_who_is_offline_stays_so() {
    let clock = Clock::manual(1_000_000);
    let server = TestServer::builder().clock(clock.clone()).start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.send_text(&room, "1", "one").await;
    assert_eq!(alice.get(&status(&alice)).await.ok()["presence"], "offline");
    alice.put(&status(&alice), json!({ "presence": "unavailable" })).await.ok();
    clock.advance(Duration::from_secs(20));
    alice.send_text(&room, "2", "two").await;
    let shown = alice.get(&status(&alice)).await.ok();
    assert_eq!((&shown["presence"], &shown["last_active_ago"]), (&json!("online"), &json!(0)));
}

both_engines! {
    async fn who_begins_to_share_a_room_is_seen_at_once_and_once(server: TestServer) {
        let (alice, bob, carol) = (server.register("alice").await, server.register("bob").await, server.register("carol").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        carol.join(&room).await;
        let next = |answer: &Value| answer["next_batch"].as_str().expect("a token").to_owned();
        let (of_alice, of_bob) = (next(&alice.sync(None).await), next(&bob.sync(None).await));
        bob.join(&room).await;

        // No presence has changed since, and carol was never online.
        let (news_of_alice, news_of_bob) = (alice.sync(Some(&of_alice)).await, bob.sync(Some(&of_bob)).await);
        assert_eq!(shown(&news_of_alice, &bob).expect("bob came")["presence"], "online");
        assert_eq!(shown(&news_of_bob, &alice).expect("alice is here")["presence"], "online");
        assert_eq!(shown(&news_of_bob, &carol), None);
        assert_eq!(shown(&alice.sync(Some(&next(&news_of_alice))).await, &bob), None);
        assert_eq!(shown(&bob.sync(Some(&next(&news_of_bob))).await, &alice), None);
    }
}
