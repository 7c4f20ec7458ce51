//! Large answers: only a few are made at a time, and the timeline of a room in one answer is bounded.

use sabha::{
    app::App,
    shares::large_answers::{LARGE_EVENTS, Turn},
    store::UserNid,
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::{Client, Response, TestServer, v3};

const SYNC: &str = "/_matrix/client/v3/sync";

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

/// Creates a room with more state than may be read without a turn. Each event is small.
async fn room_with_much_state(client: &Client) -> String {
    let state = |n: usize| json!({ "type": "com.example.state", "state_key": n.to_string(), "content": {} });
    let state: Vec<_> = (0..=LARGE_EVENTS).map(state).collect();
    client.create_room(json!({ "preset": "public_chat", "initial_state": state })).await
}

/// The short id of a signed-in user.
pub async fn nid(app: &App, client: &Client) -> UserNid {
    let token = client.token.as_deref().expect("they are signed in");
    app.accounts.authenticate(token, None).await.expect("the token works").user.nid
}

/// Takes all turns of a user.
async fn turns(app: &App, user: UserNid) -> [Turn; 2] {
    [app.large_answers.turn(user).await.expect("it is free"), app.large_answers.turn(user).await.expect("so is this")]
}

fn get(client: &Client, path: String) -> JoinHandle<Response> {
    let client = client.clone();
    tokio::spawn(async move { client.get(&path).await })
}

/// Waits until all these requests of a user wait for a turn, while the test holds all turns.
async fn until_they_wait(app: &App, user: UserNid, requests: &[JoinHandle<Response>]) {
    let taken = 2;
    while app.large_answers.asking(user) < taken + requests.len() {
        assert!(!requests.iter().any(JoinHandle::is_finished), "one was answered without a turn");
        tokio::task::yield_now().await;
    }
}

both_engines! {
    async fn a_large_answer_waits_for_its_turn_and_an_ordinary_one_does_not(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({})).await;
        let before = next_batch(&alice).await;
        send_large(&alice, &room, 10).await;
        let caught_up = next_batch(&alice).await;
        let app = server.app();
        let user = nid(app, &alice).await;
        let turns = turns(app, user).await;
        let waiting = [
            get(&alice, format!("{SYNC}?timeout=0")),
            get(&alice, format!("{SYNC}?timeout=0&since={before}")),
        ];
        until_they_wait(app, user, &waiting).await;
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
            request.await.expect("it is answered in its turn").ok();
        }
    }

    /// Each event is small, but memory does not know that.
    async fn much_state_waits_for_its_turn_before_it_is_read(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = room_with_much_state(&alice).await;
        let (before, of_bob) = (next_batch(&alice).await, next_batch(&bob).await);
        for n in 0..=LARGE_EVENTS {
            alice.set_state(&room, "com.example.state", &n.to_string(), json!({ "n": n })).await;
        }
        bob.join(&room).await;
        let now = next_batch(&bob).await;
        let app = server.app();
        let users = [nid(app, &alice).await, nid(app, &bob).await];
        let turns = [turns(app, users[0]).await, turns(app, users[1]).await];
        let of_alice = [get(&alice, format!("{SYNC}?timeout=0&since={before}"))];
        // The filter hides the new room, but its members are told.
        let of_bob = [
            get(&bob, format!("{SYNC}?timeout=0&since={of_bob}&filter=%7B%22room%22%3A%7B%22rooms%22%3A%5B%5D%7D%7D")),
            get(&bob, format!("{}?from={of_bob}&to={now}", v3(["keys", "changes"]))),
        ];
        until_they_wait(app, users[0], &of_alice).await;
        until_they_wait(app, users[1], &of_bob).await;
        drop(turns);
        let [of_alice] = of_alice;
        let answer = of_alice.await.expect("answered in its turn").ok();
        assert!(answer["rooms"]["join"][&room]["state"]["events"].as_array().is_some_and(|state| state.len() > 100));
        let [sync, changes] = of_bob;
        let sync = sync.await.expect("answered in its turn").ok();
        assert_eq!(sync["device_lists"]["changed"], json!([alice.user_id]), "{sync}");
        let changes = changes.await.expect("answered in its turn").ok();
        assert_eq!(changes["changed"], json!([alice.user_id]), "{changes}");
    }

    async fn the_state_of_a_room_waits_for_its_turn_where_it_is_large(server: TestServer) {
        let alice = server.register("alice").await;
        let many = room_with_much_state(&alice).await;
        let (bytes, ordinary) = (alice.create_room(json!({})).await, alice.create_room(json!({})).await);
        for state_key in ["a", "b", "c", "d", "e"] {
            alice.set_state(&bytes, "com.example.large", state_key, json!({ "x": "y".repeat(60_000) })).await;
        }
        let paths = async |room: &str| {
            let event = alice.send_text(room, "t", "hello").await;
            let context = v3(["rooms", room, "context", &event]);
            let lazy = format!("{context}?filter=%7B%22lazy_load_members%22%3Atrue%7D");
            let members = [v3(["rooms", room, "members"]), v3(["rooms", room, "joined_members"])];
            ([v3(["rooms", room, "state"]), context, lazy], members)
        };
        let (of_many, of_bytes, of_ordinary) = (paths(&many).await, paths(&bytes).await, paths(&ordinary).await);
        let app = server.app();
        let user = nid(app, &alice).await;
        let turns = turns(app, user).await;
        let large = of_many.0.iter().chain(&of_bytes.0).chain(&of_many.1);
        let waiting: Vec<_> = large.map(|path| get(&alice, path.clone())).collect();
        until_they_wait(app, user, &waiting).await;
        // In the room with a few large events, the list of members is not large.
        for path in of_ordinary.0.iter().chain(&of_ordinary.1).chain(&of_bytes.1) {
            alice.get(path).await.ok();
        }
        drop(turns);
        for request in waiting {
            request.await.expect("it is answered in its turn").ok();
        }
    }

    async fn who_waits_for_a_turn_is_answered_when_the_server_stops(mut server: TestServer) {
        let alice = server.register("alice").await;
        let room = room_with_much_state(&alice).await;
        let app = server.app().clone();
        let user = nid(&app, &alice).await;
        let _turns = turns(&app, user).await;
        let waiting = [
            get(&alice, format!("{SYNC}?timeout=0")),
            get(&alice, v3(["rooms", &room, "state"])),
            get(&alice, v3(["rooms", &room, "members"])),
            get(&alice, v3(["rooms", &room, "joined_members"])),
        ];
        until_they_wait(&app, user, &waiting).await;
        server.stop().await;
        for request in waiting {
            request.await.expect("answered, not dropped").error(503, "M_UNKNOWN");
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
