//! Typing notifications ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#typing-notifications

use std::time::Duration;

use sabha::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

fn typing(client: &Client, room: &str) -> String {
    v3(["rooms", room, "typing", &client.user_id])
}

/// Returns the users who are typing, if a sync answer tells it.
fn typists<'a>(answer: &'a Value, room: &str) -> Option<&'a Value> {
    let events = answer["rooms"]["join"][room]["ephemeral"]["events"].as_array()?;
    events.iter().find(|event| event["type"] == "m.typing").map(|event| &event["content"]["user_ids"])
}

async fn scene(server: &TestServer) -> (Client, Client, String) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    (alice, bob, room)
}

#[tokio::test]
async fn others_see_who_types_until_they_stop() {
    let server = TestServer::start().await;
    let (alice, bob, room) = scene(&server).await;
    let before = alice.sync(None).await;
    assert_eq!(typists(&before, &room), None);
    bob.put(&typing(&bob, &room), json!({ "typing": true, "timeout": 30_000 })).await.ok();
    let news = alice.sync(before["next_batch"].as_str()).await;
    assert_eq!(typists(&news, &room), Some(&json!([bob.user_id])));
    // Typing that continues is no news.
    bob.put(&typing(&bob, &room), json!({ "typing": true })).await.ok();
    let quiet = alice.sync(news["next_batch"].as_str()).await;
    assert_eq!(typists(&quiet, &room), None);
    bob.put(&typing(&bob, &room), json!({ "typing": false })).await.ok();
    let stopped = alice.sync(quiet["next_batch"].as_str()).await;
    assert_eq!(typists(&stopped, &room), Some(&json!([])));
}

#[tokio::test]
async fn a_parked_sync_is_woken_by_typing() {
    let server = TestServer::start().await;
    let (alice, bob, room) = scene(&server).await;
    let before = alice.sync(None).await;
    let parked = alice.sync_with(before["next_batch"].as_str(), "timeout=30000");
    let typing = async { bob.put(&typing(&bob, &room), json!({ "typing": true, "timeout": 30_000 })).await.ok() };
    let (news, _) = tokio::join!(parked, typing);
    assert_eq!(typists(&news, &room), Some(&json!([bob.user_id])));
}

#[tokio::test]
async fn typing_runs_out() {
    let clock = Clock::manual(1_000_000);
    let server = TestServer::builder().clock(clock.clone()).start().await;
    let (alice, bob, room) = scene(&server).await;
    let app = server.app();
    bob.put(&typing(&bob, &room), json!({ "typing": true, "timeout": 10_000 })).await.ok();
    let before = alice.sync(None).await;
    assert_eq!(typists(&before, &room), Some(&json!([bob.user_id])));
    clock.advance(Duration::from_secs(9));
    app.ephemeral.expire(&app.rooms).await;
    assert_eq!(typists(&alice.sync(before["next_batch"].as_str()).await, &room), None);
    clock.advance(Duration::from_secs(1));
    app.ephemeral.expire(&app.rooms).await;
    assert_eq!(typists(&alice.sync(before["next_batch"].as_str()).await, &room), Some(&json!([])));
}

#[tokio::test]
async fn only_members_type_and_only_for_themselves() {
    let server = TestServer::start().await;
    let (alice, bob, room) = scene(&server).await;
    alice.put(&typing(&bob, &room), json!({ "typing": true })).await.error(403, "M_FORBIDDEN");
    bob.leave(&room).await;
    bob.put(&typing(&bob, &room), json!({ "typing": true })).await.error(403, "M_FORBIDDEN");
}

both_engines! {
    async fn who_is_no_longer_in_the_room_does_not_type_there(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let member = v3(["rooms", &room, "state", "m.room.member", &bob.user_id]);
        let gone = async |how: &str| match how {
            "leave" => bob.leave(&room).await,
            "state" => _ = bob.put(&member, json!({ "membership": "leave" })).await.ok(),
            how => _ = alice.post(&v3(["rooms", &room, how]), json!({ "user_id": bob.user_id })).await.ok(),
        };
        for how in ["leave", "kick", "state", "ban"] {
            bob.put(&typing(&bob, &room), json!({ "typing": true, "timeout": 60_000 })).await.ok();
            let before = alice.sync(None).await;
            assert_eq!(typists(&before, &room), Some(&json!([bob.user_id])));
            gone(how).await;
            let news = alice.sync(before["next_batch"].as_str()).await;
            assert_eq!(typists(&news, &room), Some(&json!([])), "{how}: {news}");
            if how != "ban" {
                bob.join(&room).await;
            }
        }
    }
}
