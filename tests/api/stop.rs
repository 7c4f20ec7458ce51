//! Stopping in order: who waits is answered, and what was answered is there afterwards.

use std::time::{Duration, Instant};

use crate::harness::{Parks, TestServer};
use serde_json::json;

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
            alice.get(&crate::harness::v3(["rooms", &room, "event", &event_id])).await.ok();
        }
    }
}
