//! A simulation: some servers that share a room, on a network and disks that fail.
//!
//! The code under test is that of real servers: [`crate::receive`] and everything below it. The rest is here: the time
//! ([`clock`]), the network ([`net`]), the disks ([`store`]), chance ([`rand`]), users ([`users`]), and a member whose server
//! breaks the rules ([`rogue`]). Everything follows from a seed, so a run can be repeated; the [`trace`] shows that it was.
//!
//! A simulation has three parts ([`run`](mod@run)). The room begins, and everybody joins. Then users send messages, change
//! power levels, and ban each other on all servers at once, while messages are late and lost, the network is divided, and
//! servers die ([`faults`]). Then everything heals, and [`check`] looks whether the servers agree with each other and with
//! the [`truth`], which is computed from the events alone.
//!
//! [`bugs`] are planted, so that a test shows that they are found. [`pull`] and [`push`] stand for the fetching of missing
//! events and for the sender, which do not exist yet.
//!
//! - `SABHA_SEEDS=5000 cargo test -p sabha-federation sim` runs this many seeds.
//! - `SABHA_SEED=17 cargo test -p sabha-federation replay -- --nocapture` runs this seed and prints each step.

mod bugs;
mod check;
mod clock;
mod faults;
mod net;
mod pull;
mod push;
mod rand;
mod rogue;
mod run;
mod server;
mod signatures;
mod stage;
mod store;
mod trace;
mod truth;
mod users;

use self::{
    bugs::Bug,
    run::{Failure, Options, Report, run},
    stage::Counts,
};

/// The number of seeds without `SABHA_SEEDS`.
const SEEDS: u64 = 100;

/// The number of seeds within which a planted bug must be found.
const SEEDS_TO_FIND: u64 = 60;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

/// Runs a seed that must end well.
fn run_well(seed: u64, options: Options) -> Report {
    run(seed, options).unwrap_or_else(|Failure { violation, trace }| {
        panic!("{trace}{}\nSABHA_SEED={seed} cargo test -p sabha-federation replay -- --nocapture", violation.0)
    })
}

#[test]
fn servers_agree_when_everything_has_healed() {
    let seeds = number("SABHA_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let counts = std::thread::scope(|scope| {
        let every = |first| {
            move || {
                let mut counts = Counts::default();
                for seed in (first as u64..seeds).step_by(threads) {
                    counts.add(&run_well(seed, Options::default()).counts);
                }
                counts
            }
        };
        let threads: Vec<_> = (0..threads).map(|first| scope.spawn(every(first))).collect();
        let mut counts = Counts::default();
        threads.into_iter().for_each(|thread| counts.add(&thread.join().expect("the seeds ended well")));
        counts
    });
    println!("{counts:?}");
    // Otherwise the seeds would only show that nothing goes wrong where nothing happens.
    assert!(counts.least() as u64 >= seeds / 20, "{counts:?}");
}

#[test]
fn replay() {
    if let Some(seed) = number("SABHA_SEED") {
        println!("{:?}", run_well(seed, Options { is_loud: true, bug: None }));
    }
}

#[test]
fn a_seed_takes_the_same_steps_each_time() {
    let runs = [0, 1, 0, 1].map(|seed| run_well(seed, Options::default()));
    assert_eq!(runs[..2], runs[2..]);
    assert_ne!(runs[0].trace, runs[1].trace);
}

#[test]
fn planted_bugs_are_found() {
    for bug in Bug::ALL {
        let options = Options { bug: Some(bug), is_loud: false };
        let mut violations = (0..SEEDS_TO_FIND).filter_map(|seed| run(seed, options).err());
        let is_found = violations.any(|Failure { violation, .. }| violation.0.contains(bug.found_as()));
        assert!(is_found, "{bug:?} was not found");
    }
}
