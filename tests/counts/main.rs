//! The cost of a message and of an idle sync, in counts that are the same on every machine: statements, rows,
//! allocations.

mod allocations;
mod filters;
mod invitations;
mod parsed_bodies;
mod unread;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use ruma::{OwnedRoomId, RoomAliasId, RoomVersionId, presence::PresenceState};
use sabha::{
    account::{
        LocalDevice, NewSession,
        password::Hashing,
        register::{Permit, Registration},
    },
    app::App,
    config::Config,
    room::write::{
        create::{NewRoom, Preset},
        txn::TxnKey,
    },
    server::build::{Surroundings, app},
    store::{Error, Write},
    sync::{
        token::{Hints, SyncToken},
        v3,
    },
};
use sabha_federation::EventDraft;
use serde_json::{json, value::to_raw_value};

/// Rows of a plain message: the event, its JSON, its place in the timeline, the room's head, the transaction ID.
const ROWS_PER_MESSAGE: u64 = 5;

/// Rows of the commit log, for however many messages are in a batch.
const LOG_ROWS_PER_BATCH: u64 = 1;

/// One statement commits a message on SQLite.
const STATEMENTS_PER_MESSAGE: u64 = 1;

/// Allocations on the serving thread, from the draft to the answer; measured 93, with room for changes in
/// dependencies.
const ALLOCATIONS_PER_MESSAGE: u64 = 102;

/// Allocations of a sync that brings one message; measured 71.
const ALLOCATIONS_PER_SYNC_WITH_MESSAGE: u64 = 80;

/// Size of the future of a sync that waits for news; measured 656.
const BYTES_PER_PARKED_SYNC: usize = 1024;

/// Allocations of a sync that finds nothing; measured 5.
const ALLOCATIONS_PER_IDLE_SYNC: u64 = 9;

/// The rooms of a user who is in few, and of one who is in many.
const ROOMS: [usize; 2] = [3, 500];

/// Positions that pass before anything is counted, so that all tokens have the same length.
const LONG_POSITIONS: usize = 100_000;

/// The rooms of a client that comes back after a restart.
const ROOMS_BEFORE_RESTART: usize = 200;

/// Statements of its first sync, when two of these rooms have a new message.
const STATEMENTS_AFTER_RESTART: u64 = 20;

struct Server {
    app: App,
    dir: tempfile::TempDir,
    /// The access token of each user.
    tokens: Mutex<HashMap<String, String>>,
}

