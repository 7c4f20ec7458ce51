//! The results as two tables: first the values with their targets and those of other servers, then the costs.

use crate::report::{Report, Run, Target};

impl Report {
    pub fn print(&self) {
        for run in &self.runs {
            run.print();
        }
        let goals = || self.runs.iter().flat_map(|run| &run.rows).flat_map(|row| &row.goals);
        let (met, missed) =
            (goals().filter(|goal| goal.met == Some(true)), goals().filter(|goal| goal.met == Some(false)));
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
    fn print(&self) {
        println!("\n== {} ==", self.server);
        if let Some(reason) = &self.skipped {
            println!("skipped: {reason}");
            return;
        }
        if let Some(error) = &self.error {
            println!("FAILED: {error}");
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
        let head =
            ["workload", "case", "measure", "measured", "target", "met", "Synapse SQLite", "Synapse PG", "tuwunel"];
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
            "workload",
            "case",
            "operations",
            "per second",
            "p50 ms",
            "p99 ms",
            "server CPU µs",
            "database CPU µs",
            "generator CPU µs",
            "statements",
            "rows",
            "RSS MB",
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

/// Formats three significant digits, or all digits of a whole number.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.decimals$}") }
}

/// Prints names to the left and numbers to the right, each column as wide as its widest cell.
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
