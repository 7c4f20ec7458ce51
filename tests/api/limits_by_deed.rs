//! Rate limits count actions, whichever endpoint performs them.

use sabha::{
    account::password::Hashing,
    config::{Rate, RateLimits},
};
use serde_json::{Value, json};

use crate::harness::{Client, Engine, TestServer, v3};

/// Starts a server on which only one action is limited.
async fn server(engine: Engine, limit: impl FnOnce(&mut RateLimits)) -> TestServer {
    let free = || Rate::new(1000.0, 1000);
    let mut limits = RateLimits {
        send: free(),
        login: free(),
        register: free(),
        create_room: free(),
        invite: free(),
        join: free(),
        presence: free(),
        sync: free(),
        other: free(),
        ..RateLimits::default()
    };
    limit(&mut limits);
    TestServer::builder().engine(engine).rate_limits(limits).start().await
}

fn rarely(burst: u32) -> Rate {
    Rate::new(0.001, burst)
}

async fn put_member(client: &Client, room: &str, user_id: &str, membership: &str) -> u16 {
    let path = v3(["rooms", room, "state", "m.room.member", user_id]);
    client.put(&path, json!({ "membership": membership })).await.status.as_u16()
}

both_engines! {
    async fn an_invitation_is_one_wherever_it_is_sent(engine: Engine) {
        let server = server(engine, |limits| limits.invite = rarely(6)).await;
        let alice = server.register("alice").await;
        let mut users = Vec::new();
        for number in 0..4 {
            users.push(server.register(&format!("user{number}")).await.user_id);
        }
        let room = alice.create_room(json!({ "invite": users[..2] })).await;
        alice.invite(&room, &users[2]).await;
        assert_eq!(put_member(&alice, &room, &users[3], "invite").await, 200);
        let two_more = alice.create_room(json!({ "invite": users[..2] })).await;
        assert_eq!(put_member(&alice, &two_more, &users[2], "invite").await, 429);
        alice.post(&v3(["rooms", &two_more, "invite"]), json!({ "user_id": users[2] })).await.error(429, "M_LIMIT_EXCEEDED");
        alice.post(&v3(["createRoom"]), json!({ "invite": users[..1] })).await.error(429, "M_LIMIT_EXCEEDED");
        alice.create_room(json!({})).await;
        assert_eq!(put_member(&alice, &two_more, &users[0], "ban").await, 200, "what is no invitation costs none");
    }

    async fn a_join_is_one_however_it_is_made(engine: Engine) {
        let server = server(engine, |limits| limits.join = rarely(2)).await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        bob.leave(&room).await;
        assert_eq!(put_member(&bob, &room, &bob.user_id, "join").await, 200);
        assert_eq!(put_member(&bob, &room, &bob.user_id, "join").await, 429);
        bob.post(&v3(["join", &room]), json!({})).await.error(429, "M_LIMIT_EXCEEDED");
        assert_eq!(put_member(&bob, &room, &bob.user_id, "leave").await, 200);
    }

    async fn refresh_tokens_that_nobody_has_cost_no_transaction_and_are_limited(engine: Engine) {
        let server = server(engine, |limits| limits.login = rarely(1)).await;
        server.register("alice").await;
        let shaped = json!({ "refresh_token": format!("sbr_{}", "x".repeat(43)) });
        let before = server.app().db.committer().published();
        let client = server.anonymous();
        // `address_factor` is 10.
        for _ in 0..10 {
            client.post(&v3(["refresh"]), shaped.clone()).await.error(401, "M_UNKNOWN_TOKEN");
        }
        client.post(&v3(["refresh"]), shaped).await.error(429, "M_LIMIT_EXCEEDED");
        client.post(&v3(["refresh"]), json!({ "refresh_token": "x" })).await.error(429, "M_LIMIT_EXCEEDED");
        assert_eq!(server.app().db.committer().published(), before);
    }
}

#[tokio::test]
async fn presence_has_a_limit_of_its_own() {
    let server = server(Engine::Sqlite, |limits| limits.presence = rarely(2)).await;
    let alice = server.register("alice").await;
    let path = v3(["presence", &alice.user_id, "status"]);
    for presence in ["online", "unavailable"] {
        alice.put(&path, json!({ "presence": presence })).await.ok();
    }
    let refused = alice.put(&path, json!({ "presence": "online" })).await;
    let wait_s: u64 = refused.headers["retry-after"].to_str().expect("text").parse().expect("a number");
    let wait_ms = refused.error(429, "M_LIMIT_EXCEEDED")["retry_after_ms"].as_u64().expect("it says when");
    assert_eq!(wait_s, wait_ms.div_ceil(1000));
    alice.get(&v3(["account", "whoami"])).await.ok();
}

#[tokio::test]
async fn who_finds_the_queue_for_hashing_full_is_told_when_to_come_back() {
    let server = TestServer::builder().hashing(Hashing::cheap().with_queue(0)).start().await;
    let client = server.anonymous();
    let password = "correct horse battery staple";
    let login = json!({
        "type": "m.login.password", "password": password, "identifier": { "type": "m.id.user", "user": "alice" },
    });
    let register = json!({ "username": "alice", "password": password, "auth": { "type": "m.login.dummy" } });
    let check = async |path: &str, body: Value| {
        let refused = client.post(path, body).await;
        assert_eq!(refused.headers["retry-after"], "2");
        assert_eq!(refused.error(429, "M_LIMIT_EXCEEDED")["retry_after_ms"], 2000);
    };
    check(&v3(["login"]), login).await;
    check(&v3(["register"]), register).await;
    let secret = server.app().accounts.create_setup_secret().await.expect("stored");
    check("/setup", json!({ "secret": secret, "username": "alice", "password": password })).await;
}
