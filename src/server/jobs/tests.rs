//! The runner in a process that loses the lease and takes it again.

use super::*;
use crate::{
    jobs::NewJobs,
    room::tests::shared_server,
    store::{
        Conn, Position, Transaction, Write,
        committer::insert_rows,
        log::{Consumer as _, Touch},
        tests::take_lease_away,
    },
};

/// The time limit for what a test waits for, far more than it takes.
const LIMIT: Duration = Duration::from_secs(60);

/// The number of times that the lease is lost: a mistake in the order of two events shows once in two times.
const LOSSES: usize = 8;

#[tokio::test]
async fn a_job_that_another_process_has_left_is_done_when_this_one_leads_again() {
    tokio::time::timeout(LIMIT, leave_a_job()).await.expect("it is done");
}

async fn leave_a_job() {
    let Some(first) = shared_server().await else { return };
    let alice = first.register("alice").await;
    let app = &first.app;
    let runner = spawn(app);
    app.jobs.settled().await;
    let second = first.another().await;
    app.db.committer().hand_over();
    app.db.committer().following().await;
    second.db.committer().hint();
    second.db.committer().leading().await;
    // It stores a job, passes it in the log, and does not get to do it.
    let task = Task::ShowProfile(alice.user.nid);
    let asked =
        second.db.committer().submit::<Error>(1, |pos| Ok(Write::new(vec![task.row(pos)]).touching(Touch::Job)));
    let asked = asked.expect("it leads").wait().await.expect("it leads");
    let passing = cursor(&second);
    let passed = async {
        second.db.cursors().reached(NewJobs::NAME, asked).await;
        second.db.cursors().store(&second.db).await.expect("it leads");
        second.stopping.cancel();
    };
    tokio::join!(passing.run(&second.stopping), passed);
    second.db.committer().hand_over();
    second.db.committer().following().await;
    app.db.committer().hint();
    app.db.committer().leading().await;
    app.jobs.settled().await;
    assert_eq!(jobs_of(app).await, []);
    app.stopping.cancel();
    runner.await.expect("it stops");
    second.db.close().await;
}

/// Asks for a task, and takes the lease away with the same commit: the next one fails.
struct AskAndTakeAway(Task);

impl Transaction for AskAndTakeAway {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, pos: Position) -> Result<(), Error> {
        conn.touch(Touch::Job);
        insert_rows(conn, &[self.0.row(pos)]).await?;
        take_lease_away(conn).await
    }
}

#[tokio::test]
async fn a_job_that_runs_when_the_lease_is_lost_is_done_as_soon_as_it_is_back() {
    let Some(server) = shared_server().await else { return };
    let alice = server.register("alice").await;
    let app = &server.app;
    let runner = spawn(app);
    for _ in 0..LOSSES {
        let term = app.db.term();
        let task = Task::ShowProfile(alice.user.nid);
        app.db.committer().transact(AskAndTakeAway(task)).await.expect("it still leads");
        // The job fails now, because it cannot be noted as done. Only the pause after a failure takes so long.
        let done = tokio::time::timeout(TRY_AGAIN_AFTER / 2, app.jobs.settled());
        done.await.expect("it is not put off");
        assert_ne!(app.db.term(), term);
        assert_eq!(jobs_of(app).await, []);
    }
    app.stopping.cancel();
    runner.await.expect("it stops");
}

fn spawn(app: &App) -> tokio::task::JoinHandle<()> {
    let (app, cursor) = (app.clone(), cursor(app));
    tokio::spawn(async move { run(&app, cursor).await })
}

async fn jobs_of(app: &App) -> Vec<Job> {
    let mut reader = app.db.read().await.expect("a reader");
    list_jobs(&mut reader.conn(), 1).await.expect("read")
}
