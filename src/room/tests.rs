//! The service of rooms, without HTTP.

use std::{sync::Arc, time::Duration};

use ruma::{EventId, RoomVersionId, presence::PresenceState};
use sabha_federation::EventDraft;
use serde_json::{Value, json, value::to_raw_value};
use zeroize::Zeroizing;

use super::{
    Room, Rooms,
    write::{
        create::{NewRoom, Preset},
        txn::TxnKey,
    },
};
use crate::{
    account::{
        LocalDevice, NewSession,
        password::Hashing,
        register::{Permit, Registration},
    },
    app::App,
    bus::Bus,
    clock::Clock,
    config::{ByteSize, Config, DatabaseUrl, Durability},
    memory::budget::Budget,
    server::build::{Surroundings, app},
    store::{
        Position,
        committer::CommitStep,
        tests::{count_rows, postgres::PostgresDatabase},
    },
    sync::{
        token::{Hints, SyncToken},
        v3,
    },
};

mod touches;

pub(crate) struct Server {
    pub(crate) app: App,
    _dir: tempfile::TempDir,
    /// Dropped after the server that uses it.
    _postgres: Option<PostgresDatabase>,
}

pub(crate) async fn server() -> Server {
    server_with(None, Clock::System, |_| {}).await
}

/// A server on each engine that this machine has.
pub(crate) async fn servers_on_both_engines() -> Vec<Server> {
    let mut both = vec![server().await];
    if let Some(postgres) = PostgresDatabase::create().await {
        both.push(server_with(Some(postgres), Clock::System, |_| {}).await);
    }
    both
}

async fn server_with(postgres: Option<PostgresDatabase>, clock: Clock, change: impl FnOnce(&mut Config)) -> Server {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
    if let Some(postgres) = &postgres {
        config.database.url = Some(DatabaseUrl::try_from(postgres.url.clone()).expect("a URL of ours"));
        config.database.durability = Durability::Process;
        config.database.max_connections = 4;
    }
    change(&mut config);
    let surroundings = Surroundings { hashing: Hashing::cheap(), clock, ..Surroundings::default() };
    Server { app: app(config, surroundings).await.expect("the server starts"), _dir: dir, _postgres: postgres }
}

/// A second service on the same database, which only the entries of the commit log tell of changes.
pub(crate) fn other_service(server: &Server) -> Rooms {
    let app = &server.app;
    let budget = Budget::new(64 << 20);
    Rooms::new(Arc::clone(&app.db), Arc::<Bus>::default(), app.clock.clone(), Arc::clone(&app.signer), &budget)
}

impl Server {
    pub(crate) async fn register(&self, name: &str) -> Arc<LocalDevice> {
        let registration = Registration {
            username: Some(name.to_owned()),
            password: Some(Zeroizing::new("correct horse".to_owned())),
            admin: false,
            displayname: None,
            session: Some(NewSession::default()),
            permit: Permit::Free,
        };
        let (_, session) = self.app.accounts.register(registration).await.expect("the account is made");
        let token = session.expect("a session was asked for").secrets.access_token;
        self.app.accounts.authenticate(&token, None).await.expect("the token works")
    }

    pub(crate) async fn sync(&self, caller: &LocalDevice, since: Option<SyncToken>) -> (Value, SyncToken) {
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
        let bytes = v3::sync(&self.app, caller, &request).await.expect("sync answers");
        let answer: Value = serde_json::from_slice(&bytes).expect("sync answers JSON");
        let next = answer["next_batch"].as_str().expect("a token").parse().expect("one of ours");
        (answer, next)
    }
}

pub(crate) fn new_room(version: RoomVersionId, preset: Preset) -> NewRoom {
    NewRoom {
        version,
        preset,
        creation_content: serde_json::Map::new(),
        initial_state: Vec::new(),
        power_level_override: serde_json::Map::new(),
        name: Some("Tea".to_owned()),
        topic: None,
        alias: None,
        invite: Vec::new(),
        bans: Vec::new(),
        is_direct: false,
        publish: false,
    }
}

