//! The model test: many clients write at once while others follow with `/sync`. At the end everyone must know what
//! really happened.
//!
//! A seed decides the clients' actions ([`plan`]), the followers and their ways of syncing ([`followers`]), which
//! connections break, how long the committer's steps are delayed ([`delays`]), when rooms leave memory ([`sweeper`]), when
//! a reader of the commit log stops and goes on ([`reader`]), and whether the server restarts in the middle. On PostgreSQL
//! some servers are two processes, and the seed decides when the lease moves between them ([`lease`]). [`stage`] runs a seed,
//! [`world`] records the acknowledged acts, [`truth`] decides who may see which events, and [`checks`] compares. A fault
//! report names the command that replays its seed.
//!
//! [`nodes`] runs one seed on a process that another one follows, and compares their answers after each commit.
//!
//! - `SABHA_MODEL_SEEDS=5000` runs this many seeds for each engine (32 by default, 300 in CI).
//! - `SABHA_MODEL_SEED=17` runs this seed, after those that were on its server before it.
//!   `SABHA_MODEL_ENGINE=postgres` runs it on this engine only, and `SABHA_MODEL_REPLAYS=50` this many times, each time on
//!   a new server.

mod api;
mod checks;
mod clients;
mod delays;
mod followers;
mod lease;
mod nodes;
#[path = "../api/harness/patience.rs"]
mod patience;
mod plan;
#[path = "../api/harness/postgres.rs"]
mod postgres;
mod reader;
mod running;
mod stage;
#[path = "../api/harness/steps.rs"]
mod steps;
mod sweeper;
mod truth;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use stage::{Counts, Engine, Outcome, Stage};
use tokio::runtime::{Builder, Runtime};
use world::{Fault, lock};

/// Number of seeds without `SABHA_MODEL_SEEDS`.
const DEFAULT_SEEDS: u64 = 32;

/// Number of seeds that share a server, each with its own users and rooms: a start takes as long as a seed.
const SEEDS_PER_SERVER: u64 = 8;

/// Number of printed faults of one kind in a seed; the first ones tell the most.
const PRINTED_FAULTS: usize = 2;

/// Printed length of a fault's text: a long one contains a whole answer.
const PRINTED_LENGTH: usize = 8_000;

/// Number of failing seeds whose faults are printed.
const PRINTED_SEEDS: usize = 8;

#[test]
fn everyone_ends_up_knowing_what_happened_on_sqlite() {
    run(Engine::Sqlite, "sqlite");
}

#[test]
fn everyone_ends_up_knowing_what_happened_on_postgres() {
    run(Engine::Postgres, "postgres");
}

/// Returns the seeds of a run, in groups that share a server.
fn groups() -> Vec<Range<u64>> {
    if let Some(seed) = number("SABHA_MODEL_SEED") {
        let replays = number("SABHA_MODEL_REPLAYS").unwrap_or(1);
        // Includes the earlier seeds of the same server.
        return (0..replays).map(|_| seed - seed % SEEDS_PER_SERVER..seed + 1).collect();
    }
    // Takes other seeds each time, starting with a whole group.
    let first = u64::from(rand::random::<u16>()) * SEEDS_PER_SERVER;
    let end = first + number("SABHA_MODEL_SEEDS").unwrap_or(DEFAULT_SEEDS);
    let group = |from: usize| from as u64..end.min(from as u64 + SEEDS_PER_SERVER);
    (first as usize..end as usize).step_by(SEEDS_PER_SERVER as usize).map(group).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

fn run(engine: Engine, name: &'static str) {
    if env::var("SABHA_MODEL_ENGINE").is_ok_and(|wanted| wanted != name) {
        println!("skipped: only another engine is wanted");
        return;
    }
    let groups = groups();
    let seeds: u64 = groups.iter().map(|group| group.end - group.start).sum();
    println!("the model test on {name}: {seeds} seeds from {} on", groups.first().map_or(0, |group| group.start));
    let began = Instant::now();
    let report = Report {
        engine: name,
        failed: Mutex::default(),
        counts: Mutex::default(),
        unmoved: Mutex::default(),
        skipped: AtomicBool::new(false),
    };
    let next_group = AtomicUsize::new(0);
    // Both engines run at once, mostly with one thread each.
    let lanes = (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1);
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(group) = groups.get(next_group.fetch_add(1, Ordering::Relaxed)) {
                    run_group(engine, group.clone(), &report);
                }
            });
        }
    });
    report.conclude(seeds, began);
}

