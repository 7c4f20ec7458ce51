//! Closed-loop load: a number of workers, each with one request in flight. Measures how long each request took.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::Result;

/// Durations of a number of operations, in microseconds.
#[derive(Default)]
pub struct Durations {
    sorted_us: Vec<u32>,
}

impl Durations {
    pub fn new(mut unsorted_us: Vec<u32>) -> Self {
        unsorted_us.sort_unstable();
        Self { sorted_us: unsorted_us }
    }

    pub fn count(&self) -> usize {
        self.sorted_us.len()
    }

    /// The smallest duration that `percent` of all do not exceed, in milliseconds.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        let rank = (self.sorted_us.len() as f64 * percent / 100.0).ceil() as usize;
        self.sorted_us.get(rank.saturating_sub(1)).map_or(f64::NAN, |&us| f64::from(us) / 1000.0)
    }
}

pub fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// The size of a load: it ends when either of the two bounds is reached.
#[derive(Clone, Copy)]
pub struct Amount {
    pub operations: usize,
    pub within: Duration,
}

/// Calls `operation` with the numbers from 0 on, one at a time on each of `workers`.
pub async fn drive<W, F>(workers: Vec<W>, amount: Amount, operation: F) -> Result<(Durations, Vec<W>)>
where
    W: 'static,
    F: AsyncFn(&mut W, usize) -> Result<()> + 'static,
{
    let operation = Rc::new(operation);
    let next = Rc::new(Cell::new(0));
    let until = Instant::now() + amount.within;
    let mut tasks = JoinSet::new();
    for mut worker in workers {
        let (operation, next) = (operation.clone(), next.clone());
        tasks.spawn_local(async move {
            let mut taken_us = Vec::with_capacity(1024);
            loop {
                let number = next.get();
                let start = Instant::now();
                if number >= amount.operations || start >= until {
                    return Ok::<_, Box<dyn std::error::Error>>((taken_us, worker));
                }
                next.set(number + 1);
                operation(&mut worker, number).await?;
                taken_us.push(micros(start.elapsed()));
            }
        });
    }
    let (mut all_us, mut workers) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (taken_us, worker) = done??;
        all_us.extend(taken_us);
        workers.push(worker);
    }
    Ok((Durations::new(all_us), workers))
}
