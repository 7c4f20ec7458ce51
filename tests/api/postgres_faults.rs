//! Failures of PostgreSQL, which goes away, or answers late or not at all: acknowledged writes exist once, refused ones
//! do not exist, and the server recovers by itself.

use std::time::Duration;

use sabha::store::{Patience, committer::Ended};
use serde_json::{Value, json};
use sqlx::Executor as _;
use tokio::task::JoinHandle;

use crate::harness::{
    Client, Engine, FromEngine as _, Parks, Response, TestServer,
    proxy::{Fault, Manner},
    v3,
};

/// A batch of only rows is one statement.
const ONE_CALL: fn(&str) -> bool = |text| text.starts_with("WITH ") && text.contains("writer_slot");

/// The end of a batch of several statements.
const COMMIT: fn(&str) -> bool = |text| text == "COMMIT";

/// The first statement of a new writing connection, once it has raised the epoch.
const LOCK: fn(&str) -> bool = |text| text.contains("pg_try_advisory_lock");

/// The query for the rooms of a user.
const ROOMS_OF_USER: fn(&str) -> bool =
    |text| text.starts_with("SELECT room_nid, membership, event_nid, pos, forgotten");

/// The query for a page of messages.
const PAGE: fn(&str) -> bool = |text| text.contains("FROM timeline");

/// Alice and Bob in a room, on a server behind a proxy.
struct World {
    server: TestServer,
    alice: Client,
    bob: Client,
    room: String,
    /// Bob's sync token.
    since: String,
}

impl World {
    /// `None` where PostgreSQL is not installed.
    async fn new() -> Option<Self> {
        Self::with_read(Duration::from_secs(1)).await
    }

    /// Starts a world whose server waits for a query at most `read`. `None` where PostgreSQL is not installed.
    async fn with_read(read: Duration) -> Option<Self> {
        Engine::from_engine(Engine::Postgres).await?;
        let patience = Patience {
            notice: Duration::from_millis(100),
            acquire: Duration::from_secs(1),
            read,
            // Tests every connection before it is used again.
            idle: Duration::ZERO,
            connect: Duration::from_secs(2),
            lock: Duration::from_secs(1),
            statement: Duration::from_secs(5),
            commit: Duration::from_secs(1),
            ..Patience::default()
        };
        let server = TestServer::builder().engine(Engine::Postgres).proxied().patience(patience).start().await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let since = next_batch(&bob.sync(None).await);
        // Everything that is read only once is now in memory, so that the next write of this kind waits for nothing
        // else.
        alice.send_text(&room, "before", "before").await;
        let since = next_batch(&bob.sync(Some(&since)).await);
        Some(Self { server, alice, bob, room, since })
    }

    /// Sends a message as Alice, in a separate task.
    fn sends(&self, txn: &'static str) -> JoinHandle<Response> {
        let (alice, room) = (self.alice.clone(), self.room.clone());
        let path = v3(["rooms", &room, "send", "m.room.message", txn]);
        tokio::spawn(async move { alice.put(&path, json!({ "msgtype": "m.text", "body": txn })).await })
    }

    /// Sends a message from Alice to Bob's device, which takes several statements.
    fn sends_to_device(&self, txn: &'static str) -> JoinHandle<Response> {
        let (alice, bob) = (self.alice.clone(), self.bob.clone());
        let messages = json!({ "messages": { &bob.user_id: { &bob.device_id: { "txn": txn } } } });
        tokio::spawn(async move { alice.put(&v3(["sendToDevice", "the.news", txn]), messages).await })
    }

    /// Waits until Bob has news, and returns the messages in it and those to his device.
    async fn bob_hears(&mut self) -> (Vec<String>, Vec<String>) {
        let answer = self.bob.sync_with(Some(&self.since), "timeout=60000").await;
        self.since = next_batch(&answer);
        let texts = |list: &Value, field: &str| -> Vec<String> {
            let events = list["events"].as_array().into_iter().flatten();
            events.filter_map(|event| event["content"][field].as_str()).map(ToOwned::to_owned).collect()
        };
        let timeline = &answer["rooms"]["join"][&self.room]["timeline"];
        (texts(timeline, "body"), texts(&answer["to_device"], "txn"))
    }

