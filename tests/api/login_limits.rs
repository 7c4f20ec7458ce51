//! Limits on how often a client may guess a password or a token.

use std::net::Ipv4Addr;

use sabha::config::{Rate, RateLimits};
use serde_json::{Value, json};

use crate::harness::{Client, Engine, PASSWORD, TestServer, v3};

/// Allowed guesses at an account from one address, and from everywhere (`address_factor` is 10).
const PAIR: usize = 2;
const EVERYWHERE: usize = 20;

/// Starts a server behind a proxy that names the caller. Its limits do not refill during a test.
async fn server(engine: Engine) -> TestServer {
    let limits = RateLimits { login: Rate::new(0.001, 2), register: Rate::new(1.0, 1000), ..RateLimits::default() };
    let proxy = |config: &mut sabha::config::Config| {
        config.listeners[0].trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    };
    TestServer::builder().engine(engine).rate_limits(limits).config(proxy).start().await
}

async fn status_from(server: &TestServer, address: u8, path: &str, token: Option<&str>, body: Option<Value>) -> u16 {
    let url = format!("{}{path}", server.base());
    let http = reqwest::Client::new();
    let request = match body {
        Some(body) => http.post(url).header("content-type", "application/json").body(body.to_string()),
        None => http.get(url),
    };
    let request = request.header("x-forwarded-for", Ipv4Addr::new(192, 0, 2, address).to_string());
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    request.send().await.expect("an answer").status().as_u16()
}

async fn login(server: &TestServer, address: u8, user: &str, password: &str) -> u16 {
    let identifier = json!({ "type": "m.id.user", "user": user });
    let body = json!({ "type": "m.login.password", "password": password, "identifier": identifier });
    status_from(server, address, &v3(["login"]), None, Some(body)).await
}

/// Deletes a device that does not exist, with a password as proof.
async fn prove(server: &TestServer, address: u8, client: &Client, password: &str) -> u16 {
    let identifier = json!({ "type": "m.id.user", "user": client.user_id });
    let auth = json!({ "type": "m.login.password", "password": password, "identifier": identifier });
    let body = json!({ "devices": ["NONE"], "auth": auth });
    status_from(server, address, &v3(["delete_devices"]), client.token.as_deref(), Some(body)).await
}

both_engines! {
    async fn right_passwords_cost_the_account_nothing(engine: Engine) {
        let server = server(engine).await;
        let alice = server.register("alice").await;
        for _ in 0..3 * PAIR {
            assert_eq!(login(&server, 1, "alice", PASSWORD).await, 200);
            assert_eq!(prove(&server, 1, &alice, PASSWORD).await, 200);
        }
    }

    async fn wrong_passwords_count_for_the_account_and_the_address(engine: Engine) {
        let server = server(engine).await;
        let alice = server.register("alice").await;
        for _ in 0..PAIR {
            assert_eq!(login(&server, 1, "alice", "wrong password").await, 403);
        }
        assert_eq!(login(&server, 1, "alice", "wrong password").await, 429);
        assert_eq!(login(&server, 1, "@Alice:sabha.test", PASSWORD).await, 429, "however it is written");
        assert_eq!(prove(&server, 1, &alice, PASSWORD).await, 429, "and wherever it is asked for");
        // The owner, at another address, is not locked out.
        assert_eq!(login(&server, 2, "alice", PASSWORD).await, 200);
        assert_eq!(prove(&server, 2, &alice, PASSWORD).await, 200);
    }

    async fn wrong_proofs_count_like_wrong_logins(engine: Engine) {
        let server = server(engine).await;
        let alice = server.register("alice").await;
        for _ in 0..PAIR {
            assert_eq!(prove(&server, 1, &alice, "wrong password").await, 401);
        }
        assert_eq!(prove(&server, 1, &alice, "wrong password").await, 429);
        assert_eq!(login(&server, 1, "alice", PASSWORD).await, 429);
    }

    async fn names_that_nobody_has_get_the_same_budget(engine: Engine) {
        let server = server(engine).await;
        server.register("alice").await;
        for user in ["alice", "nobody", "@alice:else.where", "not a name"] {
            let mut answers = Vec::new();
            for _ in 0..=PAIR {
                answers.push(login(&server, 1, user, "wrong password").await);
            }
            assert_eq!(answers, [403, 403, 429], "{user}");
        }
    }

    async fn many_addresses_have_a_budget_together(engine: Engine) {
        let server = server(engine).await;
        server.register("alice").await;
        for guess in 0..EVERYWHERE {
            let address = u8::try_from(10 + guess / PAIR).expect("few addresses");
            assert_eq!(login(&server, address, "alice", "wrong password").await, 403);
        }
        assert_eq!(login(&server, 99, "alice", "wrong password").await, 429);
    }

    async fn every_login_counts_for_its_address(engine: Engine) {
        let server = server(engine).await;
        server.register("alice").await;
        for _ in 0..EVERYWHERE {
            assert_eq!(login(&server, 1, "alice", PASSWORD).await, 200);
        }
        assert_eq!(login(&server, 1, "alice", PASSWORD).await, 429);
        assert_eq!(login(&server, 2, "alice", PASSWORD).await, 200);
    }

    async fn tokens_that_nobody_has_use_up_the_budget_of_their_address(engine: Engine) {
        let limits = RateLimits { other: Rate::new(0.001, 1), ..RateLimits::default() };
        let server = TestServer::builder().engine(engine).rate_limits(limits).start().await;
        let reads = || server.app().db.counters().statements();
        let wrong = format!("sbt_{}", "a".repeat(43));
        let mut answers = Vec::new();
        for _ in 0..10 {
            answers.push(status_from(&server, 1, &v3(["account", "whoami"]), Some(&wrong), None).await);
        }
        assert_eq!(answers, [401; 10]);
        let before = reads();
        assert_eq!(status_from(&server, 1, &v3(["account", "whoami"]), Some(&wrong), None).await, 429);
        assert_eq!(reads(), before, "the database is not asked any more");
    }
}
