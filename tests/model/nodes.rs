//! Two processes on one PostgreSQL in lock-step: one runs a seed, the other follows its commits.
//!
//! The first process waits after each commit, until the second one has applied its entry of the commit log. Then each user
//! syncs with the second process, and with a third one that has just started: memory that follows must answer as memory
//! that was read. Now and then the follower hears of nothing and finds a log that no longer reaches back.
//!
//! `SABHA_MODEL_SEED=17` repeats a seed.

use std::{sync::Arc, time::Duration};

use sabha::{
    account::password::Hashing,
    app::App,
    clock::Clock,
    http::shutdown::Shutdown,
    server::{Server, build},
    store::{Patience, Position, Role, committer::CommitStep},
};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::{runtime::Builder, task::JoinSet};

use crate::{
    api::{Api, Doors, Open, Request, Transport, v3},
    clients::{Scene, Writer},
    number,
    plan::Plan,
    postgres::PostgresDatabase,
    running::{config, router, settle},
    stage::scene,
    steps::Steps,
    world::World,
};

/// A time for the clock of all processes, which stands still: ages are the same everywhere.
const NOW_MS: i64 = 1_700_000_000_000;

/// The number of writers at the same time. Few, so that most acts have a commit of their own.
const LANES: usize = 2;

/// A process that follows looks only when it is told to.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Every one of this many commits is not told, and after it the log is cut off.
const MISSED: usize = 8;

/// Time limit for a follower to apply a commit that is in the database.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn memory_that_follows_answers_like_new_memory_after_each_commit() {
    let seed = number("SABHA_MODEL_SEED").unwrap_or_else(|| u64::from(rand::random::<u16>()));
    println!("two processes in lock-step: SABHA_MODEL_SEED={seed}");
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(run(seed));
}

async fn run(seed: u64) {
    let Some(processes) = Processes::new().await else { return };
    let plan = Plan::new(seed);
    let world = World::new(plan.rooms.len());
    let shutdown = Shutdown::new();
    // The first process finds the lease free.
    let app = processes.app(&shutdown).await;
    let leader = Server::start(app, shutdown, None).await.unwrap_or_else(|error| panic!("the first process: {error}"));
    let mut steps = Steps::of(&leader.app);
    let requests = Shutdown::new();
    let api = api(&leader.app, &requests, &world);
    let scene = Arc::new(scene(&plan, api).await);
    let follower = processes.app(&Shutdown::new()).await;
    let mut lock_step = LockStep::new(&processes, &scene, &leader.app, &follower);

    steps.arm(true);
    let mut acting = tokio::spawn(act(plan, Arc::clone(&scene), leader.app.clone(), requests));
    loop {
        tokio::select! {
            biased;
            reached = steps.reached.recv() => {
                let (step, go_on) = reached.expect("the committer holds the sender");
                if step == CommitStep::Answered {
                    lock_step.after_commit().await;
                }
                let _: Result<(), ()> = go_on.send(());
            }
            ended = &mut acting => {
                ended.expect("the writers end");
                break;
            }
        }
    }
    steps.arm(false);
    while let Ok((_, go_on)) = steps.reached.try_recv() {
        let _: Result<(), ()> = go_on.send(());
    }
    println!("{} positions compared", lock_step.compared);
    assert!(lock_step.compared > 10, "a seed has more commits");
    let faults = world.take_faults();
    assert!(faults.is_empty(), "{faults:?}");
    follower.db.close().await;
    leader.stop().await;
}

