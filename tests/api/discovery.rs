//! Discovery, and the answers to requests for something that does not exist ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#api-standards

use http::{Method, StatusCode};
use sabha::config::{Rate, RateLimits};
use serde_json::json;

use crate::harness::{Client, TestServer, v3};

const VERSIONS: &str = "/_matrix/client/versions";

both_engines! {
    async fn clients_learn_which_versions_are_spoken(server: TestServer) {
        let answer = server.anonymous().get(VERSIONS).await.ok();
        let versions = answer["versions"].as_array().expect("a list");
        assert!(versions.contains(&json!("v1.19")) && versions.contains(&json!("v1.1")), "{answer}");
    }
}

#[tokio::test]
async fn an_unknown_endpoint_is_not_recognized() {
    let server = TestServer::start().await;
    let client = server.anonymous();
    for path in ["/_matrix/client/v3/nothing", "/_matrix/nothing", "/nothing"] {
        client.get(path).await.error(404, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn a_known_endpoint_with_another_method_is_not_allowed() {
    let server = TestServer::start().await;
    server.anonymous().post(VERSIONS, json!({})).await.error(405, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn browsers_may_use_every_endpoint() {
    let server = TestServer::start().await;
    let client = server.anonymous();
    for path in [VERSIONS, "/_matrix/client/v3/nothing", "/.well-known/matrix/client"] {
        let preflight = client.request(Method::OPTIONS, path, None).await;
        assert_eq!(preflight.status, StatusCode::NO_CONTENT);
        for answer in [preflight, client.get(path).await] {
            assert_eq!(answer.headers["access-control-allow-origin"], "*");
            assert!(answer.headers["access-control-allow-headers"].as_bytes().ends_with(b"Authorization"));
        }
    }
}

/// Sends `POST /register` with this body and without a token.
async fn register_with(client: &Client, body: String) -> crate::harness::Response {
    client.request(Method::POST, &v3(["register"]), Some(body)).await
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_told_apart() {
    let server = TestServer::start().await;
    let client = server.anonymous();
    register_with(&client, "{".to_owned()).await.error(400, "M_NOT_JSON");
    register_with(&client, json!({ "username": 7 }).to_string()).await.error(400, "M_BAD_JSON");
    let limit = server.app().config.limits.request_bytes.bytes();
    register_with(&client, " ".repeat(limit + 1)).await.error(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn a_body_that_is_not_utf_8_is_no_json() {
    let server = TestServer::start().await;
    let path = format!("{}{}", server.base(), v3(["register"]));
    let body = b"{ \"test\": \"a\x81\" }".to_vec();
    let answer = reqwest::Client::new().post(path).body(body).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(answer.text().await.expect("text").contains("M_NOT_JSON"));
}

#[tokio::test]
async fn over_the_limit_a_client_is_told_when_to_come_back() {
    let other = Rate::new(0.01, 2);
    let limits = RateLimits { enabled: true, address_factor: 1.0, other, ..RateLimits::default() };
    let server = TestServer::builder().rate_limits(limits).start().await;
    let client = server.anonymous();
    client.get(VERSIONS).await.ok();
    client.get(VERSIONS).await.ok();
    let error = client.get(VERSIONS).await.error(429, "M_LIMIT_EXCEEDED");
    let wait_ms = error["retry_after_ms"].as_u64().expect("checked");
    assert!((90_000..=100_000).contains(&wait_ms), "{error}");
}

#[tokio::test]
async fn well_known_says_where_clients_go() {
    let server = TestServer::start().await;
    let answer = server.anonymous().get("/.well-known/matrix/client").await.ok();
    assert_eq!(answer, json!({ "m.homeserver": { "base_url": "https://sabha.test" } }));
    server.anonymous().get("/.well-known/matrix/server").await.error(404, "M_NOT_FOUND");

    let configured = TestServer::builder().config(|config| {
        config.client.base_url = Some("https://chat.sabha.test/".to_owned());
        config.federation.well_known_server = Some("fed.sabha.test:8448".to_owned());
    });
    let server = configured.start().await;
    let client = server.anonymous();
    let answer = client.get("/.well-known/matrix/client").await.ok();
    assert_eq!(answer["m.homeserver"]["base_url"], "https://chat.sabha.test");
    assert_eq!(client.get("/.well-known/matrix/server").await.ok(), json!({ "m.server": "fed.sabha.test:8448" }));
}

both_engines! {
    async fn a_running_server_is_healthy_and_ready(server: TestServer) {
        let client = server.anonymous();
        assert_eq!(client.get("/health").await.text, "OK");
        let ready = client.get("/ready").await.ok();
        assert_eq!(ready["ready"], true, "{ready}");
    }
}

#[tokio::test]
async fn the_landing_page_needs_nothing_from_elsewhere() {
    let server = TestServer::start().await;
    let page = server.anonymous().get("/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("<h1>sabha.test</h1>"), "{}", page.text);
    let policy = page.headers["content-security-policy"].to_str().expect("text");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
}

/// Lists that are not implemented are empty, because clients that get an error ask again and again.
#[tokio::test]
async fn what_is_not_there_yet_is_answered_as_empty() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    for (path, expected) in [
        (v3(["voip", "turnServer"]), json!({})),
        (v3(["thirdparty", "protocols"]), json!({})),
        (v3(["pushers"]), json!({ "pushers": [] })),
    ] {
        assert_eq!(alice.get(&path).await.ok(), expected);
        server.anonymous().get(&path).await.error(401, "M_MISSING_TOKEN");
    }
}
