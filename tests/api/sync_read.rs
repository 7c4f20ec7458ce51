//! The request of a sync is read in two ways, with the session in memory and without: both have the same steps and errors.

use http::Method;
use serde_json::Value;

use crate::harness::{Client, Spans, TestServer, v3};

/// Queries that are refused, or that name somebody else.
const QUERIES: [&str; 12] = [
    "since=nothing",
    "since=%00",
    "timeout=soon",
    "timeout=1&timeout=2",
    "filter=%7B",
    "filter=%7B%22room%22%3A1%7D",
    "filter=nothing",
    "filter=999",
    "since=nothing&filter=%7B",
    "set_presence=nobody",
    "full_state=perhaps",
    "user_id=%40other%3Asabha.test",
];

/// The status and the error of a sync.
async fn refusal(client: &Client, query: &str, body: Option<&str>) -> (u16, Value, Value) {
    let path = format!("/_matrix/client/v3/sync?{query}");
    let answer = client.request(Method::GET, &path, body.map(str::to_owned)).await;
    (answer.status.as_u16(), answer.json["errcode"].clone(), answer.json["error"].clone())
}

both_engines! {
    async fn a_sync_that_memory_can_read_takes_the_usual_steps(server: TestServer) {
        let alice = server.register("alice").await;
        let since = alice.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
        let spans = Spans::count();
        alice.sync(Some(&since)).await;
        for step in ["authenticate", "sync.read"] {
            assert_eq!(spans.of(step), 1, "{step}");
        }
    }

    async fn a_sync_is_refused_alike_whether_memory_has_the_session_or_not(server: TestServer) {
        let alice = server.register("alice").await;
        let bodies = [Some("no JSON"), Some("[]"), Some("{}")].map(|body| ("since=nothing", body));
        let mut refused = 0;
        for (query, body) in QUERIES.map(|query| (query, None)).into_iter().chain(bodies) {
            // Nobody has used the token of a new device.
            let device = alice.login_again().await;
            let first = refusal(&device, query, body).await;
            device.get(&v3(["account", "whoami"])).await.ok();
            assert_eq!(first, refusal(&device, query, body).await, "{query} {body:?}");
            refused += usize::from(first.0 == 400);
        }
        assert!(refused >= 10, "{refused} were refused");
        let stranger = alice.with_token("nobody has this token");
        assert_eq!(refusal(&stranger, "since=nothing", None).await.0, 401);
        assert_eq!(refusal(&stranger, "since=%00", None).await.0, 400, "before the token is looked at");
    }
}