/// Runs a group of seeds one after the other, on one server.
fn run_group(engine: Engine, seeds: Range<u64>, report: &Report) {
    runtime(seeds.start).block_on(async {
        let is_shared = engine == Engine::Postgres && has_two_processes(seeds.start);
        let Some(stage) = Stage::start(engine, is_shared).await else {
            report.skip();
            return;
        };
        let mut moves = 0;
        for seed in seeds.clone() {
            let outcome = stage.run(seed).await;
            moves += outcome.counts.moves.given_up + outcome.counts.moves.stalled;
            report.add(seed, outcome);
        }
        if is_shared && moves == 0 && seeds.end - seeds.start == SEEDS_PER_SERVER {
            lock(&report.unmoved).push(seeds.start);
        }
        stage.stop().await;
    });
}

/// Tells whether the group of this seed has a server of two processes: some on each kind of [`runtime`].
fn has_two_processes(seed: u64) -> bool {
    matches!(seed / SEEDS_PER_SERVER % 8, 1 | 3 | 5)
}

/// Returns a current-thread runtime, which replays a seed best. Some groups get a multi-threaded one, where more can
/// happen.
fn runtime(seed: u64) -> Runtime {
    let mut builder = match seed / SEEDS_PER_SERVER % 4 {
        3 => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

/// The results of all runs.
struct Report {
    engine: &'static str,
    failed: Mutex<Vec<(u64, Vec<Fault>)>>,
    counts: Mutex<Counts>,
    /// The first seeds of whole groups on two processes between which the lease never moved.
    unmoved: Mutex<Vec<u64>>,
    skipped: AtomicBool,
}

impl Report {
    /// Notes that the engine is not installed.
    fn skip(&self) {
        self.skipped.store(true, Ordering::Relaxed);
    }

    fn add(&self, seed: u64, Outcome { faults, counts }: Outcome) {
        {
            let mut sum = lock(&self.counts);
            sum.acknowledged += counts.acknowledged;
            sum.refused += counts.refused;
            sum.unknown += counts.unknown;
            sum.answers += counts.answers;
            sum.moves.given_up += counts.moves.given_up;
            sum.moves.stalled += counts.moves.stalled;
        }
        if faults.is_empty() {
            return;
        }
        let mut failed = lock(&self.failed);
        if failed.len() < PRINTED_SEEDS {
            println!("\nseed {seed} on {} found {} faults. Replay it with", self.engine, faults.len());
            println!("  SABHA_MODEL_SEED={seed} SABHA_MODEL_ENGINE={} cargo test --test model", self.engine);
            let mut printed: BTreeMap<&str, usize> = BTreeMap::new();
            for fault in &faults {
                let of_kind = printed.entry(fault.kind).or_default();
                *of_kind += 1;
                if *of_kind <= PRINTED_FAULTS {
                    println!("- {}: {}", fault.kind, fault.text.chars().take(PRINTED_LENGTH).collect::<String>());
                }
            }
        }
        failed.push((seed, faults));
    }

    fn conclude(self, seeds: u64, began: Instant) {
        if self.skipped.load(Ordering::Relaxed) {
            println!("skipped: {} is not installed", self.engine);
            return;
        }
        let Counts { acknowledged, refused, unknown, answers, moves } = *lock(&self.counts);
        println!("{}: {seeds} seeds in {:.1?}", self.engine, began.elapsed());
        println!("acts: {acknowledged} acknowledged, {refused} refused, {unknown} cut off; {answers} answers to syncs");
        println!(
            "moves of the lease: {} from a process that gave it up, {} from one that stalled",
            moves.given_up, moves.stalled
        );
        let failed = lock(&self.failed);
        let mut kinds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (seed, faults) in failed.iter() {
            for kind in faults.iter().map(|fault| fault.kind).collect::<BTreeSet<_>>() {
                kinds.entry(kind).or_default().push(*seed);
            }
        }
        for (kind, seeds) in &kinds {
            println!("{kind}: {} runs, such as {:?}", seeds.len(), &seeds[..seeds.len().min(6)]);
        }
        assert!(failed.is_empty(), "{} of {seeds} runs failed on {}", failed.len(), self.engine);
        let unmoved = lock(&self.unmoved);
        assert!(unmoved.is_empty(), "the lease never moved in the groups of these seeds: {unmoved:?}");
    }
}
