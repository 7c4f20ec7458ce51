//! The setup page, which gives an empty server its first admin.

use std::time::Duration;

use http::StatusCode;
use sabha::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{Client, Response, TestServer};

async fn set_up(client: &Client, secret: &str, username: &str) -> Response {
    client.post("/setup", json!({ "secret": secret, "username": username, "password": "correct horse battery" })).await
}

#[track_caller]
fn refused(response: Response) {
    let error = response.error(403, "M_FORBIDDEN");
    assert!(error["error"].as_str().is_some_and(|text| text.contains("This link was used, has expired")), "{error}");
}

both_engines! {
    async fn the_link_makes_one_admin_and_then_no_more(server: TestServer) {
        let secret = server.app().accounts.create_setup_secret().await.expect("stored");
        let client = server.anonymous();
        assert!(!server.app().accounts.has_any_account().await.expect("read"));
        assert_eq!(set_up(&client, &secret, "Alice").await.ok(), json!({ "user_id": "@alice:sabha.test" }));
        let users = server.app().accounts.list_users(None, 10).await.expect("read");
        assert!(users.len() == 1 && users[0].account.admin, "{users:?}");
        refused(set_up(&client, &secret, "bob").await);
        let another = server.app().accounts.create_setup_secret().await.expect("stored");
        refused(set_up(&client, &another, "bob").await);
    }
}

#[tokio::test]
async fn a_wrong_replaced_or_expired_link_says_so() {
    let clock = Clock::manual(1_800_000_000_000);
    let server = TestServer::builder().clock(clock.clone()).start().await;
    let client = server.anonymous();
    refused(set_up(&client, "guess", "alice").await);
    // Without the secret nobody learns which names are taken or valid.
    server.register("carol").await;
    refused(set_up(&client, "guess", "carol").await);
    refused(set_up(&client, "guess", "not a name").await);
    let weak = json!({ "secret": "guess", "username": "alice", "password": "x" });
    refused(client.post("/setup", weak).await);
    let first = server.app().accounts.create_setup_secret().await.expect("stored");
    let second = server.app().accounts.create_setup_secret().await.expect("stored");
    refused(set_up(&client, &first, "alice").await);
    clock.advance(Duration::from_secs(3600));
    refused(set_up(&client, &second, "alice").await);
}

#[tokio::test]
async fn a_bad_name_or_password_leaves_the_link_good() {
    let server = TestServer::start().await;
    let client = server.anonymous();
    let secret = server.app().accounts.create_setup_secret().await.expect("stored");
    set_up(&client, &secret, "not a name").await.error(400, "M_INVALID_USERNAME");
    let short = json!({ "secret": secret, "username": "alice", "password": "x" });
    client.post("/setup", short).await.error(400, "M_WEAK_PASSWORD");
    client.post("/setup", Value::Null).await.error(400, "M_BAD_JSON");
    set_up(&client, &secret, "alice").await.ok();
}

#[tokio::test]
async fn the_page_runs_only_its_own_script() {
    let server = TestServer::start().await;
    let page = server.anonymous().get("/setup").await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.headers["content-security-policy"].to_str().expect("text");
    for part in ["default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "connect-src 'self'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && page.headers["referrer-policy"] == "no-referrer");
    assert!(!page.headers.contains_key("access-control-allow-origin"), "no other site has business here");
    assert!(page.text.contains("location.hash") && page.text.contains("https://sabha.test"), "{}", page.text);
}
