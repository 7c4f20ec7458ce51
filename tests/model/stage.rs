//! A server for several seeds, and the run of one seed on it.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use axum::Router;
use ruma::owned_server_name;
use sabha::{
    account::password::Hashing,
    app::App,
    client_api,
    clock::Clock,
    config::{Config, DatabaseUrl, Durability, Listener as ListenerConfig, RegistrationMode},
    http::{
        accept,
        listen::{Address, Listener, ListenerSpec},
        shutdown::Shutdown,
        tracked::TrackedLayer,
    },
    server::{Server, build},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{
    api::{Api, Device, Request, Transport, v3},
    checks::{self, End},
    clients::{Scene, Writer, power_levels},
    delays::Delays,
    followers::Follower,
    plan::{Plan, RoomPlan, USERS, WITNESS, user_name},
    postgres::PostgresDatabase,
    sweeper,
    world::{Ending, Fault, World},
};

/// Time limit of one seed, a hundred times its usual time: a run that hangs is reported.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// The amount of work in a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Answers to syncs that a follower took.
    pub answers: u64,
}

pub struct Outcome {
    pub faults: Vec<Fault>,
    pub counts: Counts,
}

/// A server, its router, and a listener of the test for this router, whose requests we can wait for.
pub struct Stage {
    server: Server,
    router: Transport,
    socket: Transport,
    requests: Shutdown,
    delays: Arc<Delays>,
    // These two are removed with this value.
    _data: TempDir,
    _database: Option<PostgresDatabase>,
}

impl Stage {
    /// `None` where the engine is not installed.
    pub async fn start(engine: Engine) -> Option<Self> {
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(PostgresDatabase::create().await?),
        };
        let data = tempfile::Builder::new().prefix("sabha-model-").tempdir().expect("a temporary directory");
        let server = start(&data, database.as_ref()).await;
        let delays = Arc::new(Delays::new());
        let in_steps = Arc::clone(&delays);
        server.app.db.committer().on_step(Arc::new(move |_| {
            let delays = Arc::clone(&in_steps);
            Box::pin(async move { delays.wait().await })
        }));
        let requests = Shutdown::new();
        let router = router(&server.app, &requests);
        let address = Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let listener = Listener::bind(&ListenerSpec { address, tls: None }).await.expect("a free port");
        let Address::Tcp(address) = listener.address().clone() else { unreachable!("it was TCP") };
        tokio::spawn(accept::serve(listener, router.clone(), requests.clone()));
        let socket = Transport::Socket { address, http: reqwest::Client::new() };
        Some(Self {
            server,
            router: Transport::Router(router),
            socket,
            requests,
            delays,
            _data: data,
            _database: database,
        })
    }

    /// Stops the server in order.
    pub async fn stop(self) {
        self.requests.begin();
        self.server.stop().await;
    }

    /// Runs a seed.
    pub async fn run(&self, seed: u64) -> Outcome {
        let plan = Plan::new(seed);
        let world = World::new(plan.rooms.len());
        let transport = if plan.sockets { &self.socket } else { &self.router };
        let api = Api { transport: transport.clone(), world: Arc::clone(&world) };
        self.delays.reseed(seed);
        if tokio::time::timeout(LIMIT, self.play(&plan, api)).await.is_err() {
            world.fault("a run hangs", format!("it is not over after {LIMIT:?}"));
        }
        let mut counts = Counts { answers: world.answers(), ..Counts::default() };
        for act in world.acts() {
            match act.ending {
                Ending::Acknowledged(_) => counts.acknowledged += 1,
                Ending::Refused => counts.refused += 1,
                Ending::Unknown => counts.unknown += 1,
            }
        }
        Outcome { faults: world.take_faults(), counts }
    }

    async fn play(&self, plan: &Plan, api: Api) {
        let world = Arc::clone(&api.world);
        let scene = Arc::new(scene(plan, api).await);
        let mut followers = JoinSet::new();
        for follower in &plan.followers {
            let device = scene.api.login(&scene.user_ids[follower.user]).await;
            let kind = follower.kind.clone();
            followers.spawn(Follower::new(&scene, follower.user, device, kind, follower.seed).run());
        }
        let mut writers = JoinSet::new();
        for (number, writer) in plan.writers.iter().enumerate() {
            let steps = writer.steps.clone();
            writers.spawn(Writer::new(&scene, plan.seed, number, writer.user).await.run(steps));
        }
        if let Some(seed) = plan.sweeps {
            tokio::spawn(sweeper::run(self.server.app.clone(), Arc::clone(&world), seed));
        }
        while let Some(ended) = writers.join_next().await {
            if let Err(error) = ended {
                world.fault("a writer panicked", error.to_string());
            }
        }
        settle(&self.server.app, &self.requests).await;
        self.requests.tasks().reopen();
        world.writers_are_done();
        let mut rested = Vec::new();
        while let Some(ended) = followers.join_next().await {
            match ended {
                Ok(follower) => rested.push(follower),
                Err(error) => world.fault("a follower panicked", error.to_string()),
            }
        }
        let end = End::read(&scene).await;
        checks::run(&end, &rested).await;
    }
}

