//! Failures of PostgreSQL, which goes away, or answers late or not at all: acknowledged writes exist once, refused ones
//! do not exist, and the server recovers by itself.

mod commits;
mod connections;

use std::time::Duration;

use sabha::{clock::Clock, store::Patience};
use serde_json::{Value, json};
use sqlx::Executor as _;
use tokio::task::JoinHandle;

use crate::harness::{
    Client, Engine, FromEngine as _, Response, TestServer,
    proxy::{Fault, Manner},
    v3,
};

/// A while that no test takes.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The patience of a server that finds out about a fault soon, and only when it needs the database for a request.
fn patience() -> Patience {
    Patience {
        notice: Duration::from_millis(100),
        acquire: Duration::from_secs(1),
        read: Duration::from_secs(1),
        // Tests every connection before it is used again.
        idle: Duration::ZERO,
        connect: Duration::from_secs(2),
        lock: Duration::from_secs(1),
        statement: Duration::from_secs(5),
        commit: Duration::from_secs(1),
        beat: NEVER,
        silence: NEVER,
        ..Patience::default()
    }
}

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
        Self::start(Patience { read, ..patience() }, Clock::System).await
    }

    /// Starts a world whose server asks about its lease when a while has passed on this clock. `None` where PostgreSQL is
    /// not installed.
    async fn with_clock(clock: &Clock) -> Option<Self> {
        // A request that waits for the answer of a database that is there gets it in time.
        let notice = Duration::from_millis(500);
        Self::start(Patience { notice, silence: Patience::default().silence, ..patience() }, clock.clone()).await
    }

    async fn start(patience: Patience, clock: Clock) -> Option<Self> {
        Engine::from_engine(Engine::Postgres).await?;
        let builder = TestServer::builder().engine(Engine::Postgres).proxied();
        let server = builder.patience(patience).clock(clock).start().await;
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
