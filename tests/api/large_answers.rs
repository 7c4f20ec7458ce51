//! Large answers: few are made at a time, and a room's timeline has a bounded part in one.

use serde_json::json;

use crate::harness::{Client, TestServer, v3};

const HUNDRED_EVENTS: &str = "timeout=0&filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A100%7D%7D%7D";

async fn next_batch(client: &Client) -> String {
    client.sync(None).await["next_batch"].as_str().expect("checked").to_owned()
}

async fn send_large(client: &Client, room: &str, count: usize) {
    let large = json!({ "x": "y".repeat(60_000) });
    for txn in 0..count {
        client.send(room, "com.example.large", &format!("t{txn}"), large.clone()).await;
    }
}

both_engines! {
    async fn a_large_answer_waits_for_its_turn_and_an_ordinary_one_does_not(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({})).await;
        let before = next_batch(&alice).await;
        send_large(&alice, &room, 10).await;
        let caught_up = next_batch(&alice).await;
        let token = alice.token.clone().expect("she is signed in");
        let app = server.app();
        let user = app.accounts.authenticate(&token, None).await.expect("the token works").user.nid;
        let turns = [app.large_answers.turn(user).await.expect("it is free"), app.large_answers.turn(user).await.expect("so is this")];
        let sync = |since: Option<&str>| {
            let (alice, since) = (alice.clone(), since.map(str::to_owned));
            tokio::spawn(async move { alice.sync(since.as_deref()).await })
        };
        let get = |path: String| {
            let alice = alice.clone();
            tokio::spawn(async move { alice.get(&path).await.ok() })
        };
        let waiting = [
            sync(None),
            sync(Some(&before)),
            get(v3(["rooms", &room, "state"])),
            get(v3(["rooms", &room, "members"])),
            get(v3(["rooms", &room, "joined_members"])),
        ];
        for txn in 0..5 {
            let event = alice.send_text(&room, &format!("m{txn}"), "hello").await;
            let answer = alice.sync(Some(&caught_up)).await;
            let events = answer["rooms"]["join"][&room]["timeline"]["events"].as_array().expect("there is news");
            assert_eq!(events[txn]["event_id"], event.as_str());
        }
        bob.sync(None).await;
        assert!(waiting.iter().all(|request| !request.is_finished()));
        drop(turns);
        for request in waiting {
            request.await.expect("it is answered in its turn");
        }
    }

    async fn a_timeline_ends_where_it_is_large_and_the_state_before_it_is_told(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let before = next_batch(&alice).await;
        alice.set_state(&room, "com.example.early", "", json!({ "n": 1 })).await;
        send_large(&alice, &room, 25).await;
        let last = alice.send_text(&room, "last", "hello").await;
        for since in [None, Some(before.as_str())] {
            let answer = alice.sync_with(since, HUNDRED_EVENTS).await;
            let joined = &answer["rooms"]["join"][&room];
            let events = joined["timeline"]["events"].as_array().expect("a timeline");
            assert!((10..=18).contains(&events.len()), "{} events", events.len());
            assert_eq!(events[events.len() - 1]["event_id"], last.as_str());
            assert_eq!(joined["timeline"]["limited"], true);
            let state = joined["state"]["events"].as_array().expect("a state");
            assert!(state.iter().any(|event| event["type"] == "com.example.early"), "{since:?}");
            let gap = joined["timeline"]["prev_batch"].as_str().expect("where the gap begins");
            let older = alice.get(&format!("{}?dir=f&limit=1&from={gap}", v3(["rooms", &room, "messages"]))).await.ok();
            assert_eq!(older["chunk"][0]["event_id"], events[0]["event_id"], "nothing is missing between");
        }
    }
}
