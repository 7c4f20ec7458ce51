//! The crash tests: kill the real server while clients use it, start it again on the same data, and compare it with
//! every answer that it had given.
//!
//! `SABHA_CRASH_KILLS` is the number of kills for each engine (5 by default, 200 in CI). `SABHA_CRASH_SEED` repeats a
//! run's random choices, but not the server's timing. The tests do not use the usual test harness, because they run one
//! after the other and print their counts. [`kills`] is where to begin.

mod api;
mod check;
mod churn;
mod fenced;
mod full_disk;
mod kills;
mod lanes;
mod nodes;
#[path = "../api/harness/postgres.rs"]
mod postgres;
mod powerloss;
mod process;
mod world;

use std::{env, panic, process::ExitCode, time::Instant};

use rand::{SeedableRng as _, rngs::StdRng};

/// A test: its name and its function. The function returns a short text with its counts, or `None` if it was skipped.
type Test = (&'static str, fn(Run) -> Option<String>);

const TESTS: [Test; 9] = [
    ("the_first_start_may_be_killed", kills::first_starts),
    ("kills_on_sqlite", kills::on_sqlite),
    ("kills_on_postgres", kills::on_postgres),
    ("power_losses_on_sqlite", powerloss::lose_nothing),
    ("a_process_that_lost_its_database_ends_by_itself", fenced::ends_by_itself),
    ("a_process_that_slept_meanwhile_ends_without_a_write", fenced::ends_without_a_write),
    ("the_lease_moves_between_processes", nodes::the_lease_moves),
    ("a_full_disk_loses_nothing_on_sqlite", full_disk::loses_nothing),
    ("a_power_loss_shows_what_was_not_synced", powerloss::show_what_was_not_synced),
];

/// The parameters of a test.
pub struct Run {
    pub seed: u64,
    /// Number of kills, from `SABHA_CRASH_KILLS`.
    pub kills: usize,
}

impl Run {
    pub fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// Runs the test's future on a few threads.
    pub fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build().expect("a runtime").block_on(future)
    }
}

fn main() -> ExitCode {
    if let Some(node) = nodes::Node::of_this_process() {
        node.serve();
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = TESTS
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())));
    if arguments.iter().any(|argument| argument == "--list") {
        wanted.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let seed = number("SABHA_CRASH_SEED").unwrap_or_else(rand::random);
    let kills = number("SABHA_CRASH_KILLS").unwrap_or(5) as usize;
    println!("\ncrash tests: SABHA_CRASH_SEED={seed} SABHA_CRASH_KILLS={kills}");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, test) in wanted {
        let began = Instant::now();
        let outcome = match panic::catch_unwind(|| test(Run { seed, kills })) {
            Ok(Some(counted)) => {
                passed += 1;
                format!("ok ({counted})")
            }
            Ok(None) => {
                skipped += 1;
                "ignored".to_owned()
            }
            Err(_) => {
                failed += 1;
                "FAILED".to_owned()
            }
        };
        println!("test {name} ... {outcome} in {:.1?}", began.elapsed());
    }
    process::clean_up();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; {skipped} ignored\n");
    ExitCode::from(u8::from(failed > 0))
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}
