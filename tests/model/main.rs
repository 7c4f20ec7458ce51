//! The model test: many clients write at once while others follow with `/sync`, and at the end everyone must know what
//! really happened.
//!
//! A seed decides what is done ([`plan`]), who follows in which way ([`followers`]), which connections break and how long
//! the committer's steps are delayed ([`delays`]), and when rooms leave memory ([`sweeper`]). [`stage`] runs a seed, [`world`] keeps what was acknowledged, [`truth`]
//! says who may see what, and [`checks`] compares. A fault names the command that replays its seed.
//!
//! - `SABHA_MODEL_SEEDS=5000` runs so many seeds for each engine; CI runs 300, and without it there are a few dozen.
//! - `SABHA_MODEL_SEED=17` runs this one alone, and `SABHA_MODEL_ENGINE=postgres` on this engine alone.

mod api;
mod checks;
mod clients;
mod delays;
mod followers;
mod plan;
#[path = "../api/harness/postgres.rs"]
mod postgres;
mod stage;
mod sweeper;
mod truth;
mod world;

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use stage::{Counts, Engine, Outcome, Stage};
use tokio::runtime::{Builder, Runtime};
use world::{Fault, lock};

/// Without `SABHA_MODEL_SEEDS`.
const DEFAULT_SEEDS: u64 = 32;

/// Seeds that share a server, each with users and rooms of its own: starting one takes as long as a seed.
const SEEDS_PER_SERVER: u64 = 8;

/// Faults of one kind in a seed that are printed; the first ones say the most.
const PRINTED_FAULTS: usize = 2;

/// The length of a fault's text: a long one holds a whole answer.
const PRINTED_LENGTH: usize = 2_000;

/// Failing seeds of which the faults are printed.
const PRINTED_SEEDS: usize = 8;

#[test]
fn everyone_ends_up_knowing_what_happened_on_sqlite() {
    run(Engine::Sqlite, "sqlite");
}

#[test]
fn everyone_ends_up_knowing_what_happened_on_postgres() {
    run(Engine::Postgres, "postgres");
}

/// The seeds of a run: so many from the first on.
struct Seeds {
    first: u64,
    count: u64,
}

impl Seeds {
    fn from_environment() -> Self {
        match number("SABHA_MODEL_SEED") {
            Some(first) => Self { first, count: 1 },
            // Others each time, in whole groups of a server.
            None => Self {
                first: u64::from(rand::random::<u16>()) * SEEDS_PER_SERVER,
                count: number("SABHA_MODEL_SEEDS").unwrap_or(DEFAULT_SEEDS),
            },
        }
    }
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
    let seeds = Seeds::from_environment();
    println!("the model test on {name}: {} seeds from {} on", seeds.count, seeds.first);
    let began = Instant::now();
    let report =
        Report { engine: name, failed: Mutex::default(), counts: Mutex::default(), skipped: AtomicBool::new(false) };
    let next_group = AtomicU64::new(0);
    // Both engines run at once, and mostly on one thread each.
    let lanes = (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1);
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| lane(engine, &seeds, &next_group, &report));
        }
    });
    report.conclude(seeds.count, began);
}

/// Takes one group of seeds after the other.
fn lane(engine: Engine, seeds: &Seeds, next_group: &AtomicU64, report: &Report) {
    loop {
        let from = next_group.fetch_add(1, Ordering::Relaxed) * SEEDS_PER_SERVER;
        if from >= seeds.count {
            return;
        }
        let group = seeds.first + from..seeds.first + (from + SEEDS_PER_SERVER).min(seeds.count);
        runtime(group.start).block_on(async {
            let Some(stage) = Stage::start(engine).await else {
                report.skip();
                return;
            };
            for seed in group {
                report.add(seed, stage.run(seed).await);
            }
            stage.stop().await;
        });
    }
}

/// A current-thread runtime, on which a seed replays best; for some groups one with threads, where more is possible.
fn runtime(seed: u64) -> Runtime {
    let mut builder = match seed / SEEDS_PER_SERVER % 4 {
        3 => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

/// The faults, by seed.
struct Report {
    engine: &'static str,
    failed: Mutex<BTreeMap<u64, Vec<Fault>>>,
    counts: Mutex<Counts>,
    skipped: AtomicBool,
}

impl Report {
    /// The engine is not installed.
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
        failed.insert(seed, faults);
    }

    fn conclude(self, seeds: u64, began: Instant) {
        if self.skipped.load(Ordering::Relaxed) {
            println!("skipped: {} is not installed", self.engine);
            return;
        }
        let Counts { acknowledged, refused, unknown, answers } = *lock(&self.counts);
        println!("{}: {seeds} seeds in {:.1?}", self.engine, began.elapsed());
        println!("acts: {acknowledged} acknowledged, {refused} refused, {unknown} cut off; {answers} answers to syncs");
        let failed = lock(&self.failed);
        let mut kinds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (seed, faults) in failed.iter() {
            for fault in faults {
                let seeds = kinds.entry(fault.kind).or_default();
                if seeds.last() != Some(seed) {
                    seeds.push(*seed);
                }
            }
        }
        for (kind, seeds) in &kinds {
            println!("{kind}: {} seeds, such as {:?}", seeds.len(), &seeds[..seeds.len().min(6)]);
        }
        assert!(failed.is_empty(), "{} of {seeds} seeds failed on {}", failed.len(), self.engine);
    }
}
