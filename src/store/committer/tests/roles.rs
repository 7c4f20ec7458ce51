//! Several processes on one PostgreSQL: one writes, the others follow, and any of them takes over.

use std::pin::pin;

use ruma::user_id;
use tokio::sync::Notify;

use super::*;
use crate::store::{
    OpenError,
    log::{LogEntry, Memory, Touch},
};

/// Far shorter than any test, so that a leader notices soon that it is none any more.
const BEAT: Duration = Duration::from_millis(20);

/// A process, and what its memory was told.
struct Process {
    db: Database,
    clock: Clock,
    told: Arc<Told>,
}

/// The positions of the entries that memory took over from another process, and the positions up to which it was forgotten.
#[derive(Default)]
struct Told(Mutex<(Vec<Position>, Vec<Position>)>);

impl Memory for Told {
    fn apply(&self, _: &LogEntry) {}

    fn follow(&self, entry: &LogEntry) {
        lock(&self.0).0.push(entry.pos);
    }

    fn forget(&self, upto: Position) {
        lock(&self.0).1.push(upto);
    }
}

impl Process {
    async fn open(database: &PostgresDatabase) -> Self {
        let process = Self::open_without_following(database).await;
        process.db.follow();
        process
    }

    async fn open_without_following(database: &PostgresDatabase) -> Self {
        let clock = Clock::manual(0);
        let options = DatabaseOptions {
            role: Role::Follow,
            incarnation: rand::random_range(1..i64::MAX),
            clock: clock.clone(),
            patience: Patience { beat: BEAT, ..Patience::default() },
            ..options(&database.url)
        };
        let db = Database::open(options).await.expect("it can be opened");
        let told = Arc::new(Told::default());
        db.committer().remember(Arc::<Told>::clone(&told));
        Self { db, clock, told }
    }

    fn submit(&self, id: i64) -> Result<Committed, Error> {
        let write = Write::new(vec![row(id)]).touching(Touch::Job);
        self.db.committer().submit(1, |_| Ok(write))
    }

    /// Stores a row.
    async fn store(&self, id: i64) -> Position {
        self.submit(id).expect("it leads").wait().await.expect("it leads")
    }

    fn published(&self) -> Position {
        self.db.committer().published()
    }

    /// Waits until a commit of another process is visible here.
    async fn reaches(&self, position: Position) {
        self.db.committer().hint();
        self.db.committer().reached(position).await;
    }

    /// Waits until this process leads, because the lease was handed over.
    async fn takes_over(&self) {
        self.db.committer().hint();
        self.db.committer().leading().await;
    }

    /// Lets time pass until this process takes the leader for gone.
    async fn runs_out_of_patience(&self) {
        let mut leads = pin!(self.db.committer().leading());
        loop {
            self.clock.advance(Patience::default().silence);
            self.db.committer().hint();
            tokio::select! {
                biased;
                () = &mut leads => return,
                () = tokio::task::yield_now() => {}
            }
        }
    }

    /// Waits until this process has found out that it does not lead any more.
    async fn follows(&self) {
        self.db.committer().following().await;
    }

    /// Holds the next batch after a step. Returns what says that it is held, and what lets it go on.
    fn hold_at(&self, held_at: CommitStep) -> [Arc<Notify>; 2] {
        let [held, go_on] = [Arc::new(Notify::new()), Arc::new(Notify::new())];
        let (in_hook, is_armed) = ([Arc::clone(&held), Arc::clone(&go_on)], Mutex::new(true));
        self.db.committer().on_step(Arc::new(move |step| {
            let holds = step == held_at && std::mem::take(&mut *lock(&is_armed));
            let [held, go_on] = in_hook.clone();
            Box::pin(async move {
                if holds {
                    held.notify_one();
                    go_on.notified().await;
                }
            })
        }));
        [held, go_on]
    }

