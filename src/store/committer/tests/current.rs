//! The time for which a process takes what it has in memory for current.

use std::time::Duration;

use tokio::sync::Notify;

use super::*;
use crate::store::committer::{LOCK_KEY, lock_query};

/// Longer than any test takes: a process asks only when somebody waits.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The start of another process does this, once the lock is lost.
const TAKE_OVER: &str = "UPDATE writer_slot SET epoch = epoch + 1, holder = 1";

/// A process that is alone on PostgreSQL, and its clock. `None` where PostgreSQL is not installed.
async fn alone(patience: Patience) -> Option<(Opened, Clock)> {
    let database = PostgresDatabase::create().await?;
    let (url, clock) = (database.url.clone(), Clock::manual(0));
    let incarnation = rand::random_range(1..i64::MAX);
    let options = DatabaseOptions { incarnation, clock: clock.clone(), patience, ..options(&url) };
    let db = Database::open(options).await.expect("it can be opened");
    let dir = tempfile::tempdir().expect("a temporary directory");
    Some((Opened { db, url, _dir: dir, _postgres: Some(database) }, clock))
}

fn patience() -> Patience {
    Patience { beat: NEVER, ..Patience::default() }
}

#[tokio::test]
async fn an_answer_of_the_database_counts_for_a_while() {
    let Some((opened, clock)) = alone(patience()).await else { return };
    let (committer, silence) = (opened.db.committer(), patience().silence);
    assert!(!committer.is_current(), "nobody has asked since the start");
    for _ in 0..2 {
        committer.current().await.expect("the database answers");
        clock.advance(silence - Duration::from_millis(1));
        assert!(committer.is_current());
        clock.advance(Duration::from_millis(1));
        assert!(!committer.is_current());
    }
    opened.submit(vec![row(1)]).wait().await.expect("it leads");
    assert!(committer.is_current(), "a commit is an answer too");
    assert_eq!(committer.health(), Health::Working);
}

#[tokio::test]
async fn nobody_takes_a_file_over() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", dir.path().join("sabha.db").display());
    let clock = Clock::manual(0);
    let db = Database::open(DatabaseOptions { clock: clock.clone(), ..options(&url) }).await.expect("a new database");
    for _ in 0..2 {
        assert!(db.committer().is_current());
        db.committer().current().await.expect("it is");
        clock.advance(NEVER);
    }
}

#[tokio::test]
async fn a_process_that_was_replaced_while_it_slept_finds_out_before_it_is_current() {
    let Some((opened, clock)) = alone(patience()).await else { return };
    let committer = opened.db.committer();
    committer.current().await.expect("the database answers");
    opened.execute(TAKE_OVER).await;
    clock.advance(patience().silence);
    assert!(!committer.is_current());
    assert!(matches!(committer.current().await, Err(Error::Stopping)));
    assert_eq!(committer.ended().await, Ended::Fenced);
    assert!(!committer.is_current());
}

#[tokio::test]
async fn a_process_without_work_notices_that_it_was_replaced() {
    let Some((opened, _clock)) = alone(Patience { beat: Duration::from_millis(20), ..patience() }).await else {
        return;
    };
    let committer = opened.db.committer();
    committer.current().await.expect("the database answers");
    opened.execute(TAKE_OVER).await;
    assert_eq!(committer.ended().await, Ended::Fenced);
    assert!(!committer.is_current(), "its clock stands still, and it knows all the same");
}

#[tokio::test]
async fn a_database_that_does_not_answer_confirms_nothing() {
    let notice = Duration::from_millis(1);
    let Some((opened, clock)) = alone(Patience { notice, ..patience() }).await else { return };
    let [held, go_on] = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let in_hook = [Arc::clone(&held), Arc::clone(&go_on)];
    let committer = opened.db.committer();
    committer.on_step(Arc::new(move |step| {
        let [held, go_on] = in_hook.clone();
        Box::pin(async move {
            if step == CommitStep::Taken {
                held.notify_one();
                go_on.notified().await;
            }
        })
    }));
    let stored = opened.submit(vec![row(1)]);
    held.notified().await;
    clock.advance(patience().silence);
    assert!(matches!(committer.current().await, Err(Error::Waiting)));
    go_on.notify_one();
    stored.wait().await.expect("it leads");
    assert!(committer.is_current());
}

#[tokio::test]
async fn a_process_without_work_regains_its_connection_and_keeps_others_away_again() {
    let Some((opened, clock)) = alone(patience()).await else { return };
    let committer = opened.db.committer();
    // A restart of PostgreSQL does the same.
    opened
        .execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    // The second answer comes over the new connection.
    for _ in 0..2 {
        committer.current().await.expect("the database answers");
        clock.advance(patience().silence);
    }
    let mut other = PgConnection::connect(&opened.url).await.expect("it is there");
    let lock = sqlx::query_as(lock_query(Role::Lead)).bind(LOCK_KEY);
    let (locked,): (bool,) = lock.fetch_one(&mut other).await.expect("it runs");
    assert!(!locked);
    opened.submit(vec![row(1)]).wait().await.expect("it leads");
}