pub(crate) fn message(body: &str) -> EventDraft {
    EventDraft {
        event_type: "m.room.message".to_owned(),
        state_key: None,
        content: to_raw_value(&json!({ "msgtype": "m.text", "body": body })).expect("JSON"),
        redacts: None,
    }
}

pub(crate) fn redaction(event_id: &EventId) -> EventDraft {
    let content = to_raw_value(&json!({})).expect("JSON");
    EventDraft {
        event_type: "m.room.redaction".to_owned(),
        state_key: None,
        content,
        redacts: Some(event_id.to_owned()),
    }
}

#[tokio::test]
async fn two_people_talk_in_every_room_version() {
    let server = server().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    for version in sabha_federation::supported_room_versions() {
        let rooms = &server.app.rooms;
        let room_id = rooms.create(&alice, new_room(version.clone(), Preset::Public)).await.expect("created");
        rooms.join(&bob, &room_id, None).await.expect("joined");
        let (_, since) = server.sync(&bob, None).await;
        let txn = TxnKey { device: alice.device_nid, scope: format!("send/{room_id}").into(), txn: "1".into() };
        let sent = rooms.send(&alice, &room_id, message("hello"), Some(txn.clone())).await.expect("sent");
        let again = rooms.send(&alice, &room_id, message("hello"), Some(txn)).await.expect("sent");
        assert_eq!(sent, again, "{version}");
        let (answer, _) = server.sync(&bob, Some(since)).await;
        let timeline = &answer["rooms"]["join"][room_id.as_str()]["timeline"];
        let bodies: Vec<_> =
            timeline["events"].as_array().into_iter().flatten().map(|e| &e["content"]["body"]).collect();
        assert_eq!(bodies, [&json!("hello")], "{version}: {answer}");
        assert_eq!(timeline["limited"], false, "{version}");
    }
}

#[tokio::test]
async fn a_transaction_id_is_known_from_the_queue_on_whatever_leaves_the_cache() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Private)).await.expect("created");
    let room = rooms.require(&room_id).await.expect("a room");
    let key = |txn: &str| TxnKey { device: alice.device_nid, scope: format!("send/{room_id}").into(), txn: txn.into() };
    let find = async |txn: &str| rooms.txn_ids.find(&key(txn)).await.expect("a database");

    // The committer stops before its next commit, until the gate opens.
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let before_store = Arc::clone(&gate);
    server.app.db.committer().on_step(Arc::new(move |step| {
        let gate = Arc::clone(&before_store);
        Box::pin(async move {
            if step == CommitStep::Taken {
                gate.acquire().await.expect("never closed").forget();
            }
        })
    }));
    assert_eq!(find("1").await, None);
    rooms.txn_ids.drop_devices();
    let mut writer = rooms.enter(&room).await.expect("entered");
    let event_id = writer.append(&alice.user, message("hello")).await.expect("appended");
    let committed = writer.commit(Some(key("1"))).expect("queued");
    assert_eq!(find("1").await, Some(event_id.clone()), "the device was read from a database without the event");
    // Another request of the device fails; the first is still known.
    drop(rooms.txn_ids.queue(key("2"), &event_id));
    assert_eq!(find("2").await, None);
    assert_eq!(find("1").await, Some(event_id.clone()));
    gate.add_permits(1_000);
    committed.wait().await.expect("committed");
    assert_eq!(find("1").await, Some(event_id.clone()), "it was committed to a device that was read before");
    rooms.txn_ids.drop_devices();
    assert_eq!(find("1").await, Some(event_id.clone()), "it is in the database");
    let again = rooms.send(&alice, &room_id, message("hello"), Some(key("1"))).await.expect("sent");
    assert_eq!(again, event_id);
}

