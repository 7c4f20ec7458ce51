//! The cost of an operation: time, CPU, statements, rows, memory.
//!
//! Every value is the difference of two readings, before and after the load. CPU time comes from `/proc/PID/stat` in
//! steps of 10 ms, so it is coarse for short runs.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{Result, drive::Durations, http::Connection, process, subject::Subject};

pub struct Meter {
    start: Instant,
    before: Reading,
}

struct Reading {
    server_cpu: Option<Duration>,
    database_cpu: Option<Duration>,
    generator_cpu: Duration,
    counters: Counters,
}

#[derive(Clone, Copy, Default)]
struct Counters {
    statements: Option<f64>,
    rows: Option<f64>,
}

/// Costs per operation. `None` is unknown, for example for a server that we did not start.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    pub operations: usize,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub server_cpu_us: Option<f64>,
    /// CPU of PostgreSQL's own processes. SQLite runs inside the server.
    pub database_cpu_us: Option<f64>,
    pub generator_cpu_us: f64,
    pub statements: Option<f64>,
    pub rows: Option<f64>,
    /// Resident memory of the server afterwards.
    pub rss_mb: Option<f64>,
}

impl Meter {
    pub async fn start(subject: &Subject) -> Result<Self> {
        let before = Reading::take(subject).await?;
        Ok(Self { start: Instant::now(), before })
    }

    /// Returns the cost of each operation since the start, with `durations` as their times.
    pub async fn stop(self, subject: &Subject, durations: &Durations) -> Result<Cost> {
        self.stop_counting(subject, durations, durations.count()).await
    }

    /// As [`Self::stop`], for operations that have no duration of their own, such as the events of a page.
    pub async fn stop_counting(self, subject: &Subject, durations: &Durations, operations: usize) -> Result<Cost> {
        let elapsed = self.start.elapsed();
        let (before, after) = (self.before, Reading::take(subject).await?);
        let count = operations as f64;
        let cpu_us = |before: Option<Duration>, after: Option<Duration>| {
            Some((after?.saturating_sub(before?)).as_secs_f64() * 1e6 / count)
        };
        let counted =
            |counter: fn(Counters) -> Option<f64>| Some((counter(after.counters)? - counter(before.counters)?) / count);
        Ok(Cost {
            operations,
            per_second: count / elapsed.as_secs_f64(),
            p50_ms: durations.percentile_ms(50.0),
            p99_ms: durations.percentile_ms(99.0),
            server_cpu_us: cpu_us(before.server_cpu, after.server_cpu),
            database_cpu_us: cpu_us(before.database_cpu, after.database_cpu),
            generator_cpu_us: (after.generator_cpu - before.generator_cpu).as_secs_f64() * 1e6 / count,
            statements: counted(|counters| counters.statements),
            rows: counted(|counters| counters.rows),
            rss_mb: subject.resident_mb()?,
        })
    }
}

impl Reading {
    async fn take(subject: &Subject) -> Result<Self> {
        let server_cpu = subject.server_pid().map(|pid| process::cpu_time(&[pid])).transpose()?;
        let database_cpu = match subject.database_pid() {
            Some(pid) => Some(process::cpu_time(&process::tree(pid)?)?),
            None => None,
        };
        let counters = match subject.metrics_address() {
            Some(address) => Counters::scrape(address).await?,
            None => Counters::default(),
        };
        let generator_cpu = process::cpu_time(&[std::process::id()])?;
        Ok(Self { server_cpu, database_cpu, generator_cpu, counters })
    }
}

impl Counters {
    async fn scrape(address: SocketAddr) -> Result<Self> {
        let mut connection = Connection::open(address).await?;
        let text = std::str::from_utf8(connection.exchange("GET", "/metrics", None, None).await?.ok()?)?;
        Ok(Self {
            statements: read_counter(text, "sabha_db_statements_total")?,
            rows: read_counter(text, "sabha_db_rows_written_total")?,
        })
    }
}

/// Reads a counter in the Prometheus text format. A counter that is absent is unknown, not zero: otherwise a renamed
/// counter would meet every target.
fn read_counter(text: &str, name: &str) -> Result<Option<f64>> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.map(|value| value.trim().parse()).transpose()?)
}
