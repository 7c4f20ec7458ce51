//! The memory of requests whose handlers wait: a large body holds its share until its handler ends, and few requests of a
//! user wait for the user's turn.

use sabha::account::turns::MAX_WAITING;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    harness::{Client, Response, TestServer, v3},
    large_answers::nid,
};

fn account_data(client: &Client, event_type: &str) -> String {
    v3(["user", &client.user_id, "account_data", event_type])
}

/// Stores account data of 330 kB. Parsed, it counts for more than half of a user's share.
fn put_large(client: &Client, event_type: &str) -> JoinHandle<Response> {
    let (client, path) = (client.clone(), account_data(client, event_type));
    tokio::spawn(async move { client.put(&path, json!({ "a": vec![""; 110_000] })).await })
}

both_engines! {
    async fn a_large_request_holds_its_memory_until_it_is_answered(server: TestServer) {
        let alice = server.register("alice").await;
        let app = server.app();
        let user = nid(app, &alice).await;
        // Nobody else may write the user's data, so the requests wait.
        let turn = app.account_data.turn(user).await.expect("it is free");
        let mut requests = Vec::new();
        for number in 1..=2 {
            requests.push(put_large(&alice, &format!("com.example.{number}")));
            while app.bodies.parsed_bodies(user) < number {
                assert!(!requests.iter().any(JoinHandle::is_finished), "one was answered");
                tokio::task::yield_now().await;
            }
        }
        // One of them has its share and waits for the turn; the other one waits for the share. Small requests pass.
        alice.post(&v3(["keys", "query"]), json!({ "device_keys": { &alice.user_id: [] } })).await.ok();
        alice.get(&v3(["account", "whoami"])).await.ok();
        assert_eq!(app.bodies.parsed_bodies(user), 2);
        drop(turn);
        for request in requests {
            request.await.expect("it does not panic").ok();
        }
        assert_eq!(app.bodies.parsed_bodies(user), 0);
    }

    async fn the_requests_that_wait_for_a_turn_are_bounded(server: TestServer) {
        let alice = server.register("alice").await;
        let app = server.app();
        let turn = app.account_data.turn(nid(app, &alice).await).await.expect("it is free");
        let mut requests = JoinSet::new();
        for number in 0..=MAX_WAITING {
            let (client, path) = (alice.clone(), account_data(&alice, &format!("com.example.{number}")));
            requests.spawn(async move { client.put(&path, json!({ "number": number })).await });
        }
        let first = requests.join_next().await.expect("there are some").expect("it does not panic");
        assert_eq!(first.error(429, "M_LIMIT_EXCEEDED")["retry_after_ms"], 1000);
        // Another user's request waits for nobody.
        let bob = server.register("bob").await;
        bob.put(&account_data(&bob, "com.example"), json!({})).await.ok();
        drop(turn);
        while let Some(answer) = requests.join_next().await {
            answer.expect("it does not panic").ok();
        }
    }
}