#[tokio::test]
async fn an_initial_sync_shows_the_room_and_an_idle_one_asks_the_database_nothing() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id =
        server.app.rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let (answer, since) = server.sync(&alice, None).await;
    let room = &answer["rooms"]["join"][room_id.as_str()];
    let types: Vec<_> =
        room["timeline"]["events"].as_array().into_iter().flatten().map(|e| e["type"].clone()).collect();
    assert_eq!(types.first(), Some(&json!("m.room.create")), "{answer}");
    assert_eq!(room["summary"]["m.joined_member_count"], 1, "{answer}");
    let before = server.app.db.counters().statements();
    let (answer, _) = server.sync(&alice, Some(since)).await;
    assert_eq!(server.app.db.counters().statements() - before, 0, "{answer}");
    assert!(answer.get("rooms").is_none(), "{answer}");
}

#[tokio::test]
async fn a_room_is_the_same_after_it_was_loaded_again() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id =
        server.app.rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Private)).await.expect("created");
    let rooms = &server.app.rooms;
    for number in 0..300 {
        let topic = EventDraft {
            event_type: "m.room.topic".to_owned(),
            state_key: Some(String::new()),
            content: to_raw_value(&json!({ "topic": number.to_string() })).expect("JSON"),
            redacts: None,
        };
        rooms.send_state(&alice, &room_id, topic).await.expect("sent");
    }
    let (before, _) = server.sync(&alice, None).await;
    // The first call clears the marks of use, and the second one evicts.
    rooms.forget_idle();
    rooms.forget_idle();
    assert!(rooms.registered(|registry| registry.by_id.get(&room_id)).is_none(), "nobody uses the room");
    let (after, _) = server.sync(&alice, None).await;
    let timeline = |answer: &Value| {
        let events = answer["rooms"]["join"][room_id.as_str()]["timeline"]["events"].clone();
        let ids = |event: &Value| (event["event_id"].clone(), event["unsigned"]["prev_content"].clone());
        events.as_array().into_iter().flatten().map(ids).collect::<Vec<_>>()
    };
    assert_eq!(timeline(&before), timeline(&after));
    assert_eq!(timeline(&after).len(), 10);
    rooms.send(&alice, &room_id, message("still here"), None).await.expect("sent");
}

#[tokio::test]
async fn rooms_made_alike_in_one_millisecond_are_different_rooms() {
    let server = server_with(None, Clock::manual(1_700_000_000_000), |_| {}).await;
    let alice = server.register("alice").await;
    let mut made = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let room = server.app.rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await;
        assert!(made.insert(room.expect("created")), "{made:?}");
    }
}

#[tokio::test]
async fn a_membership_that_changed_meanwhile_is_not_forgotten() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Public)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it was created");
    rooms.join(&bob, &room_id, None).await.expect("joined");
    rooms.leave(&bob, &room_id, None).await.expect("left");
    let entry = async || rooms.member_entry(bob.user.nid, room.nid).await.expect("read").expect("they met");
    let left = entry().await;

    rooms.join(&bob, &room_id, None).await.expect("joined again");
    assert!(!rooms.forget_entry(bob.user.nid, left.clone()).await.expect("asked"), "bob is in the room");
    rooms.leave(&bob, &room_id, None).await.expect("left");
    assert!(!rooms.forget_entry(bob.user.nid, left).await.expect("asked"), "another departure");
    let forgotten = async || {
        let in_memory = entry().await.forgotten;
        rooms.memberships.retain(|_| false);
        assert_eq!(entry().await.forgotten, in_memory, "memory and database agree");
        in_memory
    };
    assert!(!forgotten().await);
    assert!(rooms.forget(bob.user.nid, room.nid).await.expect("forgotten"));
    assert!(forgotten().await);
}