    async fn stored(&self) -> Vec<i64> {
        let mut reader = self.db.read().await.expect("it is open");
        let text = "SELECT filter_id FROM filter ORDER BY filter_id";
        let rows: Vec<(i64,)> =
            on!(&mut reader.conn(), db => sqlx::query_as(text).fetch_all(&mut **db).await).expect("it can be read");
        rows.into_iter().map(|(id,)| id).collect()
    }

    fn taken_over(&self) -> Vec<Position> {
        lock(&self.told.0).0.clone()
    }

    fn forgotten(&self) -> Vec<Position> {
        lock(&self.told.0).1.clone()
    }
}

/// The first process, which leads, and a second one that follows it. `None` where PostgreSQL is not installed.
async fn two() -> Option<(PostgresDatabase, Process, Process)> {
    let database = PostgresDatabase::create().await?;
    let (first, second) = (Process::open(&database).await, Process::open(&database).await);
    // Its term has begun by then.
    first.db.committer().write(Write::default()).await.expect("it leads");
    assert_eq!((first.db.committer().health(), second.db.committer().health()), (Health::Working, Health::Following));
    Some((database, first, second))
}

async fn execute(database: &PostgresDatabase, text: &'static str) {
    let mut conn = PgConnection::connect(&database.url).await.expect("it is there");
    sqlx::query(text).execute(&mut conn).await.expect("it runs");
}

#[tokio::test]
async fn a_file_has_one_process() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite:{}", dir.path().join("sabha.db").display());
    let options = DatabaseOptions { role: Role::Follow, ..options(&url) };
    assert!(matches!(Database::open(options).await, Err(OpenError::NotShared)));
}

#[tokio::test]
async fn a_follower_takes_over_each_commit_and_writes_nothing() {
    let Some((database, first, second)) = two().await else { return };
    assert!(matches!(second.submit(9), Err(Error::NotLeader)));
    assert!(matches!(second.db.committer().ids().event(), Err(Error::NotLeader)));
    let begun = first.published();
    let mut expected = Vec::new();
    for id in 1..=3 {
        expected.push(first.store(id).await);
    }
    // A commit that touches nothing has no entry, and its position is visible too.
    let last = first.db.committer().write(Write::new(vec![row(4)])).await.expect("it leads");
    second.reaches(last).await;
    assert_eq!(second.published(), last);
    let taken_over: Vec<_> = second.taken_over().into_iter().filter(|pos| *pos > begun).collect();
    assert_eq!((taken_over, second.forgotten()), (expected, Vec::new()));
    // A process that is to be alone is kept away, and one more that shares is not.
    let mut alone = PgConnection::connect(&database.url).await.expect("it is there");
    let (locked,): (bool,) = sqlx::query_as(super::super::lock_query(Role::Lead))
        .bind(super::super::LOCK_KEY)
        .fetch_one(&mut alone)
        .await
        .expect("it runs");
    assert!(!locked);
    let third = Process::open(&database).await;
    assert_eq!((third.published(), third.forgotten()), (last, Vec::new()));
}

