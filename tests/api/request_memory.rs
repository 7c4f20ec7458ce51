//! The memory of requests whose handlers wait: a large body holds its share until its handler ends, and few requests of a
//! user wait for the user's turn.

use http::Method;
use sabha::{account::turns::MAX_WAITING, store::RoomNid};
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

    async fn a_large_request_that_waits_leaves_memory_for_others(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let app = server.app();
        let user = nid(app, &alice).await;
        let turn = app.account_data.turn(user).await.expect("it is free");
        let waiting = put_large(&alice, "com.example.1");
        while app.bodies.parsed_bodies(user) == 0 {
            assert!(!waiting.is_finished(), "it was answered");
            tokio::task::yield_now().await;
        }
        put_large(&bob, "com.example.1").await.expect("it does not panic").ok();
        assert!(!waiting.is_finished());
        drop(turn);
        waiting.await.expect("it does not panic").ok();
    }

    async fn a_request_that_takes_more_than_a_share_is_refused(server: TestServer) {
        let alice = server.register("alice").await;
        let parts = |count: usize| vec![r#"{"":0}"#; count].join(",");
        let path = account_data(&alice, "com.example");
        for (count, end) in [(9_000, "}"), (140_000, "}"), (140_000, r#","y":1e999} z"#)] {
            let body = format!(r#"{{"x":[{}]{end}"#, parts(count));
            alice.request(Method::PUT, &path, Some(body)).await.error(413, "M_TOO_LARGE");
        }
        // A handler may wait for another server or for a password's hash, so that these requests are small.
        let body = json!({ "x": vec![""; 2_000] });
        for endpoint in ["publicRooms?server=other.example", "login", "delete_devices", "account/password"] {
            let path = format!("{}/{endpoint}", v3([]));
            alice.post(&path, body.clone()).await.error(413, "M_TOO_LARGE");
        }
        assert_eq!(server.app().bodies.parsed_bodies(nid(server.app(), &alice).await), 0);
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
        // A request that is done waits with what it still has to do.
        let user = nid(app, &alice).await;
        let carried = app.account_data.carry_tags_over(user, RoomNid(1), RoomNid(2));
        let (carried, ()) = tokio::join!(carried, async { drop(turn) });
        carried.expect("it is not refused");
        while let Some(answer) = requests.join_next().await {
            answer.expect("it does not panic").ok();
        }
    }
}
