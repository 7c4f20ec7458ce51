//! The results, and the JSON file that is used to compare runs. [`crate::table`] prints them as tables.

use std::path::Path;

use serde::Serialize;

use crate::{Result, meter::Cost};

/// Everything measured in one run of the command.
#[derive(Serialize)]
pub struct Report {
    /// `false` for a debug build or `--quick`, whose numbers only show that the workloads run.
    pub comparable: bool,
    pub quick: bool,
    pub release: bool,
    pub cores: usize,
    pub started_at_unix_s: u64,
    pub runs: Vec<Run>,
}

/// The results of one database engine, or of one given server.
#[derive(Serialize)]
pub struct Run {
    pub server: String,
    /// Reason why nothing was measured, if that is not a failure.
    pub skipped: Option<String>,
    pub error: Option<String>,
    /// Median time of writing 4 KiB durably to the disk that holds the database.
    pub fdatasync_p50_ms: Option<f64>,
    pub rows: Vec<Row>,
}

/// Results of one workload, or of one of its cases.
#[derive(Serialize)]
pub struct Row {
    pub workload: String,
    pub case: &'static str,
    pub goals: Vec<Goal>,
    pub cost: Option<Cost>,
    pub notes: Vec<String>,
    pub error: Option<String>,
}

/// One measured value with its target and the values of other servers.
#[derive(Serialize)]
pub struct Goal {
    pub measure: &'static str,
    pub measured: Option<f64>,
    pub target: Option<Target>,
    pub met: Option<bool>,
    pub synapse_sqlite: Option<f64>,
    pub synapse_postgres: Option<f64>,
    pub tuwunel: Option<f64>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(bound) => measured >= bound,
            Self::AtMost(bound) => measured <= bound,
        }
    }
}

impl Goal {
    /// A value without a target, to compare with other servers or with an earlier run.
    pub fn shown(measure: &'static str, measured: impl Into<Option<f64>>) -> Self {
        let measured = measured.into();
        Self { measure, measured, target: None, met: None, synapse_sqlite: None, synapse_postgres: None, tuwunel: None }
    }

    pub fn at_least(measure: &'static str, measured: impl Into<Option<f64>>, bound: f64) -> Self {
        Self::shown(measure, measured).aim(Target::AtLeast(bound))
    }

    pub fn at_most(measure: &'static str, measured: impl Into<Option<f64>>, bound: f64) -> Self {
        Self::shown(measure, measured).aim(Target::AtMost(bound))
    }

    /// Adds the values of Synapse on SQLite, Synapse on PostgreSQL and tuwunel, measured on two cores.
    pub fn peers(mut self, synapse_sqlite: f64, synapse_postgres: f64, tuwunel: f64) -> Self {
        self.synapse_sqlite = Some(synapse_sqlite);
        self.synapse_postgres = Some(synapse_postgres);
        self.tuwunel = Some(tuwunel);
        self
    }

    pub fn tuwunel(mut self, tuwunel: f64) -> Self {
        self.tuwunel = Some(tuwunel);
        self
    }

    fn aim(mut self, target: Target) -> Self {
        self.met = self.measured.map(|measured| target.is_met(measured));
        self.target = Some(target);
        self
    }
}

impl Row {
    pub fn new(case: &'static str, goals: Vec<Goal>) -> Self {
        Self { workload: String::new(), case, goals, cost: None, notes: Vec::new(), error: None }
    }

    pub fn failed(error: String) -> Self {
        Self { error: Some(error), ..Self::new("", Vec::new()) }
    }

    pub fn cost(mut self, cost: Cost) -> Self {
        self.cost = Some(cost);
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

impl Report {
    /// Number of servers that did not start and of workloads that did not finish.
    pub fn failures(&self) -> usize {
        let rows = self.runs.iter().flat_map(|run| &run.rows);
        rows.filter(|row| row.error.is_some()).count() + self.runs.iter().filter(|run| run.error.is_some()).count()
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(std::fs::write(path, text)?)
    }
}

impl Run {
    pub fn new(server: &str) -> Self {
        Self { server: server.to_owned(), skipped: None, error: None, fdatasync_p50_ms: None, rows: Vec::new() }
    }
}