#[tokio::test]
async fn what_was_read_before_a_redaction_is_not_kept_after_it() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Private)).await.expect("created");
    let topic = |topic: &str| EventDraft {
        event_type: "m.room.topic".to_owned(),
        state_key: Some(String::new()),
        content: to_raw_value(&json!({ "topic": topic })).expect("JSON"),
        redacts: None,
    };
    let first = rooms.send_state(&alice, &room_id, topic("a slip")).await.expect("sent");
    let second = rooms.send_state(&alice, &room_id, topic("fine")).await.expect("sent");
    let room = rooms.find(&room_id).await.expect("read").expect("it was created");
    let mut reader = rooms.db.read().await.expect("a reader");
    let found = crate::store::events::find_event(&mut reader.conn(), second.as_str()).await.expect("read");
    drop(reader);
    let (nid, _) = found.expect("it was sent");
    let shows = async || {
        let event = rooms.events.get(&room, nid).await.expect("read");
        event.replaces.as_ref().map(|replaced| replaced.content.get().to_owned()).expect("the first one")
    };

    let before = rooms.events.redactions();
    let read = rooms.events.get(&room, nid).await.expect("read");
    let content = to_raw_value(&json!({})).expect("JSON");
    let redaction =
        EventDraft { event_type: "m.room.redaction".to_owned(), state_key: None, content, redacts: Some(first) };
    rooms.send(&alice, &room_id, redaction, None).await.expect("sent");
    rooms.events.keep(read, before);
    assert_eq!(shows().await, "{}");
}

#[tokio::test]
async fn a_range_that_ends_before_it_starts_holds_no_events() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let earlier = server.app.db.committer().published();
    rooms.send(&alice, &room_id, message("hello"), None).await.expect("sent");
    let room = rooms.find(&room_id).await.expect("read").expect("it is there");
    // A receipt for the newest event, seen by a look that began before it.
    assert_eq!(room.recent(room.last_pos(), earlier).map(|events| events.len()), Some(0));
    let (events, more) = rooms.timeline(&room, room.last_pos(), earlier, 10).await.expect("read");
    assert!(events.is_empty() && !more);
}

#[tokio::test]
async fn a_broken_room_is_read_again_only_when_its_writes_are_settled() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it was created");
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let in_hook = Arc::clone(&gate);
    server.app.db.committer().on_step(Arc::new(move |step| {
        let gate = Arc::clone(&in_hook);
        Box::pin(async move {
            if step == CommitStep::Taken {
                gate.acquire().await.expect("it stays open").forget();
            }
        })
    }));
    let mut writer = rooms.enter(&room).await.expect("entered");
    writer.append(&alice.user, message("on its way")).await.expect("allowed");
    let committed = writer.commit(None).expect("queued");
    drop(room.lineage.until_finished());
    let app = server.app.clone();
    let wanted = room_id.clone();
    let found = tokio::spawn(async move { app.rooms.find(&wanted).await });
    for _ in 0..20 {
        // Each takes as long as a step of the search.
        rooms.db.find_info("nothing").await.expect("read");
    }
    assert!(!found.is_finished());
    gate.add_permits(tokio::sync::Semaphore::MAX_PERMITS >> 1);
    assert!(matches!(committed.wait().await, Err(crate::store::Error::Superseded)));
    let found = found.await.expect("no panic").expect("read").expect("it is there");
    assert!(!Arc::ptr_eq(&found, &room));
    rooms.send(&alice, &room_id, message("still here"), None).await.expect("sent");
}

/// Sends `count` state events with different state keys in one commit.
pub(crate) async fn send_states(
    server: &Server,
    sender: &LocalDevice,
    room: &Arc<Room>,
    event_type: &str,
    count: usize,
) {
    let mut writer = server.app.rooms.enter(room).await.expect("entered");
    for number in 0..count {
        let content = to_raw_value(&json!({ "number": number })).expect("JSON");
        let state_key = Some(format!("key{number}"));
        let draft = EventDraft { event_type: event_type.to_owned(), state_key, content, redacts: None };
        writer.append(&sender.user, draft).await.expect("allowed");
    }
    writer.commit(None).expect("queued").wait().await.expect("committed");
}