impl Server {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self { app: Self::app(&dir).await, dir, tokens: Mutex::default() }
    }

    async fn app(dir: &tempfile::TempDir) -> App {
        let config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        let surroundings = Surroundings { hashing: Hashing::cheap(), ..Surroundings::default() };
        app(config, surroundings).await.expect("the server starts")
    }

    /// Starts another server on the same data.
    async fn restart(self) -> Self {
        self.app.db.close().await;
        let Self { app: old, dir, tokens } = self;
        drop(old);
        Self { app: Self::app(&dir).await, dir, tokens }
    }

    /// The device of a user who was registered before a restart.
    async fn device(&self, name: &str) -> Arc<LocalDevice> {
        let token = self.tokens.lock().expect("no test panics with it")[name].clone();
        self.app.accounts.authenticate(&token, None).await.expect("the token works")
    }

    async fn register(&self, name: &str) -> Arc<LocalDevice> {
        let registration = Registration {
            username: Some(name.to_owned()),
            password: None,
            admin: false,
            displayname: None,
            session: Some(NewSession::default()),
            permit: Permit::Free,
        };
        let (_, session) = self.app.accounts.register(registration).await.expect("the account is made");
        let token = session.expect("a session was asked for").secrets.access_token;
        self.tokens.lock().expect("no test panics with it").insert(name.to_owned(), token.clone());
        self.app.accounts.authenticate(&token, None).await.expect("the token works")
    }

    async fn room(&self, creator: &LocalDevice) -> OwnedRoomId {
        self.named_room(creator, None).await
    }

    /// Creates a room with this name and alias.
    async fn named_room(&self, creator: &LocalDevice, name: Option<&str>) -> OwnedRoomId {
        self.app.rooms.create(creator, self.new_room(name)).await.expect("the room is made")
    }

    /// The request for a room with this name and alias.
    fn new_room(&self, name: Option<&str>) -> NewRoom {
        let alias = |name| RoomAliasId::parse(format!("#{name}:{}", self.app.config.server_name)).expect("an alias");
        NewRoom {
            version: RoomVersionId::V12,
            preset: Preset::Public,
            creation_content: serde_json::Map::new(),
            initial_state: Vec::new(),
            power_level_override: serde_json::Map::new(),
            name: name.map(str::to_owned),
            topic: None,
            alias: name.map(alias),
            invite: Vec::new(),
            bans: Vec::new(),
            is_direct: false,
            publish: false,
        }
    }

    async fn send(&self, sender: &LocalDevice, room: &OwnedRoomId, txn: usize) {
        self.send_counted(sender, room, txn).await;
    }

    /// Sends a message. Returns the allocations from the draft to the answer.
    async fn send_counted(&self, sender: &LocalDevice, room: &OwnedRoomId, txn: usize) -> u64 {
        let draft = EventDraft {
            event_type: "m.room.message".to_owned(),
            state_key: None,
            content: to_raw_value(&json!({ "msgtype": "m.text", "body": "hello" })).expect("JSON"),
            redacts: None,
        };
        let (scope, txn) = (format!("send/{room}").into(), txn.to_string().into());
        let txn = TxnKey { device: sender.device_nid, scope, txn };
        let (allocations, sent) = allocations::during(self.app.rooms.send(sender, room, draft, Some(txn))).await;
        sent.expect("sent");
        allocations
    }

    async fn sync(&self, caller: &LocalDevice, since: Option<SyncToken>) -> SyncToken {
        self.sync_counted(caller, since).await.1
    }

    /// Syncs. Returns the allocations until the answer, and its token.
    async fn sync_counted(&self, caller: &LocalDevice, since: Option<SyncToken>) -> (u64, SyncToken) {
        let (allocations, answer) = self.answer(caller, since).await;
        (allocations, answer["next_batch"].as_str().expect("a token").parse().expect("one of ours"))
    }

    async fn answer(&self, caller: &LocalDevice, since: Option<SyncToken>) -> (u64, serde_json::Value) {
        let request = v3::Request {
            filter: Arc::default(),
            since,
            hints: Hints::default(),
            full_state: false,
            state_after: false,
            state_after_unstable: false,
            set_presence: PresenceState::Offline,
            timeout: Duration::ZERO,
        };
        let (allocations, answer) = allocations::during(v3::sync(&self.app, caller, &request)).await;
        (allocations, serde_json::from_slice(&answer.expect("sync answers")).expect("JSON"))
    }
}

#[tokio::test]
async fn a_message_costs_the_same_in_rooms_of_every_size() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let room = server.room(&alice).await;
    let mut members = 1;
    for size in [2, 100, 1000] {
        while members < size {
            let user = server.register(&format!("user{members}")).await;
            server.app.rooms.join(&user, &room, None).await.expect("joined");
            members += 1;
        }
        // The first message reads data that is not in memory yet.
        server.send(&alice, &room, size * 10).await;
        let counters = server.app.db.counters();
        let (statements, rows, log_rows) = (counters.statements(), counters.rows_written(), counters.log_rows());
        server.send(&alice, &room, size * 10 + 1).await;
        assert_eq!(counters.rows_written() - rows, ROWS_PER_MESSAGE, "rows, {size} members");
        assert_eq!(counters.log_rows() - log_rows, LOG_ROWS_PER_BATCH, "rows of the commit log, {size} members");
        assert_eq!(counters.statements() - statements, STATEMENTS_PER_MESSAGE, "statements, {size} members");
        let allocations = server.send_counted(&alice, &room, size * 10 + 2).await;
        println!("{allocations} allocations for a message among {size} members");
        assert!(allocations <= ALLOCATIONS_PER_MESSAGE, "{allocations} allocations, {size} members");
    }
}

#[tokio::test]
async fn an_idle_sync_costs_no_statement_and_few_allocations_however_many_rooms() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    for _ in 0..100 {
        server.room(&alice).await;
    }
    let since = server.sync(&alice, None).await;
    let since = server.sync(&alice, Some(since)).await;
    let before = server.app.db.counters().statements();
    let (allocations, _) = server.sync_counted(&alice, Some(since)).await;
    assert_eq!(server.app.db.counters().statements() - before, 0);
    println!("{allocations} allocations for an idle sync");
    assert!(allocations <= ALLOCATIONS_PER_IDLE_SYNC, "{allocations} allocations");
}

