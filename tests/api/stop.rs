//! Stopping in order: waiting requests are answered, and acknowledged writes exist afterwards.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sabha::store::{
    Position,
    committer::Ended,
    log::{LogEntry, Memory},
};
use serde_json::json;

use crate::harness::{Parks, TestServer, v3};

/// Memory with a mistake in it.
struct Panics;

impl Memory for Panics {
    fn apply(&self, _: &LogEntry) {
        panic!("a mistake in what changes memory");
    }

    fn forget(&self, _: Position) {}
}

both_engines! {
    async fn a_parked_sync_is_answered_when_the_server_stops(mut server: TestServer) {
        let alice = server.register("alice").await;
        let since = alice.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
        let mut parks = Parks::watch();
        let mut parked = tokio::spawn(async move { alice.sync_with(Some(&since), "timeout=60000").await });
        tokio::select! {
            () = parks.next() => {}
            answer = &mut parked => panic!("there is nothing new, so it waits: {answer:?}"),
        }
        let began = Instant::now();
        server.stop().await;
        let answer = parked.await.expect("answered, not dropped");
        assert!(answer["next_batch"].is_string(), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    async fn a_committer_that_has_ended_is_not_ready(server: TestServer) {
        let alice = server.register("alice").await;
        assert_eq!(alice.get("/ready").await.status, 200);
        let committer = server.app().db.committer();
        committer.remember(Arc::new(Panics));
        let panicking = alice.post(&v3(["createRoom"]), json!({})).await;
        assert_eq!(panicking.status, 503);
        assert_eq!(committer.ended().await, Ended::MemoryBehind);
        let ready = alice.get("/ready").await;
        assert_eq!(ready.status, 503);
        let text = ready.json["checks"][1]["error"].as_str().expect("the committer's check failed");
        assert!(text.contains("memory could not follow a commit"), "{text}");
        let refused = alice.post(&v3(["createRoom"]), json!({})).await;
        refused.error(503, "M_UNKNOWN");
    }

    async fn requests_in_flight_are_finished_and_kept(mut server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let sends: Vec<_> = (0..20)
            .map(|n| {
                let (alice, room) = (alice.clone(), room.clone());
                tokio::spawn(async move { alice.send_text(&room, &format!("txn{n}"), "hello").await })
            })
            .collect();
        let mut sent = Vec::new();
        for send in sends {
            sent.push(send.await.expect("answered"));
        }
        server.restart().await;
        for event_id in sent {
            alice.get(&v3(["rooms", &room, "event", &event_id])).await.ok();
        }
    }
}

#[tokio::test]
async fn a_clean_stop_leaves_everything_in_the_database_file() {
    let mut server = TestServer::start().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    for round in 0..5 {
        let sends = (0..5).map(|n| {
            let (alice, room) = (alice.clone(), room.clone());
            tokio::spawn(async move { alice.send_text(&room, &format!("txn{round}-{n}"), "hello").await })
        });
        let sends: Vec<_> = sends.collect();
        // A client reads from the database meanwhile.
        let search = v3(["rooms", &room, "messages"]) + "?dir=b&limit=100";
        alice.get(&search).await.ok();
        for send in sends {
            send.await.expect("answered");
        }
        server.stop().await;
        let log = server.data_dir().join("sabha.db-wal");
        assert_eq!(std::fs::metadata(&log).map_or(0, |log| log.len()), 0, "round {round}");
        server.restart().await;
    }
}
