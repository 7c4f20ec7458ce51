//! Two processes on one PostgreSQL, and the lease that moves between them while clients write and follow.
//!
//! The seed decides when the lease moves and how: the process that leads gives it up, or stalls between two steps of a
//! commit until the other one has taken it. Clients go to the process that leads. Those that are inside another one stay
//! there: a sync goes on, and a write is refused, unless it was stored before the other process took over. In the end a
//! third process, which has read everything from the database, must answer as the one that leads.

use std::{fs, sync::Arc, time::Duration};

use sabha::{
    account::password::Hashing,
    app::App,
    clock::Clock,
    http::shutdown::Shutdown,
    remote::signing_key,
    server::build,
    store::{Committer, Patience, Position, Role, Write},
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Doors, Open, Transport},
    checks::{self, End},
    clients::Scene,
    delays::{Delays, yields},
    followers::Follower,
    patience::run_out_of_patience,
    plan::{Move, Plan, Stall},
    postgres::PostgresDatabase,
    running::{Running, config, router},
    world::World,
};

/// A time for the clocks, which stand still but while a process waits for the lease.
const NOW_MS: i64 = 1_700_000_000_000;

/// Neither looks nor beats: a process is told of each commit, and finds out with a write that it does not lead any more.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The time without a sign of the leader after which the other process takes over. Short: the clocks of the two processes
/// drift apart by that much with each takeover, and what a client types runs out after two minutes.
const SILENCE: Duration = Duration::from_millis(20);

/// The step in which time goes on for a process that waits. The silence takes some, so that all of it is after the first look.
const TICK: Duration = Duration::from_millis(1);

/// The turns that other tasks have before time goes on by a [`TICK`]. A takeover waits for the database some thousand turns
/// long, in which time almost stands still.
const YIELDS: u32 = 100;

/// One of two processes.
struct Node {
    running: Running,
    delays: Arc<Delays>,
    clock: Clock,
}

impl Node {
    async fn start(data: &TempDir, database: &PostgresDatabase) -> Self {
        let (clock, delays) = (Clock::manual(NOW_MS), Arc::new(Delays::default()));
        let running = Running::start_in(surroundings(&clock), data, Some(database), &delays).await;
        Self { running, delays, clock }
    }

    fn committer(&self) -> &Committer {
        self.running.server.app.db.committer()
    }

    /// Lets time pass until the process takes the leader for gone.
    async fn runs_out_of_patience(&self) {
        run_out_of_patience(self.committer(), &self.clock, (TICK, YIELDS)).await;
    }
}

fn surroundings(clock: &Clock) -> build::Surroundings {
    build::Surroundings {
        clock: clock.clone(),
        patience: Patience { look: NEVER, beat: NEVER, silence: SILENCE, ..Patience::default() },
        role: Role::Follow,
        ..build::Surroundings::default()
    }
}

/// Two processes. One of them leads whenever the lease does not move.
pub struct Nodes {
    nodes: [Node; 2],
    /// Tell each process of the commits of the other one.
    _hints: JoinSet<()>,
    // Removed with this value.
    data: [TempDir; 2],
}

impl Nodes {
    pub async fn start(database: &PostgresDatabase) -> Self {
        let data = [(); 2].map(|()| tempfile::Builder::new().prefix("sabha-model-").tempdir().expect("a directory"));
        // The first process finds the lease free.
        let first = Node::start(&data[0], database).await;
        let key = |data: &TempDir| data.path().join(signing_key::FILE);
        fs::copy(key(&data[0]), key(&data[1])).expect("the first process has made it");
        let nodes = [first, Node::start(&data[1], database).await];
        let mut hints = JoinSet::new();
        for (from, to) in [(0, 1), (1, 0)] {
            let [from, to]: [App; 2] = [from, to].map(|node: usize| nodes[node].running.server.app.clone());
            hints.spawn(tell(from, to));
        }
        Self { nodes, _hints: hints, data }
    }

    /// Uses the delays of this seed from now on.
    pub fn reseed(&self, seed: u64) {
        self.nodes[0].delays.reseed(seed);
        self.nodes[1].delays.reseed(seed.rotate_right(1));
    }

    /// The process that leads, and the other one.
    fn in_order(&self) -> [&Node; 2] {
        let [first, second] = &self.nodes;
        if first.running.leads() { [first, second] } else { [second, first] }
    }

    /// The way into the process that leads.
    pub fn open(&self, sockets: bool) -> Open {
        self.in_order()[0].running.open(sockets)
    }

    /// Waits for what clients that hung up left behind.
    pub async fn settled(&self) {
        let [leader, other] = self.in_order();
        other.running.settled().await;
        leader.running.settled().await;
    }

    /// Moves the lease as planned, until all is written.
    pub async fn play(&self, plan: &Plan, doors: &Doors, world: &World, all_written: &CancellationToken) {
        let mut progress = world.progress();
        for Move { after, stall } in &plan.moves {
            let [from, to] = self.in_order();
            let until = *progress.borrow() + after;
            let begins = async {
                // The sender outlives us, so waiting for it cannot fail.
                let _ = progress.wait_for(|acts| *acts >= until).await;
                match stall {
                    Some(Stall { at, .. }) => Some(from.delays.stall(*at).await),
                    None => None,
                }
            };
            // Nobody may write enough, or write at all, any more.
            let Some(stalled) = all_written.run_until_cancelled(begins).await else { return };
            let open = to.running.open(plan.sockets);
            match stalled {
                Some(stalled) => {
                    to.runs_out_of_patience().await;
                    *doors.close().await = Some(open);
                    yields(stall.map_or(0, |stall| stall.yields)).await;
                    drop(stalled);
                    // So it finds out, if it has stored what it was at.
                    let _ = from.committer().write(Write::default()).await;
                    from.committer().following().await;
                }
                None => {
                    let mut closed = doors.close().await;
                    from.committer().hand_over();
                    from.committer().following().await;
                    to.committer().hint();
                    to.committer().leading().await;
                    *closed = Some(open);
                }
            }
            world.lease_moved(stall.is_some());
        }
    }

    /// Lets all clients go on at a process that has just started, and checks everything there once more.
    pub async fn ask_a_new_one(&self, database: &PostgresDatabase, scene: &Arc<Scene>, mut rested: Vec<Follower>) {
        if scene.world.has_faults() {
            // It would have them too.
            return;
        }
        let surroundings = build::Surroundings { hashing: Hashing::cheap(), ..surroundings(&self.nodes[1].clock) };
        let app = build::app(config(&self.data[1], Some(database)), surroundings).await;
        let app = app.unwrap_or_else(|error| panic!("no process: {error}"));
        let transport = Transport::Router(router(&app, &Shutdown::new()));
        *scene.api.doors.close().await = Some(Open { transport, app: app.clone() });
        for follower in &mut rested {
            follower.settle().await;
        }
        checks::run(&End::read(scene).await, &rested).await;
        if scene.world.has_faults() {
            scene.world.fault("a process that has just started answers otherwise", "all other faults were found there");
        }
        app.db.close().await;
    }

    /// Stops both processes in order.
    pub async fn stop(self) {
        for node in self.nodes {
            node.running.stop().await;
        }
    }
}

/// Tells a process of the commits of another one, as hints between them will.
async fn tell(from: App, to: App) {
    let from = from.db.committer();
    loop {
        let seen = from.published();
        from.reached(Position(seen.0 + 1)).await;
        to.db.committer().hint();
    }
}
