//! Rows of jobs: work that was promised in a commit and is done after it.

use super::{
    Conn, Error, Position, Row, Transaction, UserNid, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    LIST_JOBS = "SELECT kind, subject, pos FROM job ORDER BY pos, kind, subject LIMIT $1";
    DELETE_JOB = "DELETE FROM job WHERE kind = $1 AND subject = $2 AND pos = $3";
}

inserts! {
    JOB: JobColumns = "job" (kind: Text, subject: i64, pos: Position) key 2 Replace, followed by Job;
}

/// A kind of work, and its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Showing a user's profile in the rooms that they are joined to.
    ShowProfile(UserNid),
}

/// A task, and the position where it was last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    pub task: Task,
    pub pos: Position,
}

impl Task {
    /// The row that asks for the task, for the commit at `pos`. A task that is asked for again while it runs will run
    /// again.
    pub(crate) fn row(self, pos: Position) -> Row {
        let (kind, subject) = self.columns();
        JobColumns { kind: kind.into(), subject, pos }.row()
    }

    fn columns(self) -> (&'static str, i64) {
        match self {
            Self::ShowProfile(user) => ("show_profile", user.0),
        }
    }

    fn from_columns(kind: &str, subject: i64) -> Result<Self, Error> {
        match kind {
            "show_profile" => Ok(Self::ShowProfile(UserNid(subject))),
            _ => Err(Error::damaged("job", format!("there is no kind {kind:?}"))),
        }
    }
}

/// The `limit` jobs that were asked for first.
pub(crate) async fn list_jobs(conn: &mut Conn<'_>, limit: usize) -> Result<Vec<Job>, Error> {
    let rows: Vec<(String, i64, i64)> =
        on!(conn, db => sqlx::query_as(LIST_JOBS.text()).bind(limit as i64).fetch_all(&mut **db).await)?;
    let job = |(kind, subject, pos): (String, i64, i64)| {
        Ok(Job { task: Task::from_columns(&kind, subject)?, pos: Position(pos) })
    };
    rows.into_iter().map(job).collect()
}

/// Deletes a job that was done, unless it was asked for again meanwhile.
pub(crate) struct Done(pub(crate) Job);

impl Transaction for Done {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        let (kind, subject) = self.0.task.columns();
        Ok(on!(conn, db => sqlx::query(DELETE_JOB.text())
            .bind(kind).bind(subject).bind(self.0.pos.0).execute(&mut **db).await.map(drop))?)
    }
}
