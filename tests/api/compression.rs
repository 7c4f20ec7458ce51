//! Answers are compressed where a client asks for it.

use std::io::Read as _;

use flate2::read::GzDecoder;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Client, PASSWORD, TestServer, v3};

/// The answer to a request that accepts gzip.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn is_compressed(&self) -> bool {
        self.headers.get("content-encoding").is_some_and(|coding| coding == "gzip")
    }

    fn json(&self) -> Value {
        let mut json = Vec::new();
        if self.is_compressed() {
            GzDecoder::new(&self.body[..]).read_to_end(&mut json).expect("it is gzip");
        } else {
            json.clone_from(&self.body);
        }
        serde_json::from_slice(&json).expect("JSON")
    }
}

async fn ask(server: &TestServer, client: &Client, method: &str, path: &str, body: Option<Value>) -> Answer {
    let method = method.parse().expect("a method");
    let mut request = reqwest::Client::new().request(method, format!("{}{path}", server.base()));
    request = request.header("accept-encoding", "br, gzip;q=0.8");
    if let Some(token) = &client.token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status(), answer.headers().clone());
    Answer { status, headers, body: answer.bytes().await.expect("a body").to_vec() }
}

both_engines! {
    async fn large_answers_are_compressed_for_who_asks(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        // The small answer is compressed in place, the large one on a thread of its own.
        for (txn, size) in [("small", 100), ("large", 40_000)] {
            alice.send_text(&room, txn, &"hello ".repeat(size / 6)).await;
            let path = v3(["rooms", &room, "messages"]) + "?dir=b&limit=10";
            let plain = alice.get(&path).await;
            assert!(!plain.headers.contains_key("content-encoding"), "nobody asked for it");
            assert_eq!(plain.headers["vary"], "Accept-Encoding");
            let answer = ask(&server, &alice, "GET", &path, None).await;
            assert!(answer.is_compressed() && answer.body.len() < plain.text.len() / 2, "{}", answer.body.len());
            assert_eq!(answer.headers["content-length"], answer.body.len().to_string());
            assert_eq!(answer.headers["vary"], "Accept-Encoding");
            let (mut expected, mut found) = (plain.ok(), answer.json());
            for page in [&mut expected, &mut found] {
                for event in page["chunk"].as_array_mut().expect("a page") {
                    // The age depends on the time of the answer.
                    event["unsigned"]["age"] = Value::Null;
                }
            }
            assert_eq!(found, expected);
        }
        let query = json!({ "device_keys": { alice.user_id.clone(): [] } });
        assert_eq!(ask(&server, &alice, "POST", &v3(["keys", "query"]), Some(query)).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn small_answers_and_those_with_secrets_are_not_compressed() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let whoami = ask(&server, &alice, "GET", &v3(["account", "whoami"]), None).await;
    assert!(!whoami.is_compressed() && whoami.json()["user_id"] == alice.user_id);

    // A long device ID makes the login answer longer; an answer with secrets must stay uncompressed whatever its size.
    let login = json!({
        "type": "m.login.password", "password": PASSWORD, "identifier": { "type": "m.id.user", "user": "alice" },
        "device_id": "D".repeat(255),
    });
    let login = ask(&server, &alice, "POST", &v3(["login"]), Some(login)).await;
    assert!(login.json()["access_token"].is_string() && !login.is_compressed());
    assert!(!login.headers.contains_key("vary"));
    assert!(!ask(&server, &alice, "POST", "/setup", Some(json!({ "x": "y".repeat(2000) }))).await.is_compressed());
}

#[tokio::test]
async fn a_head_says_what_a_get_without_compression_would_have() {
    let server = TestServer::start().await;
    let alice = server.anonymous();
    let plain = alice.get("/").await;
    assert!(plain.text.len() > 1024);
    let head = ask(&server, &alice, "HEAD", "/", None).await;
    assert!(!head.is_compressed() && head.body.is_empty());
    assert_eq!(head.headers["content-length"], plain.text.len().to_string());
    assert_eq!(head.headers["vary"], "Accept-Encoding");
    assert!(ask(&server, &alice, "GET", "/", None).await.is_compressed(), "pages are text");
}
