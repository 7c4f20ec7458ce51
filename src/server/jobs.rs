//! The runner of jobs: [`jobs`](crate::jobs) says what they are.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{Id, JoinSet},
    time::Instant,
};

use super::consumers;
use crate::{
    app::App,
    jobs::NewJobs,
    report::Report,
    store::{
        Error,
        jobs::{Done, Job, Task, list_jobs},
        log::Cursor,
    },
};

/// The number of jobs that run at the same time: one user with many rooms must not keep the others waiting.
const SIDE_BY_SIDE: usize = 4;

/// The pause before a failed job is retried: short for a user, and long enough for a database in trouble.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The place in the commit log up to which jobs were noticed.
pub fn cursor(app: &App) -> Cursor<NewJobs> {
    consumers::cursor(app, app.jobs.consumer())
}

/// Notices jobs and runs them until the server stops.
pub async fn run(app: &App, cursor: Cursor<NewJobs>) {
    let working = app.stopping.run_until_cancelled(work(app));
    tokio::join!(cursor.run(&app.stopping), working);
}

async fn work(app: &App) {
    let mut asked = app.jobs.asked();
    loop {
        app.db.committer().leading().await;
        work_in(app, app.db.term(), &mut asked).await;
    }
}

/// Runs jobs for as long as this process leads in this term. Returns when the lease is lost, even if it is back already:
/// other processes may have done jobs meanwhile, and may have left some.
async fn work_in(app: &App, term: i64, asked: &mut watch::Receiver<u64>) {
    let mut running = Running::default();
    loop {
        let upto = *asked.borrow_and_update();
        let found = running.start(app).await;
        match found {
            Ok(0) if running.tasks.is_empty() => {
                app.jobs.settle(term, upto);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %Report(&error), "jobs not looked for");
                running.next_look = Some(Instant::now() + TRY_AGAIN_AFTER);
            }
        }
        let again = running.next_look.into_iter().chain(running.paused.values().copied()).min();
        let pause = async {
            match again {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // First, because jobs that run fail when the lease is lost, and are not to be paused for that.
            () = app.db.committer().term_over(term) => return,
            Some(ended) = running.tasks.join_next_with_id() => running.ended(ended),
            // The sender is in `app`, so the channel is open and there are new jobs.
            _ = asked.changed() => {}
            () = pause => {}
        }
    }
}

#[derive(Default)]
struct Running {
    tasks: JoinSet<Result<(), Error>>,
    by_id: HashMap<Id, Task>,
    /// Failed jobs, with the time of the next try.
    paused: HashMap<Task, Instant>,
    next_look: Option<Instant>,
}

impl Running {
    /// Starts as many jobs as there is room for. Returns the number of jobs that are left, counted only up to the
    /// limit.
    async fn start(&mut self, app: &App) -> Result<usize, Error> {
        let now = Instant::now();
        self.paused.retain(|_, until| *until > now);
        self.next_look = None;
        // Running and paused jobs may come first in the list; enough others come after them.
        let limit = SIDE_BY_SIDE + self.paused.len();
        let mut reader = app.db.read().await?;
        let jobs = list_jobs(&mut reader.conn(), limit).await?;
        drop(reader);
        let busy: HashSet<Task> = self.by_id.values().copied().collect();
        for job in &jobs {
            if self.tasks.len() >= SIDE_BY_SIDE {
                break;
            }
            if !busy.contains(&job.task) && !self.paused.contains_key(&job.task) {
                let (app, job) = (app.clone(), *job);
                let handle = self.tasks.spawn(async move { perform(&app, job).await });
                self.by_id.insert(handle.id(), job.task);
            }
        }
        Ok(jobs.len())
    }

    fn ended(&mut self, ended: Result<(Id, Result<(), Error>), tokio::task::JoinError>) {
        let (id, failure) = match ended {
            Ok((id, Ok(()))) => (id, None),
            Ok((id, Err(error))) => (id, Some(Report(&error).to_string())),
            Err(panicked) => (panicked.id(), Some(panicked.to_string())),
        };
        let Some(task) = self.by_id.remove(&id) else { return };
        if let Some(error) = failure {
            tracing::warn!(?task, error, "job not done, trying again later");
            self.paused.insert(task, Instant::now() + TRY_AGAIN_AFTER);
        }
    }
}

async fn perform(app: &App, job: Job) -> Result<(), Error> {
    match job.task {
        Task::ShowProfile(user) => app.rooms.show_profile(&app.db.user_by_nid(user).await?).await?,
    }
    app.db.committer().transact(Done(job)).await
}

#[cfg(test)]
mod tests;