#[tokio::test]
async fn a_leader_that_stops_or_is_asked_to_hands_the_lease_over() {
    let Some((_database, first, second)) = two().await else { return };
    let before = first.store(1).await;
    first.db.committer().hand_over();
    second.takes_over().await;
    // The term begins with its entry in the log, at the next position.
    let lease = Position(before.0 + 1);
    let third = second.store(2).await;
    assert_eq!(third, Position(lease.0 + 1));
    first.reaches(third).await;
    assert_eq!(first.taken_over(), [lease, third]);
    assert_eq!(first.forgotten(), [before], "a leader that steps down keeps nothing");
    let waiting = second.submit(3).expect("it leads");
    second.db.close().await;
    let last = waiting.wait().await.expect("it was queued before the stop");
    first.takes_over().await;
    assert_eq!(first.store(4).await, Position(last.0 + 2));
    assert_eq!(first.stored().await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_commit_of_a_leader_that_has_slept_fails_and_it_follows() {
    let Some((_database, first, second)) = two().await else { return };
    let before = first.store(1).await;
    let [held, go_on] = first.hold_at(CommitStep::Taken);
    let lineage = Lineage::default();
    let write = Write::new(vec![row(2)]).touching(Touch::Job).in_lineage(lineage.clone());
    let asleep = first.db.committer().submit::<Error>(1, |_| Ok(write)).expect("it leads");
    held.notified().await;
    let queued = first.submit(3).expect("it still leads");
    second.runs_out_of_patience().await;
    let last = second.store(4).await;
    go_on.notify_one();
    for refused in [asleep, queued] {
        assert!(matches!(refused.wait().await, Err(Error::NotLeader)));
    }
    assert!(lineage.is_broken());
    assert!(matches!(first.submit(5), Err(Error::NotLeader)));
    first.reaches(last).await;
    assert_eq!((first.stored().await, first.forgotten()), (vec![1, 4], vec![before]));
    // It takes over again, and goes on after what it has missed.
    second.db.committer().hand_over();
    first.takes_over().await;
    assert_eq!(first.store(6).await, Position(last.0 + 2));
}

/// A transaction that waits in its middle.
struct Slow {
    inside: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Transaction for Slow {
    type Output = ();

    async fn run(&self, _: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        self.inside.notify_one();
        self.go_on.notified().await;
        Ok(())
    }
}

/// If it could be taken from a leader in the middle of a transaction, the rows of both could be locked in two orders.
#[tokio::test]
async fn the_lease_is_not_taken_in_the_middle_of_a_transaction() {
    let Some((database, first, second)) = two().await else { return };
    let [inside, go_on] = [Arc::new(Notify::new()), Arc::new(Notify::new())];
    let slow = Slow { inside: Arc::clone(&inside), go_on: Arc::clone(&go_on) };
    let taking = async {
        inside.notified().await;
        let mut conn = PgConnection::connect(&database.url).await.expect("it is there");
        loop {
            second.clock.advance(Patience::default().silence);
            second.db.committer().hint();
            assert_eq!(second.db.committer().health(), Health::Following);
            if is_waiting_for_a_lock(&mut conn).await {
                break;
            }
        }
        go_on.notify_one();
    };
    let both = async { tokio::join!(first.db.committer().transact(slow), taking) };
    let (stored, ()) = tokio::time::timeout(LIMIT, both).await.expect("the second process waits for the slot");
    stored.expect("it began before");
    second.runs_out_of_patience().await;
    let last = second.store(1).await;
    first.follows().await;
    first.reaches(last).await;
    assert_eq!(first.stored().await, [1]);
}

#[tokio::test]
async fn a_commit_that_was_stored_before_the_takeover_is_answered_with_success() {
    let Some((_database, first, second)) = two().await else { return };
    let [held, go_on] = first.hold_at(CommitStep::Stored);
    let stored = first.submit(1).expect("it leads");
    held.notified().await;
    let queued = first.submit(2).expect("it still leads");
    second.runs_out_of_patience().await;
    let last = second.store(3).await;
    go_on.notify_one();
    stored.wait().await.expect("it is in the database");
    assert!(matches!(queued.wait().await, Err(Error::NotLeader)));
    first.reaches(last).await;
    assert_eq!(first.stored().await, [1, 3]);
}

#[tokio::test]
async fn a_leader_without_work_notices_that_it_was_replaced() {
    let Some((_database, first, second)) = two().await else { return };
    second.runs_out_of_patience().await;
    first.follows().await;
    let last = second.store(1).await;
    first.reaches(last).await;
}

#[tokio::test]
async fn a_leader_that_has_slept_is_current_only_when_it_has_read_what_it_missed() {
    let Some((_database, first, second)) = two().await else { return };
    second.runs_out_of_patience().await;
    let last = second.store(1).await;
    first.clock.advance(Patience::default().silence);
    assert!(!first.db.committer().is_current() || first.published() >= last);
    first.db.committer().current().await.expect("the database answers");
    assert!(first.db.committer().is_following() && first.published() >= last);
}

#[tokio::test]
async fn a_hole_in_the_log_is_noticed_and_everything_is_read_again() {
    for break_log in [
        "DELETE FROM commit_log WHERE pos < (SELECT pos FROM writer_slot)",
        "UPDATE commit_log SET touched = '\\x00' WHERE pos = (SELECT pos - 1 FROM writer_slot)",
        "DELETE FROM commit_log WHERE pos = (SELECT pos - 1 FROM writer_slot)",
    ] {
        let Some(database) = PostgresDatabase::create().await else { return };
        let first = Process::open(&database).await;
        first.store(0).await;
        let second = Process::open_without_following(&database).await;
        let mut last = second.published();
        for id in 1..=4 {
            last = first.store(id).await;
        }
        execute(&database, break_log).await;
        second.db.follow();
        second.reaches(last).await;
        assert_eq!(second.forgotten(), [last], "{break_log}");
        assert!(second.taken_over().iter().all(|pos| *pos < last), "{break_log}");
        // From here on it is whole.
        let next = first.store(5).await;
        second.reaches(next).await;
        assert_eq!((second.forgotten(), second.taken_over().last()), (vec![last], Some(&next)), "{break_log}");
    }
}

#[tokio::test]
async fn words_of_another_process_are_found_and_those_that_were_not_stored_are_given_up() {
    let Some((_database, first, second)) = two().await else { return };
    let user_id = user_id!("@alice:sabha.test");
    let write_of = |user: &crate::store::vocabulary::User| {
        let mut write = Write::default();
        user.write_if_new(&mut write);
        write
    };
    let never_stored = first.db.user(user_id, true).await.expect("it leads");
    assert!(second.db.find_user(user_id).await.expect("read").is_none());
    assert!(matches!(second.db.user(user_id, true).await, Err(Error::NotLeader)));
    first.db.committer().hand_over();
    second.takes_over().await;
    let stored = second.db.user(user_id, true).await.expect("it leads");
    let last = second.db.committer().write(write_of(&stored)).await.expect("it leads");
    first.reaches(last).await;
    assert_ne!(stored.nid, never_stored.nid);
    assert_eq!(first.db.find_user(user_id).await.expect("read").map(|user| user.nid), Some(stored.nid));
    second.db.committer().hand_over();
    first.takes_over().await;
    // A request from before the break still holds the word.
    let refused = first.db.committer().write(write_of(&never_stored)).await;
    assert!(matches!(refused, Err(Error::Superseded)));
    assert_eq!(first.db.user(user_id, true).await.expect("it leads").nid, stored.nid);
}

#[tokio::test]
async fn a_token_of_any_process_is_known_and_one_of_a_lost_history_is_not() {
    let Some((_database, first, second)) = two().await else { return };
    let old = (first.db.term(), first.store(1).await);
    second.reaches(old.1).await;
    assert_eq!(second.db.term(), old.0, "a term belongs to all processes");
    second.runs_out_of_patience().await;
    let new = (second.db.term(), second.store(2).await);
    // The first process has not looked at the log yet, and finds the term in the table.
    assert!(!first.db.knows(new.0, Position(new.1.0 + 1)).await.expect("read"));
    first.reaches(new.1).await;
    for process in [&first, &second] {
        let knows = async |(term, position): (i64, Position)| process.db.knows(term, position).await.expect("read");
        assert!(knows(old).await && knows(new).await);
        assert!(!knows((old.0, new.1)).await, "that term had not come so far");
        assert!(!knows((old.0 ^ new.0 ^ 1, old.1)).await, "nobody has had this term");
    }
}
