//! Concurrent requests to one room: each is answered as if they had come one after the other.

use std::{future::Future, pin::Pin};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Client, Response, TestServer, v3};

/// A request that runs on its own.
type Request = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Runs all requests concurrently, and returns their results in any order.
async fn side_by_side(requests: impl IntoIterator<Item = Request>) -> Vec<Response> {
    requests.into_iter().collect::<JoinSet<_>>().join_all().await
}

fn put(client: &Client, path: String, body: Value) -> Request {
    let client = client.clone();
    Box::pin(async move { client.put(&path, body).await })
}

fn post(client: &Client, path: String, body: Value) -> Request {
    let client = client.clone();
    Box::pin(async move { client.post(&path, body).await })
}

fn rename(client: &Client, name: &str) -> Request {
    put(client, v3(["profile", &client.user_id, "displayname"]), json!({ "displayname": name }))
}

fn send(client: &Client, room: &str, txn: &str) -> Request {
    let path = v3(["rooms", room, "send", "m.room.message", txn]);
    put(client, path, json!({ "msgtype": "m.text", "body": txn }))
}

fn state(client: &Client, room: &str, event_type: &str, content: Value) -> Request {
    put(client, v3(["rooms", room, "state", event_type, ""]), content)
}

async fn member(client: &Client, room: &str, user_id: &str) -> Value {
    client.get(&v3(["rooms", room, "state", "m.room.member", user_id])).await.ok()
}

async fn event(client: &Client, room: &str, event_id: &str) -> Value {
    client.get(&v3(["rooms", room, "event", event_id])).await.ok()
}

/// Returns the IDs of all events of the room, oldest first.
async fn timeline(client: &Client, room: &str) -> Vec<String> {
    let events = client.timeline(room).await;
    events.iter().map(|event| event["event_id"].as_str().expect("checked").to_owned()).collect()
}

both_engines! {
    async fn messages_are_sent_while_power_levels_change(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await;
        bob.join(&room).await;
        let levels = side_by_side((0..60).map(|level| {
            let users = json!({ alice.user_id.as_str(): 100 });
            state(&alice, &room, "m.room.power_levels", json!({ "users": users, "ban": level }))
        }));
        let sends = side_by_side((0..120).map(|txn| send(&bob, &room, &txn.to_string())));
        let (levels, sends) = tokio::join!(levels, sends);
        let sent: Vec<Value> = levels.into_iter().chain(sends).map(Response::ok).collect();
        let timeline = timeline(&alice, &room).await;
        for answer in &sent {
            let event_id = answer["event_id"].as_str().expect("checked");
            assert_eq!(timeline.iter().filter(|id| *id == event_id).count(), 1, "{event_id}");
        }
    }

    async fn members_come_and_go_while_names_and_state_change(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let mut users = Vec::new();
        for number in 0..8 {
            users.push(server.register(&format!("user{number}")).await);
        }
        for round in 0..4 {
            let join = v3(["join", &room]);
            let twice = users.iter().chain(&users);
            for answer in side_by_side(twice.clone().map(|user| post(user, join.clone(), json!({})))).await {
                answer.ok();
            }
            let mut requests: JoinSet<Response> = JoinSet::new();
            for (number, user) in users.iter().enumerate() {
                requests.spawn(rename(user, &format!("{round}.{number}")));
                requests.spawn(send(user, &room, &format!("{round}.{number}")));
                requests.spawn(state(&alice, &room, "m.room.topic", json!({ "topic": format!("{round}.{number}") })));
                let (kick, whom) = (v3(["rooms", &room, "kick"]), json!({ "user_id": user.user_id }));
                requests.spawn(post(&alice, kick.clone(), whom.clone()));
                requests.spawn(post(&alice, kick, whom.clone()));
                requests.spawn(post(&alice, v3(["rooms", &room, "invite"]), whom));
            }
            for answer in requests.join_all().await {
                let known = [StatusCode::OK, StatusCode::FORBIDDEN];
                assert!(known.contains(&answer.status), "{}", answer.text);
            }
        }
    }

    async fn who_leaves_while_their_name_changes_stays_outside(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        for round in 0..20 {
            bob.join(&room).await;
            let leave = if round % 2 == 0 {
                post(&bob, v3(["rooms", &room, "leave"]), json!({}))
            } else {
                post(&alice, v3(["rooms", &room, "kick"]), json!({ "user_id": bob.user_id }))
            };
            let requests = [rename(&bob, &round.to_string()), leave];
            for answer in side_by_side(requests).await {
                answer.ok();
            }
            server.app().jobs.settled().await;
            assert_eq!(member(&alice, &room, &bob.user_id).await["membership"], "leave", "round {round}");
        }
    }

    async fn what_a_redacted_topic_said_is_nowhere_left(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        for round in 0..30 {
            let slip = alice.set_state(&room, "m.room.topic", "", json!({ "topic": format!("slip {round}") })).await;
            let redact = put(&alice, v3(["rooms", &room, "redact", &slip, &round.to_string()]), json!({}));
            let next = state(&alice, &room, "m.room.topic", json!({ "topic": format!("fine {round}") }));
            let (redact, next) = tokio::join!(tokio::spawn(redact), tokio::spawn(next));
            redact.expect("it ran").ok();
            let next = next.expect("it ran").ok()["event_id"].as_str().expect("checked").to_owned();
            let event = event(&alice, &room, &next).await;
            assert_eq!(event["unsigned"]["replaces_state"], slip.as_str());
            assert_eq!(event["unsigned"]["prev_content"], json!({}), "round {round}");
            let shown = [
                alice.get(&(v3(["rooms", &room, "messages"]) + "?dir=b&limit=20")).await.ok(),
                alice.sync(None).await,
            ];
            for answer in shown {
                assert!(!answer.to_string().contains("slip"), "round {round}: {answer}");
            }
        }
    }

    async fn of_equal_reactions_at_once_one_is_sent(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let parent = alice.send_text(&room, "parent", "tea?").await;
        let relates_to = json!({ "rel_type": "m.annotation", "event_id": parent, "key": "👍" });
        let answers = side_by_side((0..10).map(|txn| {
            let path = v3(["rooms", &room, "send", "m.reaction", &txn.to_string()]);
            put(&alice, path, json!({ "m.relates_to": relates_to }))
        }))
        .await;
        let (sent, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == StatusCode::OK);
        assert_eq!(sent.len(), 1);
        for answer in refused {
            answer.error(400, "M_DUPLICATE_ANNOTATION");
        }
    }
}
