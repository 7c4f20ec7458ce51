//! Jobs: work that a request promises and that is done after its answer, such as showing a new name in thousands of
//! rooms.
//!
//! Promise: a job is a row that is committed together with the change that asks for it, and deleted when the job is
//! done. It survives a restart, runs again when it is asked for while it runs, and is retried when it fails. So every
//! kind of job must be safe to run twice, and must read the current state when it runs.
//!
//! The row is enough: its commit touches [`Touch::Job`], and [`NewJobs`] follows the commit log and wakes the runner,
//! `server::jobs`. A new kind of job is a variant of [`Task`](crate::store::jobs::Task) and a line in `perform` there.

use std::sync::Arc;

use tokio::sync::watch;

use crate::store::{
    Database, Error, Position,
    log::{Consumer, LogEntry, Touch},
};

/// The jobs that were asked for and those that are done, in numbers.
pub struct Jobs {
    db: Arc<Database>,
    /// The number of times that the runner was woken.
    asked: watch::Sender<u64>,
    /// The term in which no job was left, and the number of times that the runner was woken before it looked.
    settled: watch::Sender<Option<(i64, u64)>>,
}

impl Jobs {
    pub fn new(db: Arc<Database>) -> Self {
        // The start counts as one time, for the jobs that the last run left.
        Self { db, asked: watch::Sender::new(1), settled: watch::Sender::new(None) }
    }

    /// The follower of the commit log that wakes the runner.
    pub fn consumer(&self) -> NewJobs {
        NewJobs { asked: self.asked.clone() }
    }

    /// The number of times that the runner was woken, and its changes.
    pub fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Notes that no job was left after the runner was woken so many times, as it saw them in this term.
    pub fn settle(&self, term: i64, upto: u64) {
        self.settled.send_replace(Some((term, upto)));
    }

    /// Waits until all jobs are done that were committed before. Only in the process that leads: another one may leave jobs.
    pub async fn settled(&self) {
        let latest = self.db.committer().feed().latest();
        self.db.cursors().reached(NewJobs::NAME, latest).await;
        let asked = *self.asked.borrow();
        let mut settled = self.settled.subscribe();
        // A look in an earlier term says nothing of the jobs that another process has left since.
        let are_done = |(term, upto)| term == self.db.term() && upto >= asked;
        // The sender is in `self`, so the wait ends only when the jobs are done.
        let _ = settled.wait_for(|settled| settled.is_some_and(are_done)).await;
    }
}

/// Wakes the runner for the jobs of each commit. It does not wait for them: their rows stay until they are done.
pub struct NewJobs {
    asked: watch::Sender<u64>,
}

impl NewJobs {
    fn wake(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }
}

impl Consumer for NewJobs {
    const NAME: &'static str = "jobs";
    type Work = ();

    fn concerns(touch: &Touch) -> bool {
        matches!(touch, Touch::Job)
    }

    fn work(&self, _: &LogEntry) -> Option<()> {
        Some(())
    }

    async fn perform(&self, _: Vec<()>) -> Result<(), Error> {
        self.wake();
        Ok(())
    }

    async fn catch_up(&self, _: Position, _: Position) -> Result<(), Error> {
        self.wake();
        Ok(())
    }
}
