//! A server for several seeds, and the run of one seed on it.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tempfile::TempDir;
use tokio::{
    sync::{MappedMutexGuard, Mutex, MutexGuard},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Api, Device, Doors, Open, Request, v3},
    checks::{self, End, log::Place},
    clients::{Scene, Writer, power_levels},
    delays::Delays,
    followers::Follower,
    lease::Nodes,
    plan::{Plan, RoomPlan, USERS, WITNESS, user_name},
    postgres::PostgresDatabase,
    reader,
    running::Running,
    sweeper,
    world::{Ending, Fault, Moves, World},
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
    pub moves: Moves,
}

pub struct Outcome {
    pub faults: Vec<Fault>,
    pub counts: Counts,
}

/// A server for several seeds, its data, and the delays of its committer.
pub struct Stage {
    /// Two processes, if the server consists of them.
    nodes: Option<Nodes>,
    /// The only process. `None` during a restart, and if there are two.
    running: Mutex<Option<Running>>,
    delays: Arc<Delays>,
    // These two are removed with this value.
    data: TempDir,
    database: Option<PostgresDatabase>,
}

impl Stage {
    /// Starts a server of one process, or of two on one PostgreSQL. `None` where the engine is not installed.
    pub async fn start(engine: Engine, is_shared: bool) -> Option<Self> {
        let database = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(PostgresDatabase::create().await?),
        };
        let data = tempfile::Builder::new().prefix("sabha-model-").tempdir().expect("a temporary directory");
        let delays = Arc::new(Delays::default());
        let (mut nodes, mut running) = (None, None);
        match &database {
            Some(database) if is_shared => nodes = Some(Nodes::start(database).await),
            _ => running = Some(Running::start(&data, database.as_ref(), &delays).await),
        }
        Some(Self { nodes, running: Mutex::new(running), delays, data, database })
    }

    async fn running(&self) -> MappedMutexGuard<'_, Running> {
        MutexGuard::map(self.running.lock().await, |running| running.as_mut().expect("a restart starts it again"))
    }

    /// The way into the server.
    async fn open(&self, sockets: bool) -> Open {
        match &self.nodes {
            Some(nodes) => nodes.open(sockets),
            None => self.running().await.open(sockets),
        }
    }

    /// Waits for what clients that hung up left behind.
    async fn settled(&self) {
        match &self.nodes {
            Some(nodes) => nodes.settled().await,
            None => self.running().await.settled().await,
        }
    }

    /// Restarts the server while clients use it: they get the answers to what they sent, and then wait.
    async fn restart(&self, doors: &Doors, sockets: bool) {
        let stopping = self.running().await.stopping.clone();
        // In this order: nothing new comes in, and then the requests that wait for news are answered.
        let (mut closed, ()) = tokio::join!(doors.close(), async { stopping.begin() });
        *closed = None;
        let mut running = self.running.lock().await;
        if let Some(running) = running.take() {
            let database = Arc::downgrade(&running.server.app.db);
            running.stop().await;
            // A database is locked for as long as somebody holds it, such as a sweeper.
            while database.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        }
        let started = Running::start(&self.data, self.database.as_ref(), &self.delays).await;
        *closed = Some(started.open(sockets));
        *running = Some(started);
    }

    /// Stops the server in order.
    pub async fn stop(self) {
        if let Some(running) = self.running.into_inner() {
            running.stop().await;
        }
        if let Some(nodes) = self.nodes {
            nodes.stop().await;
        }
    }

    /// Runs a seed.
    pub async fn run(&self, seed: u64) -> Outcome {
        let plan = Plan::new(seed);
        let world = World::new(plan.rooms.len());
        let api = Api { doors: Doors::new(self.open(plan.sockets).await), world: Arc::clone(&world) };
        self.delays.reseed(seed);
        if let Some(nodes) = &self.nodes {
            nodes.reseed(seed);
        }
        if tokio::time::timeout(LIMIT, self.play(&plan, api)).await.is_err() {
            world.fault("a run hangs", format!("it is not over after {LIMIT:?}"));
        }
        let mut counts = Counts { answers: world.answers(), moves: world.moves(), ..Counts::default() };
        for act in world.acts() {
            match act.ending {
                Ending::Acknowledged(_) => counts.acknowledged += 1,
                Ending::Refused => counts.refused += 1,
                Ending::Unknown => counts.unknown += 1,
            }
        }
        Outcome { faults: world.take_faults(), counts }
    }

    fn place(&self) -> Place {
        match &self.database {
            Some(database) => Place::Postgres(database.url.clone()),
            None => Place::Sqlite(self.data.path().join("sabha.db")),
        }
    }

    async fn play(&self, plan: &Plan, api: Api) {
        let (world, doors) = (Arc::clone(&api.world), Arc::clone(&api.doors));
        let reading = tokio::spawn(reader::run(Arc::clone(&doors), Arc::clone(&world), plan.reads));
        let scene = Arc::new(scene(plan, api).await);
        let mut followers = JoinSet::new();
        for follower in &plan.followers {
            let device = scene.api.login(&scene.user_ids[follower.user]).await;
            let kind = follower.kind.clone();
            let kind = if self.nodes.is_some() { kind.with_several() } else { kind };
            followers.spawn(Follower::new(&scene, follower.user, device, kind, follower.seed).run());
        }
        let mut writers = JoinSet::new();
        for (number, writer) in plan.writers.iter().enumerate() {
            let steps = writer.steps.clone();
            writers.spawn(Writer::new(&scene, plan.seed, number, writer.user).await.run(steps));
        }
        if let Some(seed) = plan.sweeps {
            tokio::spawn(sweeper::run(Arc::clone(&doors), Arc::clone(&world), seed));
        }
        let all_written = CancellationToken::new();
        let writing = async {
            while let Some(ended) = writers.join_next().await {
                if let Err(error) = ended {
                    world.fault("a writer panicked", error.to_string());
                }
            }
            all_written.cancel();
        };
        let restarting = async {
            if let Some(nodes) = &self.nodes {
                return nodes.play(plan, &doors, &world, &all_written).await;
            }
            let Some(after) = plan.restart_after else { return };
            let mut progress = world.progress();
            let is_due = progress.wait_for(|acts| *acts >= after);
            // Some steps make no act, so there may be too few.
            if all_written.run_until_cancelled(is_due).await.is_some() {
                self.restart(&doors, plan.sockets).await;
            }
        };
        tokio::join!(writing, restarting);
        self.settled().await;
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
        match reading.await {
            Ok(told) => checks::log::check(&world, &self.place(), &told).await,
            Err(error) => world.fault("the reader of the log panicked", error.to_string()),
        }
        if let (Some(nodes), Some(database)) = (&self.nodes, &self.database) {
            nodes.ask_a_new_one(database, &scene, rested).await;
        }
    }
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
    let mut initial_state = vec![visibility];
    if room.knock {
        let join_rule = json!({ "join_rule": "knock" });
        initial_state.push(json!({ "type": "m.room.join_rules", "state_key": "", "content": join_rule }));
    }
    let body = json!({
        "preset": if room.public { "public_chat" } else { "private_chat" },
        "room_version": room.version,
        "initial_state": initial_state,
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
