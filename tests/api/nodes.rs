//! Several processes on one PostgreSQL: one of them writes, each of them answers, and any of them takes over.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sabha::{
    app::App,
    clock::Clock,
    store::{
        Patience, Position, Role,
        committer::CommitStep,
        log::{LogEntry, Touch, decode},
    },
};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::harness::{Client, Engine, FromEngine, Parks, TestServer, patience::run_out_of_patience, v3};

/// The number of times that the lease moves.
const MOVES: u64 = 20;

/// The number of clients that send messages meanwhile.
const WRITERS: usize = 4;

/// The messages that are sent between two moves, so that there is always one on its way.
const BETWEEN_MOVES: u64 = 3;

/// The turns that other tasks have before time goes on.
const YIELDS: u32 = 1_000;

/// The time limit for all moves, far more than they need.
const LIMIT: Duration = Duration::from_secs(60);

/// A time for the clocks, which stand still.
const NOW_MS: i64 = 1_700_000_000_000;

/// Two processes, and their clocks.
struct Nodes {
    servers: [TestServer; 2],
    clocks: [Clock; 2],
    holds: [Hold; 2],
}

impl Nodes {
    /// Starts the first process with some accounts, and a second one that follows it. `None` where PostgreSQL is not
    /// installed.
    async fn start(names: &[&str]) -> Option<(Self, Vec<Client>)> {
        Engine::from_engine(Engine::Postgres).await?;
        let clocks = [Clock::manual(NOW_MS), Clock::manual(NOW_MS)];
        let patience =
            Patience { look: Duration::from_millis(20), beat: Duration::from_millis(50), ..Patience::default() };
        let builder = TestServer::builder().engine(Engine::Postgres).role(Role::Follow).patience(patience);
        let first = builder.clock(clocks[0].clone()).start().await;
        let mut clients = Vec::new();
        for name in names {
            clients.push(first.register(name).await);
        }
        let second = first.another(clocks[1].clone()).await;
        let holds = [Hold::of(first.app()), Hold::of(second.app())];
        Some((Self { servers: [first, second], clocks, holds }, clients))
    }

    fn app(&self, node: usize) -> &App {
        self.servers[node].app()
    }

    /// Waits until both have the same commits in memory. Only while nobody writes.
    async fn are_level(&self) {
        let [first, second] = [0, 1].map(|node| self.app(node).db.committer());
        let latest = first.published().max(second.published());
        for node in [first, second] {
            node.hint();
            node.reached(latest).await;
        }
    }

    /// Lets time pass for a process until it takes the leader for gone.
    async fn runs_out_of_patience(&self, node: usize) {
        let committer = self.app(node).db.committer();
        // Time stands still for some looks: the first one only notes the slot.
        run_out_of_patience(committer, &self.clocks[node], (Patience::default().silence, YIELDS)).await;
    }

    /// Waits until a process knows that it does not lead any more.
    async fn follows(&self, node: usize) {
        self.app(node).db.committer().following().await;
    }
}

/// A process that can be held in the middle of a commit, as one that sleeps.
struct Hold {
    wanted: Arc<Mutex<Option<CommitStep>>>,
    held: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Hold {
    fn of(app: &App) -> Self {
        let hold = Self { wanted: Arc::default(), held: Arc::default(), go_on: Arc::default() };
        let (wanted, held, go_on) = (Arc::clone(&hold.wanted), Arc::clone(&hold.held), Arc::clone(&hold.go_on));
        app.db.committer().on_step(Arc::new(move |step| {
            let holds = wanted.lock().expect("no panic").take_if(|wanted| *wanted == step).is_some();
            let (held, go_on) = (Arc::clone(&held), Arc::clone(&go_on));
            Box::pin(async move {
                if holds {
                    held.notify_one();
                    go_on.notified().await;
                }
            })
        }));
        hold
    }

    /// Waits until the process is held at this step of its next commit.
    async fn at(&self, step: CommitStep) {
        *self.wanted.lock().expect("no panic") = Some(step);
        self.held.notified().await;
    }

    fn release(&self) {
        self.go_on.notify_one();
    }
}

/// A client that sends one message after the other, to whichever process takes it.
struct Writer {
    name: String,
    at: Vec<Client>,
    room: String,
    stopping: Arc<AtomicBool>,
    acknowledged: watch::Sender<u64>,
}

impl Writer {
    /// Sends messages until it is to stop. Returns their event IDs.
    async fn run(self) -> Vec<String> {
        let mut sent = Vec::new();
        while !self.stopping.load(Ordering::SeqCst) {
            sent.push(self.send(sent.len()).await);
            self.acknowledged.send_modify(|count| *count += 1);
        }
        sent
    }

