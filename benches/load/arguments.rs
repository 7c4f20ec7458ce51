//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::workloads::Workload;

/// Measures a Matrix homeserver over HTTP and compares the results with their targets.
#[derive(Parser)]
#[command(name = "cargo bench --bench load --")]
pub struct Arguments {
    /// Database to measure.
    #[arg(long, value_enum, default_value_t = EngineChoice::Both)]
    pub engine: EngineChoice,
    /// Run only this workload; may be repeated.
    #[arg(long, value_enum)]
    pub only: Vec<Workload>,
    /// Run a tenth of the size: to see that it works, not to compare.
    #[arg(long)]
    pub quick: bool,
    /// Fill the database to a million events before the cold start.
    #[arg(long)]
    pub long: bool,
    /// JSON file for the results [default: target/bench/load.json]
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Folder for the databases. It must be on a real disk.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Program of the server, to measure another build than this one.
    #[arg(long, conflicts_with = "url", default_value = env!("CARGO_BIN_EXE_sabha"), hide_default_value = true)]
    pub program: PathBuf,
    /// Drive this running server instead of starting one. It must allow registration without limits.
    #[arg(long)]
    pub url: Option<String>,
    /// Process of the server at --url, for CPU and memory.
    #[arg(long, requires = "url")]
    pub pid: Option<u32>,
    /// Address of the metrics of the server at --url, for statements and rows.
    #[arg(long, requires = "url")]
    pub metrics_url: Option<String>,
    /// Flag that cargo passes to every benchmark.
    #[arg(long, hide = true)]
    pub bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineChoice {
    Sqlite,
    Postgres,
    Both,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

impl EngineChoice {
    pub fn engines(self) -> &'static [Engine] {
        match self {
            Self::Sqlite => &[Engine::Sqlite],
            Self::Postgres => &[Engine::Postgres],
            Self::Both => &[Engine::Sqlite, Engine::Postgres],
        }
    }
}
