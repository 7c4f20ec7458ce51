//! Kills under load: everything that was answered exists, once, and nothing exists in part.
//!
//! One cycle: start, load on all lanes, SIGKILL at a random moment, start again, check. Some starts are killed as well.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinHandle;

use crate::{
    Run,
    api::Api,
    check::SyncLane,
    churn::ChurnLane,
    lanes::{DataLane, Lane, SendLane},
    process::{Data, Running},
    world::{ACCOUNTS, World},
};

/// Longest time of the load before the kill.
const LOAD_MS: u64 = 240;

/// Longest time after which a start is killed: before, during or after recovery.
const START_MS: u64 = 60;

/// Number of cycles after which the rooms are read completely.
const READ_WHOLE_EVERY: usize = 50;

/// Sending lanes for each account.
const SENDERS: usize = 2;

pub fn on_sqlite(run: Run) -> Option<String> {
    Run::block_on(async { Some(kill_often(&run, &Data::on_sqlite("power")).await) })
}

pub fn on_postgres(run: Run) -> Option<String> {
    Run::block_on(async { Some(kill_often(&run, &Data::on_postgres().await?).await) })
}

/// Kills first starts in an empty directory: a later start must still succeed.
pub fn first_starts(run: Run) -> Option<String> {
    let mut rng = run.rng();
    let directories = run.kills.div_ceil(10);
    for _ in 0..directories {
        let data = Data::on_sqlite("power");
        for _ in 0..3 {
            let starting = data.spawn();
            std::thread::sleep(Duration::from_millis(rng.random_range(0..2 * START_MS)));
            starting.kill();
        }
        let server = data.start();
        Run::block_on(async { server.api.register("alice").await });
    }
    Some(format!("{} kills of first starts", 3 * directories))
}

/// Counts of a run.
#[derive(Default)]
pub struct Counts {
    kills: usize,
    pub events: usize,
    rooms: usize,
    gaps: usize,
    recovery: Duration,
}

async fn kill_often(run: &Run, data: &Data) -> String {
    let mut rng = run.rng();
    let mut server = data.start();
    let mut load = Load::prepare(&server.api, &mut rng).await;
    let mut counts = Counts::default();
    for cycle in 1.. {
        load.run_until_killed(server, Duration::from_millis(rng.random_range(0..LOAD_MS))).await;
        counts.kills += 1;
        if rng.random_ratio(1, 4) {
            let starting = data.spawn();
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..START_MS))).await;
            starting.kill();
            counts.kills += 1;
        }
        let began = std::time::Instant::now();
        server = data.start();
        counts.recovery = counts.recovery.max(began.elapsed());
        let is_last = counts.kills >= run.kills;
        load.check(&server.api, &mut counts).await;
        if is_last || cycle % READ_WHOLE_EVERY == 0 {
            load.read_again(&server.api).await;
        }
        if is_last {
            break;
        }
    }
    let Counts { kills, events, rooms, gaps, recovery } = counts;
    format!("{kills} kills, {events} events and {rooms} rooms answered, {gaps} gaps, slowest start {recovery:.0?}")
}

/// All clients of the server.
pub struct Load {
    pub world: World,
    senders: Vec<SendLane>,
    data: Vec<DataLane>,
    churn: Vec<ChurnLane>,
    sync: Vec<SyncLane>,
}

