//! Jobs: work that a request promises and that is done after its answer, such as showing a new name in thousands of
//! rooms.
//!
//! Promise: a job is a row that is committed together with the change that asks for it, and deleted when the job is
//! done. It survives a restart, runs again when it is asked for while it runs, and is retried when it fails. So every
//! kind of job must be safe to run twice, and must read the current state when it runs.
//!
//! [`Jobs::ask`] is called after the commit of such a row. If a call is lost, the job waits for the next call or the
//! next start. `server::jobs` runs them. A new kind of job is a variant of [`Task`](crate::store::jobs::Task) and a line
//! in `perform` there.

use tokio::sync::watch;

/// The handle with which other code asks for jobs.
pub struct Jobs {
    /// The number of asks so far.
    asked: watch::Sender<u64>,
    /// The number of asks after which no job was left.
    settled: watch::Sender<u64>,
}

impl Default for Jobs {
    fn default() -> Self {
        // The start counts as an ask, for the jobs that the last run left.
        Self { asked: watch::Sender::new(1), settled: watch::Sender::new(0) }
    }
}

impl Jobs {
    /// Asks for the jobs whose rows were just committed.
    pub fn ask(&self) {
        self.asked.send_modify(|asked| *asked += 1);
    }

    /// The number of asks so far, and its changes.
    pub fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Notes that no job was left after so many asks.
    pub fn settle(&self, upto: u64) {
        self.settled.send_replace(upto);
    }

    /// Waits until all jobs are done that were asked for before.
    pub async fn settled(&self) {
        let asked = *self.asked.borrow();
        let mut settled = self.settled.subscribe();
        // The sender is in `self`, so the wait ends only when the jobs are done.
        let _ = settled.wait_for(|settled| *settled >= asked).await;
    }
}
