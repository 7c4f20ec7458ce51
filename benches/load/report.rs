//! The results: two tables for people, one JSON file for comparing runs.

use std::path::Path;

use serde::Serialize;

use crate::{Result, meter::Cost};

/// Everything measured in one run of the command.
#[derive(Serialize)]
pub struct Report {
    /// `false` for a debug build or `--quick`, whose numbers say only that the workloads run.
    pub comparable: bool,
    pub quick: bool,
    pub release: bool,
    pub cores: usize,
    pub started_at_unix_s: u64,
    pub runs: Vec<Run>,
}

/// One database engine, or one given server.
#[derive(Serialize)]
pub struct Run {
    pub server: String,
    pub skipped: Option<String>,
    /// Median of writing 4 KiB durably to the disk that holds the database.
    pub fdatasync_p50_ms: Option<f64>,
    pub rows: Vec<Row>,
}

/// One workload, or one of its cases.
#[derive(Serialize)]
pub struct Row {
    pub workload: String,
    pub case: &'static str,
    pub goals: Vec<Goal>,
    pub cost: Option<Cost>,
    pub notes: Vec<String>,
    pub error: Option<String>,
}

/// One measured value beside what we want it to be and what the peers reach.
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
    /// A value without a target of its own, to compare with the peers or with an earlier run.
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

    /// What Synapse on SQLite, Synapse on PostgreSQL and tuwunel reach, measured on two cores.
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
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(std::fs::write(path, text)?)
    }

    pub fn print(&self) {
        for run in &self.runs {
            run.print();
        }
        let goals = || self.runs.iter().flat_map(|run| &run.rows).flat_map(|row| &row.goals);
        let (met, missed) = (goals().filter(|goal| goal.met == Some(true)), goals().filter(|goal| goal.met == Some(false)));
        println!("\n{} targets met, {} missed.", met.count(), missed.count());
        if !self.release {
            println!("This was a debug build: the numbers say only that the workloads run.");
        }
        if self.quick {
            println!("This was --quick: too small to compare.");
        }
    }
}

impl Run {
    pub fn skipped(server: &str, reason: String) -> Self {
        Self { server: server.to_owned(), skipped: Some(reason), fdatasync_p50_ms: None, rows: Vec::new() }
    }

    fn print(&self) {
        println!("\n== {} ==", self.server);
        if let Some(reason) = &self.skipped {
            println!("skipped: {reason}");
            return;
        }
        if let Some(ms) = self.fdatasync_p50_ms {
            println!("one 4 KiB write + fdatasync on this disk: {} ms (median)", number(ms));
        }
        println!();
        print_table(&self.goal_table());
        println!();
        print_table(&self.cost_table());
        for row in &self.rows {
            for note in row.notes.iter().chain(&row.error) {
                println!("{}, {}: {note}", row.workload, row.case);
            }
        }
    }

    fn goal_table(&self) -> Vec<Vec<String>> {
        let head = ["workload", "case", "measure", "measured", "target", "met", "Synapse SQLite", "Synapse PG", "tuwunel"];
        let mut table = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            if row.error.is_some() {
                table.push(vec![row.workload.clone(), row.case.to_owned(), "FAILED".to_owned()]);
            }
            for goal in &row.goals {
                let target = match goal.target {
                    Some(Target::AtLeast(bound)) => format!(">= {}", number(bound)),
                    Some(Target::AtMost(bound)) => format!("<= {}", number(bound)),
                    None => String::new(),
                };
                let met = goal.met.map_or("", |met| if met { "yes" } else { "NO" });
                table.push(vec![
                    row.workload.clone(),
                    row.case.to_owned(),
                    goal.measure.to_owned(),
                    goal.measured.map_or_else(|| "?".to_owned(), number),
                    target,
                    met.to_owned(),
                    optional(goal.synapse_sqlite),
                    optional(goal.synapse_postgres),
                    optional(goal.tuwunel),
                ]);
            }
        }
        table
    }

    fn cost_table(&self) -> Vec<Vec<String>> {
        let head = [
            "workload", "case", "operations", "per second", "p50 ms", "p99 ms", "server CPU µs", "database CPU µs",
            "generator CPU µs", "statements", "rows", "RSS MB",
        ];
        let mut table = vec![head.map(str::to_owned).to_vec()];
        for row in &self.rows {
            let Some(cost) = &row.cost else { continue };
            table.push(vec![
                row.workload.clone(),
                row.case.to_owned(),
                cost.operations.to_string(),
                number(cost.per_second),
                number(cost.p50_ms),
                number(cost.p99_ms),
                optional(cost.server_cpu_us),
                optional(cost.database_cpu_us),
                number(cost.generator_cpu_us),
                optional(cost.statements),
                optional(cost.rows),
                optional(cost.rss_mb),
            ]);
        }
        table
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

/// Three significant digits, or all of a whole number.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.decimals$}") }
}

/// Names to the left, numbers to the right, each column as wide as its widest cell.
fn print_table(table: &[Vec<String>]) {
    const NAMES: usize = 3;
    let columns = table.first().map_or(0, Vec::len);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| table.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0))
        .collect();
    for row in table {
        let cells = widths.iter().enumerate().map(|(column, &width)| {
            let text = cell(row, column);
            if column < NAMES { format!("{text:<width$}") } else { format!("{text:>width$}") }
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