    /// Returns the bodies of all stored messages of the room.
    async fn bodies(&self) -> Vec<String> {
        let answer = self.alice.get(&(v3(["rooms", &self.room, "messages"]) + "?dir=f&limit=100")).await.ok();
        let events = answer["chunk"].as_array().into_iter().flatten();
        events.filter_map(|event| event["content"]["body"].as_str()).map(ToOwned::to_owned).collect()
    }

    /// Checks that the server works as if nothing had happened.
    async fn goes_on(&mut self) {
        self.sends("after").await.expect("answered").ok();
        assert_eq!(self.bob_hears().await.0, ["after"]);
        assert_eq!(self.alice.get("/ready").await.status, 200);
        self.server.restart().await;
        let since = self.since.clone();
        self.sends("later").await.expect("answered").ok();
        assert_eq!(self.bob_hears().await.0, ["later"], "since {since}");
    }
}

fn next_batch(answer: &Value) -> String {
    answer["next_batch"].as_str().expect("checked").to_owned()
}

/// Repeats a request, as a client does that got no answer.
async fn again(world: &World, txn: &'static str) -> String {
    let answer = world.sends(txn).await.expect("answered").ok();
    answer["event_id"].as_str().expect("checked").to_owned()
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_known_to_have_happened() {
    let Some(mut world) = World::new().await else { return };
    world.server.proxy().strike(ONE_CALL, Fault::LoseAnswer);
    let sent = world.sends("one").await.expect("answered").ok();
    assert_eq!(world.bob_hears().await.0, ["one"]);
    assert_eq!(again(&world, "one").await, sent["event_id"].as_str().expect("checked"));

    world.server.proxy().strike(COMMIT, Fault::LoseAnswer);
    world.sends_to_device("two").await.expect("answered").ok();
    assert_eq!(world.bob_hears().await.1, ["two"]);

    // Memory is updated as well: Bob is in the room that he has joined.
    let other = world.alice.create_room(json!({ "preset": "public_chat" })).await;
    world.server.proxy().strike(ONE_CALL, Fault::LoseAnswer);
    world.bob.join(&other).await;
    let answer = world.bob.sync(Some(&world.since)).await;
    assert!(answer["rooms"]["join"][&other].is_object(), "{answer}");
    world.since = next_batch(&answer);
    world.goes_on().await;
    assert_eq!(world.bodies().await, ["before", "one", "after", "later"]);
}

#[tokio::test]
async fn while_nobody_knows_whether_a_commit_happened_writers_are_told_to_come_back() {
    let Some(mut world) = World::new().await else { return };
    for (recognizes, is_message) in [(ONE_CALL, true), (COMMIT, false)] {
        world.server.proxy().strike(recognizes, Fault::LoseAnswer);
        world.server.proxy().refuse(Manner::Close);
        let sending = if is_message { world.sends("one") } else { world.sends_to_device("two") };
        world.server.proxy().struck().await;
        let answer = sending.await.expect("answered");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
        answer.error(503, "M_UNKNOWN");
        // A new write is refused at once, and not made later.
        world.sends("never").await.expect("answered").error(503, "M_UNKNOWN");
        let ready = world.alice.get("/ready").await;
        assert_eq!((ready.status.as_u16(), &ready.json["checks"][1]["ok"]), (503, &json!(false)), "{ready:?}");

        world.server.proxy().allow();
        let (messages, to_device) = world.bob_hears().await;
        if is_message {
            assert_eq!(messages, ["one"], "it was stored, so everyone hears of it");
            again(&world, "one").await;
        } else {
            assert_eq!(to_device, ["two"]);
            world.sends_to_device("two").await.expect("answered").ok();
        }
    }
    world.goes_on().await;
    assert_eq!(world.bodies().await, ["before", "one", "after", "later"]);
}

#[tokio::test]
async fn a_batch_that_arrives_after_its_connection_was_lost_is_refused() {
    for fault in [Fault::HoldBack, Fault::Stall] {
        let Some(mut world) = World::new().await else { return };
        world.server.proxy().strike(ONE_CALL, fault);
        let sending = world.sends("one");
        world.server.proxy().struck().await;
        // A stall may outlast the server's timeout, so the client may have been told to retry.
        drop(sending.await.expect("answered"));
        assert_eq!(world.bob_hears().await.0, ["one"], "it was sent again");
        let late = world.server.proxy().release().await;
        assert!(late.contains("writer_slot"), "{fault:?}: {late}");
        again(&world, "one").await;
        world.goes_on().await;
        assert_eq!(world.bodies().await, ["before", "one", "after", "later"], "{fault:?}");
    }
}

#[tokio::test]
async fn an_old_backend_that_commits_late_is_waited_for() {
    for fault in [Fault::HoldBack, Fault::Stall] {
        let Some(mut world) = World::new().await else { return };
        world.server.proxy().strike(COMMIT, fault);
        let sending = world.sends_to_device("one");
        world.server.proxy().struck().await;
        // The old backend holds a lock on the slot's row until it has committed.
        let late = world.server.proxy().release().await;
        assert!(late.contains("COMMIT"), "{fault:?}: {late}");
        drop(sending.await.expect("answered"));
        assert_eq!(world.bob_hears().await.1, ["one"], "{fault:?}");
        world.sends_to_device("one").await.expect("answered").ok();
        world.goes_on().await;
    }
}

#[tokio::test]
async fn a_new_connection_that_goes_silent_at_once_is_replaced() {
    let Some(mut world) = World::new().await else { return };
    world.server.proxy().strike(LOCK, Fault::Stall);
    world.server.proxy().cut();
    let sending = world.sends("one");
    world.server.proxy().struck().await;
    // The stall may outlast the server's timeout, so the client may have been told to retry.
    drop(sending.await.expect("answered"));
    assert_eq!(world.bob_hears().await.0, ["one"], "it was sent again");
    again(&world, "one").await;
    world.goes_on().await;
    assert_eq!(world.bodies().await, ["before", "one", "after", "later"]);
}

#[tokio::test]
async fn a_query_that_is_never_answered_is_given_up() {
    let Some(mut world) = World::new().await else { return };
    let messages = v3(["rooms", &world.room, "messages"]) + "?dir=f";
    // Repeated more often than there are reading connections.
    for _ in 0..3 {
        world.server.proxy().strike_reader(PAGE, Fault::Stall);
        world.alice.get(&messages).await.error(503, "M_UNKNOWN");
        world.server.proxy().struck().await;
    }
    assert_eq!(world.bodies().await, ["before"]);
    world.goes_on().await;
}

#[tokio::test]
async fn connections_that_fell_silent_are_replaced() {
    let Some(mut world) = World::new().await else { return };
    for _ in 0..2 {
        // A firewall that forgets connections does the same: it drops data and tells nobody.
        world.server.proxy().silence();
        let (one, two, three) = tokio::join!(world.bodies(), world.bodies(), world.bodies());
        for bodies in [one, two, three] {
            assert_eq!(bodies, ["before"]);
        }
    }
    // The failure of the writing connection may outlast the server's timeout, so the client may be told to retry.
    drop(world.sends("one").await.expect("answered"));
    assert_eq!(world.bob_hears().await.0, ["one"]);
    again(&world, "one").await;
    world.goes_on().await;
}

#[tokio::test]
async fn a_server_stops_in_time_without_its_database() {
    let Some(mut world) = World::new().await else { return };
    world.server.proxy().refuse(Manner::Close);
    world.server.proxy().cut();
    // Nothing was written since, so the committer does not know yet; the last write before the end is the first to find
    // out.
    let stopped = tokio::time::timeout(Duration::from_secs(10), world.server.stop()).await;
    stopped.expect("it stops while a container runtime waits");
    world.server.proxy().allow();
    world.server.restart().await;
    world.goes_on().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_comes_online_is_announced() {
    // Longer than the test takes.
    let Some(world) = World::with_read(Duration::from_secs(600)).await else { return };
    let since = next_batch(&world.bob.sync(Some(&world.since)).await);
    let (mut parks, bob) = (Parks::watch(), world.bob.clone());
    let mut parked = tokio::spawn(async move { bob.sync_with(Some(&since), "timeout=60000").await });
    tokio::select! {
        () = parks.next() => {}
        answer = &mut parked => panic!("there is nothing new, so it waits: {answer:?}"),
    }
    // Alice has never synced, so her rooms are dropped from memory and read again next time.
    world.server.app().rooms.forget_idle();
    world.server.proxy().strike_reader(ROOMS_OF_USER, Fault::Stall);
    let alice = world.alice.clone();
    let syncing = tokio::spawn(async move { alice.sync(None).await });
    world.server.proxy().struck().await;
    syncing.abort();
    let answer = parked.await.expect("answered");
    let events = answer["presence"]["events"].as_array().into_iter().flatten();
    let online: Vec<_> = events.filter(|event| event["content"]["presence"] == "online").collect();
    assert!(online.iter().any(|event| event["sender"] == world.alice.user_id), "{answer}");
}

#[tokio::test]
async fn a_server_whose_database_was_taken_over_ends() {
    let Some(world) = World::new().await else { return };
    world.server.proxy().strike(ONE_CALL, Fault::HoldBack);
    let mut other = world.server.postgres().await;
    other.execute("UPDATE writer_slot SET epoch = epoch + 1, holder = 1").await.expect("it runs");
    world.sends("one").await.expect("answered").error(503, "M_UNKNOWN");
    assert_eq!(world.server.app().db.committer().ended().await, Ended::Fenced);
    let ready = world.alice.get("/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("another process"), "{}", ready.text);
    world.sends("two").await.expect("answered").error(503, "M_UNKNOWN");
    assert_eq!(world.bodies().await, ["before"]);
}

#[tokio::test]
async fn nobody_notices_that_postgresql_was_restarted() {
    let Some(mut world) = World::new().await else { return };
    let mut other = world.server.postgres().await;
    for _ in 0..3 {
        // Ends every connection of the server, including the committer's, as a restart does.
        let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        other.execute(end).await.expect("it runs");
        for _ in 0..5 {
            assert!(world.bodies().await.starts_with(&["before".to_owned()]));
        }
        other.execute(end).await.expect("it runs");
        again(&world, "one").await;
    }
    assert_eq!(world.bob_hears().await.0, ["one"]);
    world.goes_on().await;
}

#[tokio::test]
async fn a_database_that_is_away_is_told_at_once_and_found_again() {
    for manner in [Manner::Close, Manner::CloseLater] {
        is_away_and_found_again(manner).await;
    }
}

async fn is_away_and_found_again(manner: Manner) {
    let Some(mut world) = World::new().await else { return };
    world.server.proxy().refuse(manner);
    world.server.proxy().cut();
    let messages = v3(["rooms", &world.room, "messages"]) + "?dir=f";
    let answer = world.alice.get(&messages).await;
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    answer.error(503, "M_UNKNOWN");
    world.sends("one").await.expect("answered").error(503, "M_UNKNOWN");
    world.sends("never").await.expect("answered").error(503, "M_UNKNOWN");
    let ready = world.alice.get("/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(world.alice.get("/health").await.status, 200);
    // A client without news can still wait, because that needs no query.
    let bob = (world.bob.clone(), world.since.clone());
    let waiting = tokio::spawn(async move { bob.0.sync_with(Some(&bob.1), "timeout=60000").await });

    world.server.proxy().allow();
    // The first message was queued before the failure was known, and is stored now.
    let answer = waiting.await.expect("answered");
    assert_eq!(answer["rooms"]["join"][&world.room]["timeline"]["events"][0]["content"]["body"], "one");
    world.since = next_batch(&answer);
    again(&world, "one").await;
    world.goes_on().await;
    assert_eq!(world.bodies().await, ["before", "one", "after", "later"]);
}
