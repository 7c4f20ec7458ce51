//! Pages of events are bounded in bytes: a page ends early, and reading goes on from there.

use sabha::config::ByteSize;
use serde_json::{Value, json};

use crate::harness::{Client, Engine, TestServer, v3};

/// Starts a server with pages of 64 KiB, and creates a room with ten events of 20 kB, all replies in one thread.
async fn scene(engine: Engine) -> (TestServer, Client, String, Vec<String>) {
    let small = |config: &mut sabha::config::Config| config.limits.page_bytes = ByteSize::kib(64);
    let server = TestServer::builder().engine(engine).config(small).start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let root = alice.send_text(&room, "root", "root").await;
    let mut sent = vec![root.clone()];
    for txn in 0..10 {
        let relates_to = json!({ "rel_type": "m.thread", "event_id": root });
        let content = json!({ "msgtype": "m.text", "body": "x".repeat(20_000), "m.relates_to": relates_to });
        sent.push(alice.send(&room, "m.room.message", &format!("t{txn}"), content).await);
    }
    (server, alice, room, sent)
}

fn ids(events: &Value) -> Vec<String> {
    let events = events.as_array().expect("a checked answer has it");
    events.iter().map(|event| event["event_id"].as_str().expect("every event has one").to_owned()).collect()
}

/// Follows pages to the end, or to the live end, where a page is empty. Checks that no page is larger than the limit.
async fn walk(client: &Client, path: &str, next_name: &str) -> Vec<String> {
    let (mut all, mut from) = (Vec::new(), String::new());
    loop {
        let answer = client.get(&format!("{path}&limit=100{from}")).await;
        assert!(answer.text.len() < (64 << 10) + 30_000, "{} bytes", answer.text.len());
        let page = answer.ok();
        let found = ids(&page["chunk"]);
        // At the live end the token stays the same.
        let is_end = page[next_name].is_null() || page[next_name] == page["start"];
        assert!(!found.is_empty() || is_end, "every page gets further");
        all.extend(found);
        match page[next_name].as_str().filter(|_| !is_end) {
            Some(next) => from = format!("&from={next}"),
            None => return all,
        }
    }
}

both_engines! {
    async fn a_walk_through_large_events_meets_each_once(engine: Engine) {
        let (_server, alice, room, sent) = scene(engine).await;
        let messages = v3(["rooms", &room, "messages"]);
        let forward = walk(&alice, &format!("{messages}?dir=f"), "end").await;
        assert!(forward.ends_with(&sent), "{forward:?}");
        let mut back = walk(&alice, &format!("{messages}?dir=b"), "end").await;
        back.reverse();
        assert_eq!(back, forward);

        let relations = v3(["rooms", &room, "relations", &sent[0]]).replacen("/v3/", "/v1/", 1);
        assert_eq!(walk(&alice, &format!("{relations}?dir=f"), "next_batch").await, sent[1..]);
        let mut back = walk(&alice, &format!("{relations}?dir=b"), "next_batch").await;
        back.reverse();
        assert_eq!(back, sent[1..]);
    }

    async fn the_context_of_an_event_ends_early_on_both_sides(engine: Engine) {
        let (_server, alice, room, sent) = scene(engine).await;
        let path = v3(["rooms", &room, "context", &sent[5]]) + "?limit=100";
        let context = alice.get(&path).await.ok();
        let (mut before, after) = (ids(&context["events_before"]), ids(&context["events_after"]));
        before.reverse();
        assert_eq!((&before[..], &after[..]), (&sent[3..5], &sent[6..8]));
        // The tokens continue from there.
        let messages = |dir: &str, token: &str| {
            let from = context[token].as_str().expect("it has both");
            v3(["rooms", &room, "messages"]) + &format!("?dir={dir}&limit=1&from={from}")
        };
        assert_eq!(ids(&alice.get(&messages("b", "start")).await.ok()["chunk"]), [sent[2].clone()]);
        assert_eq!(ids(&alice.get(&messages("f", "end")).await.ok()["chunk"]), [sent[8].clone()]);
    }
}
