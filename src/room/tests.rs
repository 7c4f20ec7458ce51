//! The service of rooms, without HTTP.

use std::{sync::Arc, time::Duration};

use ruma::{EventId, RoomVersionId, presence::PresenceState};
use sabha_federation::EventDraft;
use serde_json::{Value, json, value::to_raw_value};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::{Notify, Semaphore};
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
        Patience, Position, Role,
        committer::CommitStep,
        tests::{count_rows, postgres::PostgresDatabase},
    },
    sync::{
        token::{Hints, SyncToken},
        v3,
    },
};

mod actions;
mod loading;
mod reading;
mod touches;

pub(crate) struct Server {
    pub(crate) app: App,
    _dir: tempfile::TempDir,
    /// Dropped after the server that uses it.
    postgres: Option<PostgresDatabase>,
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
    Server { app: app(config, surroundings).await.expect("the server starts"), _dir: dir, postgres }
}

/// A server on PostgreSQL that leads and shares its database with others. `None` where PostgreSQL is not installed.
pub(crate) async fn shared_server() -> Option<Server> {
    let postgres = PostgresDatabase::create().await?;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config { data_dir: dir.path().join("data"), ..Config::default() };
    config.database.url = Some(DatabaseUrl::try_from(postgres.url.clone()).expect("a URL of ours"));
    config.database.durability = Durability::Process;
    config.database.max_connections = 4;
    let app = shared_app(config).await;
    app.db.committer().leading().await;
    Some(Server { app, _dir: dir, postgres: Some(postgres) })
}

async fn shared_app(config: Config) -> App {
    // A process that follows looks only when it is told to.
    let patience = Patience { look: Duration::from_secs(24 * 3600), ..Patience::default() };
    let surroundings =
        Surroundings { hashing: Hashing::cheap(), patience, role: Role::Follow, ..Surroundings::default() };
    app(config, surroundings).await.expect("the server starts")
}

/// A second service on the same database, which only the entries of the commit log tell of changes.
pub(crate) fn other_service(server: &Server) -> Rooms {
    let app = &server.app;
    let budget = Budget::new(64 << 20);
    let (bus, clock, signer) = (Arc::<Bus>::default(), app.clock.clone(), Arc::clone(&app.signer));
    Rooms::new(Arc::clone(&app.db), bus, clock, signer, &app.config.limits, &budget)
}

impl Server {
    /// Another process on the database of a [`shared_server`], which follows.
    pub(crate) async fn another(&self) -> App {
        shared_app(self.app.config.clone()).await
    }

    /// Deletes the commit log but for its newest entry.
    pub(crate) async fn cut_log(&self) {
        let postgres = self.postgres.as_ref().expect("it is on PostgreSQL");
        let mut conn = PgConnection::connect(&postgres.url).await.expect("PostgreSQL runs");
        let cut = "DELETE FROM commit_log WHERE pos < (SELECT MAX(pos) FROM commit_log)";
        conn.execute(cut).await.expect("it runs");
    }

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

/// Stops the committer before each of its next commits, until the gate has a permit for it.
pub(crate) fn hold_commits(server: &Server) -> Arc<Semaphore> {
    hold_commits_at(server, CommitStep::Taken).0
}

/// Stops the committer at this step of each of its next commits, until the gate has a permit for it. Tells each time that it
/// has come there.
pub(crate) fn hold_commits_at(server: &Server, at: CommitStep) -> (Arc<Semaphore>, Arc<Notify>) {
    let (gate, reached) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let in_hook = (Arc::clone(&gate), Arc::clone(&reached));
    server.app.db.committer().on_step(Arc::new(move |step| {
        let (gate, reached) = in_hook.clone();
        Box::pin(async move {
            if step == at {
                reached.notify_one();
                gate.acquire().await.expect("never closed").forget();
            }
        })
    }));
    (gate, reached)
}

/// A state event with an empty state key.
pub(crate) fn state(event_type: &str, content: &Value) -> EventDraft {
    EventDraft {
        event_type: event_type.to_owned(),
        state_key: Some(String::new()),
        content: to_raw_value(content).expect("JSON"),
        redacts: None,
    }
}

pub(crate) fn topic(topic: &str) -> EventDraft {
    state("m.room.topic", &json!({ "topic": topic }))
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