#[tokio::test]
async fn loading_a_room_reads_its_checkpoint_and_what_follows_but_no_keys() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it is there");
    for event_type in ["org.example.first", "org.example.second"] {
        send_states(&server, &alice, &room, event_type, 300).await;
    }
    let state = room.view().state.entries().to_vec();
    drop(room);
    // The first call notes that nobody has used the room since.
    rooms.forget_idle();
    rooms.forget_idle();
    let before = server.app.db.counters().statements();
    let room = rooms.find(&room_id).await.expect("read").expect("it is there");
    // The room with its head, the checkpoint, the changes after it, the forward extremities.
    assert_eq!(server.app.db.counters().statements() - before, 4);
    assert_eq!(room.view().state.entries(), state);
    rooms.send(&alice, &room_id, message("hello"), None).await.expect("sent");
}

#[tokio::test]
async fn a_sync_of_a_large_state_evicts_nobodys_events() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it is there");
    for (event_type, count, is_kept) in [("org.example.few", 300, true), ("org.example.many", 1_000, false)] {
        send_states(&server, &alice, &room, event_type, count).await;
        rooms.events.handle().evict_all();
        let (answer, _) = server.sync(&alice, None).await;
        let state = &answer["rooms"]["join"][room_id.as_str()]["state"]["events"];
        assert!(state.as_array().is_some_and(|events| events.len() > count - 20));
        let cached = rooms.events.cached();
        assert_eq!(cached > count / 2, is_kept, "{cached} events of {count} are cached");
    }
}

#[tokio::test]
async fn thinned_checkpoints_leave_every_state_readable() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it is there");
    let mut states = Vec::new();
    for _ in 0..9 {
        // Each of these commits ends with a checkpoint.
        send_states(&server, &alice, &room, "org.example.test", 256).await;
        let upto = server.app.db.committer().published();
        states.push((upto, rooms.state_at(&room, upto).await.expect("read")));
        server.app.rooms.thin_checkpoints().await.expect("thinned");
    }
    // Of the ages 0 to 8 these stay: 0, 1, 2, 4 and 8.
    assert_eq!(count_rows(&server.app.db, "state_checkpoint").await, 5);
    for (upto, state) in states {
        assert_eq!(rooms.state_at(&room, upto).await.expect("read"), state, "as of {upto:?}");
    }
    drop(room);
    rooms.forget_idle();
    rooms.forget_idle();
    rooms.send(&alice, &room_id, message("hello"), None).await.expect("the room loads, and its hash is right");
}

#[tokio::test]
async fn the_latest_events_of_quiet_rooms_leave_memory_when_those_of_all_rooms_are_too_large() {
    // The smallest budget: there is room for ten of these messages.
    let server = server_with(None, Clock::System, |config| config.memory.budget = ByteSize::mib(16)).await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let body = "x".repeat(60_000);
    let mut created = Vec::new();
    for _ in 0..4 {
        let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Private)).await.expect("created");
        for _ in 0..8 {
            rooms.send(&alice, &room_id, message(&body), None).await.expect("sent");
        }
        created.push(rooms.require(&room_id).await.expect("a room"));
    }
    let held = || created.iter().map(|room| room.latest(room.last_pos(), 2).is_some()).collect::<Vec<_>>();
    assert!(rooms.rings.are_full());
    assert_eq!(held()[..2], [true, true]);
    rooms.shrink_rings();
    assert!(!rooms.rings.are_full());
    assert_eq!(held()[..2], [false, true], "the first room has been quiet for longest");
    for room in &created {
        let newest = room.recent(Position(room.last_pos().0 - 1), room.last_pos());
        assert!(newest.is_some_and(|events| events.len() == 1), "a client that waits for news finds it in memory");
    }
}
