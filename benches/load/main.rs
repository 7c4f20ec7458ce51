//! The load benchmark: `cargo bench --bench load`.
//!
//! Starts the release binary on a new database, drives it over HTTP from the same cores, and compares the results with
//! the targets and with other servers. `benches/README.md` explains each row. Read on in [`workloads`]; their common
//! state is in [`bench`].

mod arguments;
mod bench;
mod client;
mod disk;
mod drive;
mod http;
mod meter;
mod postgres;
mod process;
mod report;
mod server;
mod subject;
mod table;
mod workloads;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Parser as _, ValueEnum as _};

use crate::{
    arguments::Arguments,
    bench::Bench,
    disk::LogFile,
    report::{Report, Row, Run},
    subject::Subject,
    workloads::Workload,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // `cargo test --all-targets` runs this program without an argument, and must not start a benchmark.
    if std::env::args().len() == 1 {
        println!("Nothing measured. Run: cargo bench --bench load");
        return ExitCode::SUCCESS;
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    process::raise_file_limit()?;
    // One thread is enough for the load, and leaves the other cores to the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = tokio::task::LocalSet::new().block_on(&runtime, measure(arguments))?;
    report.print();
    let path = arguments.json.clone().unwrap_or_else(default_json);
    report.write(&path)?;
    println!("Written to {}.", path.display());
    match report.failures() {
        0 => Ok(()),
        failures => Err(format!("{failures} measurements failed").into()),
    }
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    #[expect(clippy::disallowed_methods, reason = "a benchmark has no clock of the server's to ask")]
    let started_at_unix_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let release = !cfg!(debug_assertions);
    let mut report = Report {
        comparable: release && !arguments.quick,
        quick: arguments.quick,
        release,
        cores: std::thread::available_parallelism()?.get(),
        started_at_unix_s,
        runs: Vec::new(),
    };
    if let Some(url) = &arguments.url {
        let subject = Subject::running(url, arguments)?;
        let mut run = Run::new("given server");
        measure_one(subject, arguments, started_at_unix_s, &mut run).await?;
        report.runs.push(run);
        return Ok(report);
    }
    for &engine in arguments.engine.engines() {
        let mut run = Run::new(engine.name());
        // If one engine fails, the other is still measured.
        match Subject::start(engine, arguments).await {
            Ok(Ok(subject)) => {
                if let Err(error) = measure_one(subject, arguments, started_at_unix_s, &mut run).await {
                    run.error = Some(error.to_string());
                }
            }
            Ok(Err(skipped)) => run.skipped = Some(skipped.0),
            Err(error) => run.error = Some(error.to_string()),
        }
        report.runs.push(run);
    }
    Ok(report)
}

async fn measure_one(subject: Subject, arguments: &Arguments, started_at_unix_s: u64, run: &mut Run) -> Result<()> {
    let folder = subject.folder();
    if disk::is_memory(&folder)? {
        eprintln!("warning: {} lies in memory, so durable writes cost nothing; see --dir", folder.display());
    }
    run.fdatasync_p50_ms = Some(disk::sync_times(&folder, LogFile::Reused)?.percentile_ms(50.0));
    let mut bench = Bench::new(subject, arguments.quick, arguments.long, started_at_unix_s);
    for &workload in Workload::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(&workload) {
            continue;
        }
        eprintln!("{}: {}", run.server, workload.name());
        // If one workload fails, the others still run.
        let rows = workload.run(&mut bench).await.unwrap_or_else(|error| vec![Row::failed(error.to_string())]);
        run.rows.extend(rows.into_iter().map(|row| Row { workload: workload.name(), ..row }));
    }
    Ok(())
}

/// Returns the path of `bench/load.json` in the target folder.
fn default_json() -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap_or(temporary).join("bench/load.json")
}