/// A message for a waiting client: the event and the unread counts come from memory.
#[tokio::test]
async fn a_sync_that_brings_one_message_costs_no_statement() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = server.room(&alice).await;
    server.app.rooms.join(&bob, &room, None).await.expect("joined");
    let mut since = server.sync(&bob, None).await;
    for txn in 0..3 {
        server.send(&alice, &room, txn).await;
        let before = server.app.db.counters().statements();
        let statements = || server.app.db.counters().statements() - before;
        let allocations;
        (allocations, since) = server.sync_counted(&bob, Some(since)).await;
        println!("{} statements, {allocations} allocations for a sync with message {txn}", statements());
        // The first sync reads data that is not in memory yet.
        assert!(txn == 0 || statements() == 0, "{} statements", statements());
        assert!(txn == 0 || allocations <= ALLOCATIONS_PER_SYNC_WITH_MESSAGE, "{allocations} allocations");
    }
}

/// A wake costs the same whatever the number of rooms: only the room with news is looked at.
#[tokio::test]
async fn a_wake_costs_the_same_in_few_rooms_and_in_many() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let nothing = |_| Ok::<_, Error>(Write::default());
    let passed = server.app.db.committer().submit(LONG_POSITIONS, nothing).expect("there is room in the queue");
    passed.wait().await.expect("committed");
    let counters = server.app.db.counters();
    let (mut rooms, mut costs) = (0, Vec::new());
    for size in ROOMS {
        let mut room = None;
        while rooms < size {
            let new = server.room(&alice).await;
            server.app.rooms.join(&bob, &new, None).await.expect("joined");
            room = Some(new);
            rooms += 1;
        }
        let room = room.expect("there are more rooms than before");
        let mut since = server.sync(&bob, None).await;
        let mut cost = (0, 0);
        // The first syncs read data that is not in memory yet.
        for txn in 0..3 {
            server.send(&alice, &room, txn).await;
            let before = counters.statements();
            let allocations;
            (allocations, since) = server.sync_counted(&bob, Some(since)).await;
            cost = (counters.statements() - before, allocations);
        }
        println!("{} statements, {} allocations for a wake in {size} rooms", cost.0, cost.1);
        costs.push(cost);
    }
    assert_eq!(costs[0].0, 0, "statements");
    assert_eq!(costs[1].0, 0, "statements");
    // A table that happens to grow, but nothing for each room.
    assert!(costs[0].1.abs_diff(costs[1].1) <= 6, "{costs:?}");
}

/// After a restart, one statement says which rooms changed, and only these are loaded.
#[tokio::test]
async fn the_first_sync_after_a_restart_reads_what_changed_and_nothing_else() {
    let server = Server::start().await;
    let [alice, bob, carol] =
        [server.register("alice").await, server.register("bob").await, server.register("carol").await];
    let mut rooms = Vec::new();
    for _ in 0..ROOMS_BEFORE_RESTART {
        rooms.push(server.room(&alice).await);
    }
    let named = server.named_room(&carol, Some("named")).await;
    let changed = [&rooms[7], &rooms[ROOMS_BEFORE_RESTART - 7], &named];
    for room in changed {
        server.app.rooms.join(&bob, room, None).await.expect("joined");
    }
    let (since, of_carol) = (server.sync(&alice, None).await, server.sync(&carol, None).await);
    for (txn, room) in changed.into_iter().enumerate() {
        server.send(&bob, room, txn).await;
    }
    let server = server.restart().await;
    // The first who syncs reads the words that all rooms share.
    server.sync(&*server.device("carol").await, Some(of_carol)).await;
    let alice = server.device("alice").await;
    let before = server.app.db.counters().statements();
    let (_, answer) = server.answer(&alice, Some(since)).await;
    let statements = server.app.db.counters().statements() - before;
    println!("{statements} statements after a restart");
    let told = answer["rooms"]["join"].as_object().expect("rooms");
    assert_eq!(told.len(), 2, "{answer}");
    assert!(told.values().all(|room| room["timeline"]["events"][0]["content"]["body"] == "hello"), "{answer}");
    assert!(statements <= STATEMENTS_AFTER_RESTART, "{statements} statements");
    let next = answer["next_batch"].as_str().expect("a token").parse().expect("one of ours");
    let before = server.app.db.counters().statements();
    server.sync(&alice, Some(next)).await;
    assert_eq!(server.app.db.counters().statements() - before, 0, "from now on, memory knows what changes");
}

/// A parked sync keeps only its future in memory, besides its connection.
#[tokio::test]
async fn a_parked_sync_is_small() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let request = v3::Request {
        filter: Arc::default(),
        since: None,
        hints: Hints::default(),
        full_state: false,
        state_after: false,
        state_after_unstable: false,
        set_presence: PresenceState::Offline,
        timeout: Duration::ZERO,
    };
    let parked = v3::sync(&server.app, &alice, &request);
    let size = std::mem::size_of_val(&parked);
    println!("{size} bytes for a parked sync");
    assert!(size <= BYTES_PER_PARKED_SYNC, "{size} bytes");
}