/// The client API of a process, without sockets.
pub fn router(app: &App, requests: &Shutdown) -> Router {
    let layer = TrackedLayer::new(requests.tasks().clone());
    client_api::routes().into_router().with_state(app.clone()).layer(layer)
}

/// Waits until the requests of clients that hung up have run to their end, and their jobs too.
pub async fn settle(app: &App, requests: &Shutdown) {
    requests.tasks().close();
    requests.tasks().wait().await;
    app.jobs.settled().await;
}

async fn start(data: &TempDir, database: Option<&PostgresDatabase>) -> Server {
    let shutdown = Shutdown::new();
    let surroundings = build::Surroundings {
        clock: Clock::System,
        hashing: Hashing::cheap(),
        stopping: shutdown.token().clone(),
        ..build::Surroundings::default()
    };
    let app =
        build::app(config(data, database), surroundings).await.unwrap_or_else(|error| panic!("no server: {error}"));
    Server::start(app, shutdown, None).await.unwrap_or_else(|error| panic!("no server: {error}"))
}

/// Returns the configuration of a server for tests.
pub fn config(data: &TempDir, database: Option<&PostgresDatabase>) -> Config {
    let mut config = Config { server_name: owned_server_name!("sabha.test"), ..Config::default() };
    config.data_dir = data.path().to_owned();
    config.listeners = vec![ListenerConfig::tcp((Ipv4Addr::LOCALHOST, 0).into())];
    config.metrics.enabled = false;
    config.registration.mode = RegistrationMode::Open;
    // A correct request that is refused by a rate limit would show nothing.
    config.rate_limits.enabled = false;
    // This test cuts no power.
    config.database.durability = Durability::Process;
    config.database.readers = 2;
    config.database.max_connections = 4;
    config.database.url = database.map(|database| DatabaseUrl::try_from(database.url.clone()).expect("a database URL"));
    config
}

/// Creates the users and the rooms.
pub async fn scene(plan: &Plan, api: Api) -> Scene {
    let mut devices = Vec::new();
    for user in 0..USERS {
        devices.push(api.register(&user_name(plan.seed, user)).await);
    }
    let user_ids: Vec<String> = devices.iter().map(|device| device.user_id.clone()).collect();
    let mut room_ids = Vec::new();
    for room in &plan.rooms {
        room_ids.push(create(&api, room, &devices, &user_ids).await);
    }
    let creator_is_above = plan.rooms.iter().map(is_creator_above).collect();
    let world = Arc::clone(&api.world);
    Scene { world, api, room_ids, creator_is_above, user_ids, devices }
}

/// Returns whether the creator needs no power level, and must not have one: from version 12 on.
fn is_creator_above(room: &RoomPlan) -> bool {
    room.version == "12"
}

async fn create(api: &Api, room: &RoomPlan, devices: &[Device], user_ids: &[String]) -> String {
    let visibility = json!({
        "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": room.visibility },
    });
    let body = json!({
        "preset": if room.public { "public_chat" } else { "private_chat" },
        "room_version": room.version,
        "initial_state": [visibility],
        "power_level_content_override": power_levels(user_ids, is_creator_above(room), 40),
    });
    let answer = api.need(&devices[WITNESS].token, &Request::post(v3(["createRoom"]), body)).await;
    let room_id = answer["room_id"].as_str().unwrap_or_default().to_owned();
    for user in &room.members {
        if !room.public {
            let body = json!({ "user_id": user_ids[*user] });
            api.need(&devices[WITNESS].token, &Request::post(v3(["rooms", &room_id, "invite"]), body)).await;
        }
        let join = Request::post(v3(["join", &room_id]), json!({ "reason": format!("setup{user}") }));
        api.need(&devices[*user].token, &join).await;
    }
    room_id
}
