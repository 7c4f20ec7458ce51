//! The model test: many clients write at once while others follow with `/sync`, and at the end everyone must know what
//! really happened.
//!
//! A seed decides what is done ([`plan`]), who follows in which way ([`followers`]), which connections break and how long
//! the committer's steps are delayed ([`delays`]), and when rooms leave memory ([`sweeper`]). [`stage`] runs a seed, [`world`]
//! keeps what was acknowledged, [`truth`] says who may see what, and [`checks`] compares. A fault names the command that
//! replays its seed.
//!
//! - `SABHA_MODEL_SEEDS=5000` runs so many seeds for each engine; CI runs 300, and without it there are 32.
//! - `SABHA_MODEL_SEED=17` runs this one, after those that were on its server before it; `SABHA_MODEL_ENGINE=postgres` runs it
//!   on this engine alone, and `SABHA_MODEL_REPLAYS=50` as often, each time on a new server.

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

/// Without `SABHA_MODEL_SEEDS`.
const DEFAULT_SEEDS: u64 = 32;

/// Seeds that share a server, each with users and rooms of its own: starting one takes as long as a seed.
const SEEDS_PER_SERVER: u64 = 8;

/// Faults of one kind in a seed that are printed; the first ones say the most.
const PRINTED_FAULTS: usize = 2;

/// The length of a fault's text: a long one holds a whole answer.
const PRINTED_LENGTH: usize = 8_000;

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

/// The seeds of a run, in groups that share a server.
fn groups() -> Vec<Range<u64>> {
    if let Some(seed) = number("SABHA_MODEL_SEED") {
        let replays = number("SABHA_MODEL_REPLAYS").unwrap_or(1);
        // With those that share a server with it and come before it.
        return (0..replays).map(|_| seed - seed % SEEDS_PER_SERVER..seed + 1).collect();
    }
    // Others each time, and whole groups.
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
    let report =
        Report { engine: name, failed: Mutex::default(), counts: Mutex::default(), skipped: AtomicBool::new(false) };
    let next_group = AtomicUsize::new(0);
    // Both engines run at once, and mostly on one thread each.
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

/// Runs one seed after the other on a server of their own.
fn run_group(engine: Engine, seeds: Range<u64>, report: &Report) {
    runtime(seeds.start).block_on(async {
        let Some(stage) = Stage::start(engine).await else {
            report.skip();
            return;
        };
        for seed in seeds {
            report.add(seed, stage.run(seed).await);
        }
        stage.stop().await;
    });
}

/// A current-thread runtime, on which a seed replays best; for some groups one with threads, where more is possible.
fn runtime(seed: u64) -> Runtime {
    let mut builder = match seed / SEEDS_PER_SERVER % 4 {
        3 => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

/// The runs with faults.
struct Report {
    engine: &'static str,
    failed: Mutex<Vec<(u64, Vec<Fault>)>>,
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
        failed.push((seed, faults));
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
            for kind in faults.iter().map(|fault| fault.kind).collect::<BTreeSet<_>>() {
                kinds.entry(kind).or_default().push(*seed);
            }
        }
        for (kind, seeds) in &kinds {
            println!("{kind}: {} runs, such as {:?}", seeds.len(), &seeds[..seeds.len().min(6)]);
        }
        assert!(failed.is_empty(), "{} of {seeds} runs failed on {}", failed.len(), self.engine);
    }
}