    async fn send(&self, number: usize) -> String {
        let txn = format!("{}-{number}", self.name);
        let path = v3(["rooms", &self.room, "send", "m.room.message", &txn]);
        for client in self.at.iter().cycle() {
            let answer = client.put(&path, json!({ "msgtype": "m.text", "body": txn })).await;
            if answer.status != 503 {
                return answer.ok()["event_id"].as_str().expect("checked").to_owned();
            }
            tokio::task::yield_now().await;
        }
        unreachable!("there are processes to ask")
    }
}

/// All messages of a room, oldest first: event ID and text.
async fn messages(client: &Client, room: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = client.timeline(room).await.into_iter().filter(|event| event["type"] == "m.room.message");
    events.map(|event| (text(&event["event_id"]), text(&event["content"]["body"]))).collect()
}

/// The whole commit log, with the length of each entry.
async fn commit_log(server: &TestServer) -> Vec<(LogEntry, u64)> {
    let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT pos, touched FROM commit_log ORDER BY pos")
        .fetch_all(&mut server.postgres().await)
        .await
        .expect("it can be read");
    let entry =
        |(pos, blob): (i64, Vec<u8>)| (decode(Position(pos), &blob).expect("it was encoded"), blob.len() as u64);
    rows.into_iter().map(entry).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_moves_under_load_and_nothing_is_lost_doubled_or_skipped() {
    tokio::time::timeout(LIMIT, move_often()).await.expect("a process or a client waits in vain");
}

async fn move_often() {
    let Some((nodes, clients)) = Nodes::start(&["alice", "bob", "carol", "dave", "eve"]).await else { return };
    let room = clients[0].create_room(json!({ "preset": "public_chat" })).await;
    for client in &clients[1..] {
        client.join(&room).await;
    }
    let acknowledged = watch::Sender::new(0_u64);
    let stopping = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for (index, client) in clients[..WRITERS].iter().enumerate() {
        let at = [index, index + 1].map(|node| client.at(&nodes.servers[node % 2])).to_vec();
        let (room, stopping) = (room.clone(), Arc::clone(&stopping));
        let writer = Writer { name: index.to_string(), at, room, stopping, acknowledged: acknowledged.clone() };
        writers.spawn(async move { (index, writer.run().await) });
    }

    // Eve shows that the new leader writes while the old one sleeps.
    let eve = &clients[WRITERS];
    let mut of_eve = Vec::new();
    let mut leader = 0;
    for number in 0..MOVES {
        let other = 1 - leader;
        let enough = *acknowledged.borrow() + BETWEEN_MOVES;
        acknowledged.subscribe().wait_for(|count| *count >= enough).await.expect("the sender is here");
        let sleeps_at = [None, Some(CommitStep::Taken), None, Some(CommitStep::Stored)][number as usize % 4];
        match sleeps_at {
            None => {
                nodes.app(leader).db.committer().hand_over();
                nodes.app(other).db.committer().leading().await;
            }
            Some(step) => {
                nodes.holds[leader].at(step).await;
                nodes.runs_out_of_patience(other).await;
                of_eve.push(eve.at(&nodes.servers[other]).send_text(&room, &format!("eve-{number}"), "eve").await);
                nodes.holds[leader].release();
            }
        }
        nodes.follows(leader).await;
        leader = other;
    }
    stopping.store(true, Ordering::SeqCst);
    let mut sent: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    while let Some(ended) = writers.join_next().await {
        sent.extend([ended.expect("it sends until it is told to stop")]);
    }

    nodes.are_level().await;
    let [first, second] = [0, 1].map(|node| eve.at(&nodes.servers[node]));
    let found = messages(&first, &room).await;
    assert_eq!(messages(&second, &room).await, found, "both answer the same");
    let of = |text: &dyn Fn(&str) -> bool| {
        found.iter().filter(|(_, body)| text(body)).map(|(event_id, _)| event_id.clone()).collect::<Vec<_>>()
    };
    for (index, sent) in &sent {
        let prefix = format!("{index}-");
        assert_eq!(&of(&|body| body.starts_with(&prefix)), sent, "each once, and in order");
    }
    assert_eq!(of(&|body| body == "eve"), of_eve);

    let log = commit_log(&nodes.servers[0]).await;
    assert!(log.iter().any(|(entry, _)| entry.touches.iter().any(|(_, touch)| matches!(touch, Touch::Lease { .. }))));
    for pair in log.windows(2) {
        let [(entry, length), (next, _)] = pair else { unreachable!("they are pairs") };
        assert!(next.after >= entry.pos, "positions are given out once: {entry:?} {next:?}");
        assert_eq!(next.bytes_before, entry.bytes_before + length, "no entry is missing: {entry:?} {next:?}");
    }
    let (terms,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM incarnation")
        .fetch_one(&mut nodes.servers[0].postgres().await)
        .await
        .expect("it can be read");
    assert_eq!(terms.unsigned_abs(), MOVES + 1);
}

#[tokio::test]
async fn a_sync_goes_on_at_another_process_with_everything_once() {
    let Some((nodes, clients)) = Nodes::start(&["alice", "bob"]).await else { return };
    let [alice, bob] = &clients[..] else { unreachable!("there are two") };
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    bob.put(&v3(["rooms", &room, "typing", &bob.user_id]), json!({ "typing": true, "timeout": 60_000 })).await.ok();
    let before = alice.sync(None).await;
    let typing = |answer: &Value| {
        let events = answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
        events.into_iter().find(|event| event["type"] == "m.typing").map(|event| event["content"]["user_ids"].clone())
    };
    assert_eq!(typing(&before), Some(json!([bob.user_id])));
    let sent = bob.send_text(&room, "1", "hello").await;
    nodes.are_level().await;

    let at_second = alice.at(&nodes.servers[1]);
    let news = at_second.sync(before["next_batch"].as_str()).await;
    let events = |answer: &Value| {
        let events = answer["rooms"]["join"][&room]["timeline"]["events"].as_array().cloned().unwrap_or_default();
        events.iter().filter_map(|event| event["event_id"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(events(&news), std::slice::from_ref(&sent), "not everything again, and not nothing");
    assert_eq!(typing(&news), Some(json!([])), "nobody types at this process");
    let quiet = at_second.sync(news["next_batch"].as_str()).await;
    assert_eq!((events(&quiet), typing(&quiet)), (Vec::new(), None));

    // Back at the first one, with a token of the second.
    let again = bob.send_text(&room, "2", "again").await;
    let back = alice.sync(quiet["next_batch"].as_str()).await;
    assert_eq!((events(&back), typing(&back)), (vec![again], Some(json!([bob.user_id]))));

    // A parked sync is woken by a commit of the other process.
    let since = back["next_batch"].as_str().expect("checked").to_owned();
    nodes.are_level().await;
    let at_second = at_second.clone();
    // The typing of the other process ends first.
    let here = at_second.sync(Some(&since)).await;
    let since = here["next_batch"].as_str().expect("checked").to_owned();
    let mut parks = Parks::watch();
    let parked = tokio::spawn(async move { at_second.sync_with(Some(&since), "timeout=60000").await });
    parks.next().await;
    let last = bob.send_text(&room, "3", "wake up").await;
    assert_eq!(events(&parked.await.expect("it is answered")), [last]);

    // A follower writes nothing, and says so in a way that lets the client try again.
    let refused = bob.at(&nodes.servers[1]).put(&v3(["rooms", &room, "send", "m.room.message", "4"]), json!({})).await;
    refused.error(503, "M_UNKNOWN");
}
