//! The fuzz of request bodies: each endpoint of the client-server API that takes a body gets many that are nearly right, and
//! answers each as the specification allows, never with a fault of its own. What it accepts breaks nobody's `/sync`.
//!
//! `SABHA_FUZZ_BODIES` sets the number of bodies for each endpoint, `SABHA_FUZZ_SEED` repeats a run.

mod bodies;

use http::Method;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;

use self::bodies::Words;
use crate::harness::{Client, TestServer};

/// Bodies for each endpoint, without `SABHA_FUZZ_BODIES`.
const BODIES: u64 = 12;

/// The prefix of the endpoints: stable, unstable and of any version.
const CLIENT_API: &str = "/_matrix/client/";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

/// Somebody whose session an endpoint may end, with a room, an event in it and a second user.
struct Scene {
    alice: Client,
    bob: Client,
    words: Words,
}

impl Scene {
    async fn new(server: &TestServer, number: usize) -> Self {
        let alice = server.register(&format!("alice{number}")).await;
        let bob = server.register(&format!("bob{number}")).await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let event = alice.send_text(&room, "0", "hello").await;
        let words = Words {
            user: alice.user_id.clone(),
            other: bob.user_id.clone(),
            device: alice.device_id.clone(),
            room,
            event,
        };
        Self { alice, bob, words }
    }
}

both_engines! {
    async fn no_body_makes_an_endpoint_fail(server: TestServer) {
        let seed = number("SABHA_FUZZ_SEED").unwrap_or_else(rand::random);
        println!("SABHA_FUZZ_SEED={seed}");
        let bodies = number("SABHA_FUZZ_BODIES").unwrap_or(BODIES);
        let mut rng = StdRng::seed_from_u64(seed);
        let takes_a_body = |method: &Method| [Method::PUT, Method::POST, Method::DELETE].contains(method);
        let routes = sabha::server::routes().into_iter();
        for (number, (method, path)) in routes.filter(|(method, path)| takes_a_body(method) && path.starts_with(CLIENT_API)).enumerate() {
            let Scene { mut alice, bob, words } = Scene::new(&server, number).await;
            for _ in 0..bodies {
                let path = words.fill(path, &mut rng);
                let body = words.body(&path, &mut rng);
                let text = if rng.random_ratio(1, 30) { bodies::broken(&body, &mut rng) } else { body.to_string() };
                // The client holds each answer against the specification.
                let answer = alice.request(method.clone(), &path, Some(text.clone())).await;
                assert!(answer.status.as_u16() < 500, "{method} {path}: {} to {text}: {}", answer.status, answer.text);
                if answer.status == 401 && answer.json["errcode"] == "M_UNKNOWN_TOKEN" {
                    alice = Scene::new(&server, 1_000_000 + rng.random_range(0..1_000_000_000_usize)).await.alice;
                }
            }
            for client in [&alice, &bob] {
                let answer = client.get("/_matrix/client/v3/sync?timeout=0").await;
                assert!(answer.status == 200 || answer.json["errcode"] == "M_UNKNOWN_TOKEN", "after {method} {path}: {}", answer.text);
            }
        }
    }
}