/// Runs the writers in some lanes, and waits for what they leave behind.
async fn act(plan: Plan, scene: Arc<Scene>, leader: App, requests: Shutdown) {
    let mut lanes: [Vec<_>; LANES] = Default::default();
    for (number, writer) in plan.writers.into_iter().enumerate() {
        lanes[number % LANES].push(Writer::new(&scene, plan.seed, number, writer.user).await.run(writer.steps));
    }
    let mut writers = JoinSet::new();
    for lane in lanes {
        writers.spawn(async move {
            for writer in lane {
                writer.await;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer does not panic");
    }
    settle(&leader, &requests).await;
}

/// The API of a process, through its router.
fn api(app: &App, requests: &Shutdown, world: &Arc<World>) -> Api {
    let open = Open { transport: Transport::Router(router(app, requests)), app: app.clone() };
    Api { doors: Doors::new(open), world: Arc::clone(world) }
}

/// The database that all processes share, and their clock.
struct Processes {
    data: TempDir,
    database: PostgresDatabase,
    clock: Clock,
}

impl Processes {
    /// `None` where PostgreSQL is not installed.
    async fn new() -> Option<Self> {
        let database = PostgresDatabase::create().await?;
        let data = tempfile::Builder::new().prefix("sabha-model-").tempdir().expect("a temporary directory");
        Some(Self { data, database, clock: Clock::manual(NOW_MS) })
    }

    /// The services of one more process.
    async fn app(&self, shutdown: &Shutdown) -> App {
        let mut config = config(&self.data, Some(&self.database));
        // Presence belongs to one process.
        config.presence.enabled = false;
        let surroundings = build::Surroundings {
            clock: self.clock.clone(),
            hashing: Hashing::cheap(),
            stopping: shutdown.token().clone(),
            patience: Patience { look: NEVER, ..Patience::default() },
            role: Role::Follow,
        };
        build::app(config, surroundings).await.unwrap_or_else(|error| panic!("no process: {error}"))
    }

    /// Deletes the log but for its newest entry.
    async fn cut_log(&self) {
        let mut conn = PgConnection::connect(&self.database.url).await.expect("PostgreSQL runs");
        let cut = "DELETE FROM commit_log WHERE pos < (SELECT MAX(pos) FROM commit_log)";
        conn.execute(cut).await.expect("it runs");
    }
}

/// The comparison of the second process with new ones.
struct LockStep<'a> {
    processes: &'a Processes,
    scene: Arc<Scene>,
    leader: App,
    follower: App,
    /// The token of each user's last initial sync at the follower.
    since: Vec<Option<String>>,
    commits: usize,
    compared: usize,
}

impl<'a> LockStep<'a> {
    fn new(processes: &'a Processes, scene: &Arc<Scene>, leader: &App, follower: &App) -> Self {
        let (scene, leader, follower) = (Arc::clone(scene), leader.clone(), follower.clone());
        let since = vec![None; scene.devices.len()];
        Self { processes, scene, leader, follower, since, commits: 0, compared: 0 }
    }

    /// Compares the follower with a new process, while the first process waits after a commit.
    async fn after_commit(&mut self) {
        self.commits += 1;
        match self.commits % MISSED {
            // Nobody tells the follower of this one.
            0 => return,
            1 if self.commits > 1 => self.processes.cut_log().await,
            _ => {}
        }
        let position = self.leader.db.committer().published();
        let committer = self.follower.db.committer();
        committer.hint();
        let reached = tokio::time::timeout(LIMIT, committer.reached(position)).await;
        reached.unwrap_or_else(|_| panic!("the follower does not reach {position:?}"));
        let new = self.processes.app(&Shutdown::new()).await;
        assert_eq!((committer.published(), new.db.committer().published()), (position, position));
        self.compare(&new, position).await;
        new.db.close().await;
        self.compared += 1;
    }

    async fn compare(&mut self, new: &App, position: Position) {
        let requests = Shutdown::new();
        let [followed, new] = [&self.follower, new].map(|app| api(app, &requests, &self.scene.world));
        for (device, since) in self.scene.devices.iter().zip(&mut self.since) {
            let sync = async |api: &Api, since: Option<&str>| {
                let since = since.map_or_else(String::new, |since| format!("&since={since}"));
                api.need(&device.token, &Request::get(format!("{}?timeout=0{since}", v3(["sync"])))).await
            };
            let name = &device.user_id;
            if let Some(since) = since.as_deref() {
                let [found, expected] = [sync(&followed, Some(since)).await, sync(&new, Some(since)).await].map(news);
                assert_eq!(found, expected, "the news of {name} from {since} to {position:?}");
            }
            let answer = sync(&followed, None).await;
            *since = answer["next_batch"].as_str().map(str::to_owned);
            let [found, expected] = [answer, sync(&new, None).await].map(everything);
            assert_eq!(found, expected, "everything for {name} at {position:?}");
        }
    }
}

/// The part of an initial sync that is the same from every process.
fn everything(mut answer: Value) -> Value {
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("next_batch");
        // A process does not deliver messages that an earlier sync has acknowledged there.
        answer.remove("to_device");
    }
    pruned(answer)
}

/// The part of an incremental sync that is the same from every process. The counts of a room may be told once more than
/// needed, with all that comes with them.
fn news(mut answer: Value) -> Value {
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("next_batch");
    }
    for room in answer["rooms"]["join"].as_object_mut().into_iter().flat_map(|rooms| rooms.values_mut()) {
        let Some(room) = room.as_object_mut() else { continue };
        room.remove("unread_notifications");
        room.remove("summary");
        if room.get("timeline").is_some_and(|timeline| timeline["events"].as_array().is_none_or(Vec::is_empty)) {
            room.remove("timeline");
        }
    }
    pruned(answer)
}

/// The value without what is empty.
fn pruned(value: Value) -> Value {
    let is_full = |value: &Value| match value {
        Value::Null => false,
        Value::Object(object) => !object.is_empty(),
        Value::Array(array) => !array.is_empty(),
        _ => true,
    };
    match value {
        Value::Object(object) => {
            let object = object.into_iter().map(|(key, value)| (key, pruned(value)));
            object.filter(|(_, value)| is_full(value)).collect()
        }
        Value::Array(array) => array.into_iter().map(pruned).collect(),
        value => value,
    }
}