impl Load {
    pub async fn prepare(api: &Api, rng: &mut StdRng) -> Self {
        let world = World::create(api).await;
        let mut seeded = || StdRng::seed_from_u64(rng.random());
        let (mut senders, mut data, mut churn, mut sync) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, account) in world.accounts.iter().enumerate() {
            for sender in 0..SENDERS {
                let name = format!("user{index}-{sender}");
                senders.push(SendLane::new(account, name, world.room_ids(), seeded()));
            }
            data.push(DataLane::new(account, &world.accounts[(index + 1) % ACCOUNTS], seeded()));
            churn.push(ChurnLane::new(&world, index, seeded()));
            sync.push(SyncLane::start(api, &world, account).await);
        }
        Self { world, senders, data, churn, sync }
    }

    /// Runs all clients for `time`, then kills the server.
    pub async fn run_until_killed(&mut self, server: Running, time: Duration) {
        let api = &server.api;
        let senders = spawn(std::mem::take(&mut self.senders), api);
        let data = spawn(std::mem::take(&mut self.data), api);
        let churn = spawn(std::mem::take(&mut self.churn), api);
        let sync = spawn(std::mem::take(&mut self.sync), api);
        // The moment of the kill is the point of the test, so it does not wait for anything.
        tokio::time::sleep(time).await;
        server.kill();
        self.senders = finish(senders).await;
        self.data = finish(data).await;
        self.churn = finish(churn).await;
        self.sync = finish(sync).await;
    }

    /// Compares the server with everything that it had answered.
    pub async fn check(&mut self, api: &Api, counts: &mut Counts) {
        let token = self.world.accounts[0].token.clone();
        settle(&mut self.senders, api).await;
        settle(&mut self.data, api).await;
        settle(&mut self.churn, api).await;
        counts.rooms = self.churn.iter().map(|lane| lane.whole).sum();
        let nonces: Vec<String> =
            self.senders.iter().flat_map(|lane| lane.sent.iter().map(|sent| sent.nonce.clone())).collect();
        for room in &mut self.world.rooms {
            room.read_on(api, &token).await;
            for event in &room.timeline[room.checked..] {
                let nonce = event.nonce.as_ref();
                assert!(nonce.is_some_and(|nonce| nonces.contains(nonce)), "nobody asked for {event:?}");
            }
        }
        for lane in &mut self.senders {
            counts.events += lane.compare(&self.world.rooms);
        }
        self.check_state(api, &token).await;
        for room in &mut self.world.rooms {
            room.checked = room.timeline.len();
        }
        for index in 0..ACCOUNTS {
            let neighbour = (index + 1) % ACCOUNTS;
            counts.gaps += self.sync[neighbour].catch_up(api, &self.world.rooms).await;
            assert_eq!(self.sync[neighbour].letters, self.data[index].letters, "what was sent to the device, in order");
            self.data[neighbour].count_keys(api, &self.data[index]).await;
        }
    }

    /// Compares every room, from its beginning, with all events that were ever seen in it.
    pub async fn read_again(&self, api: &Api) {
        for room in &self.world.rooms {
            room.read_again(api, &self.world.accounts[0].token).await;
        }
    }

    /// Checks that the state of a room is the last event of each kind in its timeline.
    async fn check_state(&self, api: &Api, token: &str) {
        for room in &self.world.rooms {
            let state = api.get(&format!("/rooms/{}/state", crate::api::segment(&room.room_id)), token).await;
            for event in state.as_array().expect("a list of events") {
                if event["type"] != "org.sabha.crash" {
                    continue;
                }
                let key = event["state_key"].as_str();
                let mut newest_first = room.timeline.iter().rev();
                let last = newest_first.find(|seen| seen.nonce.is_some() && seen.state_key.as_deref() == key);
                let last = last.map(|seen| seen.event_id.as_str());
                assert_eq!(event["event_id"].as_str(), last, "the state {key:?} of {}", room.room_id);
            }
        }
    }
}

fn spawn<L: Lane>(lanes: Vec<L>, api: &Api) -> Vec<JoinHandle<L>> {
    let spawn = |mut lane: L| {
        let api = api.clone();
        tokio::spawn(async move {
            lane.run(&api).await;
            lane
        })
    };
    lanes.into_iter().map(spawn).collect()
}

async fn settle<L: Lane>(lanes: &mut Vec<L>, api: &Api) {
    let settle = |mut lane: L| {
        let api = api.clone();
        tokio::spawn(async move {
            lane.settle(&api).await;
            lane
        })
    };
    *lanes = finish(std::mem::take(lanes).into_iter().map(settle).collect()).await;
}

async fn finish<L>(running: Vec<JoinHandle<L>>) -> Vec<L> {
    let mut lanes = Vec::new();
    for lane in running {
        lanes.push(lane.await.expect("the panic of this lane is above"));
    }
    lanes
}
