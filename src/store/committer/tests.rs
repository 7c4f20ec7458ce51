//! Commits in which something fails, on both engines where both can fail so.

use std::sync::{Arc, Mutex};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use super::{CommitStep, Committed, Ended, Health, Lineage, MAX_QUEUE, Patience, Role, Transaction, Write};
use crate::{
    clock::Clock,
    store::{
        Conn, Database, DatabaseOptions, Durability, Error, FilterNid, Position, Row, UserNid, conn::on,
        filters::FilterColumns, ids::lock, tests::postgres::PostgresDatabase,
    },
};

mod log;
mod memory;
mod pieces;
mod roles;

/// An open database, with the directory or the PostgreSQL database that holds it.
struct Opened {
    db: Database,
    url: String,
    _dir: tempfile::TempDir,
    _postgres: Option<PostgresDatabase>,
}

impl Opened {
    async fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite:{}", dir.path().join("sabha.db").display());
        Self { db: open(&url).await, url, _dir: dir, _postgres: None }
    }

    async fn both() -> Vec<Self> {
        let mut both = vec![Self::sqlite().await];
        if let Some(database) = PostgresDatabase::create().await {
            let (url, dir) = (database.url.clone(), tempfile::tempdir().expect("a temporary directory"));
            both.push(Self { db: open(&url).await, url, _dir: dir, _postgres: Some(database) });
        }
        both
    }

    /// Drops the database, and opens it as the next process would.
    async fn reopen(self) -> Self {
        let Self { db, url, _dir, _postgres } = self;
        drop(db);
        Self { db: open(&url).await, url, _dir, _postgres }
    }

    /// Queues a write of these rows.
    fn submit(&self, rows: Vec<Row>) -> Committed {
        self.db.committer().submit::<Error>(1, |_| Ok(Write::new(rows))).expect("there is room in the queue")
    }

    /// The IDs of the rows that [`row`] made.
    async fn stored(&self) -> Vec<i64> {
        let mut reader = self.db.read().await.expect("it is open");
        let text = "SELECT filter_id FROM filter WHERE user_nid = $1 ORDER BY filter_id";
        let rows: Vec<(i64,)> =
            on!(&mut reader.conn(), db => sqlx::query_as(text).bind(USER).fetch_all(&mut **db).await)
                .expect("it can be read");
        rows.into_iter().map(|(id,)| id).collect()
    }

    /// Changes the database behind the server's back.
    async fn execute(&self, text: &'static str) {
        if self.url.starts_with("sqlite:") {
            let mut conn = SqliteConnection::connect(&self.url).await.expect("it is there");
            sqlx::query(text).execute(&mut conn).await.expect("it runs");
        } else {
            let mut conn = PgConnection::connect(&self.url).await.expect("it is there");
            sqlx::query(text).execute(&mut conn).await.expect("it runs");
        }
    }
}

async fn open(url: &str) -> Database {
    let options = DatabaseOptions {
        location: DatabaseOptions::location(url).expect("a URL of ours"),
        durability: Durability::Process,
        readers: 1,
        server_name: "sabha.test".to_owned(),
        role: Role::Lead,
        incarnation: rand::random_range(1..i64::MAX),
        clock: Clock::manual(0),
        patience: Patience::default(),
    };
    Database::open(options).await.expect("it can be opened")
}

const USER: i64 = 7;

/// A row that the database takes once.
fn row(id: i64) -> Row {
    FilterColumns { user_nid: UserNid(USER), filter_id: FilterNid(id), json: "{}".into() }.row()
}

#[tokio::test]
async fn a_refused_write_fails_alone() {
    for opened in Opened::both().await {
        // None of these is awaited yet, so they are one batch.
        let good = [1, 2].map(|id| opened.submit(vec![row(id)]));
        let refused = opened.submit(vec![row(3), row(1)]);
        let later = opened.submit(vec![row(4)]);
        for committed in good {
            committed.wait().await.expect("it is as good as alone");
        }
        assert!(matches!(refused.wait().await, Err(Error::Database(_))));
        later.wait().await.expect("it is as good as alone");
        // Nothing of the refused write is stored: neither its good row nor its bad one.
        assert_eq!(opened.stored().await, [1, 2, 4]);
    }
}

#[tokio::test]
async fn what_builds_on_a_refused_write_fails_with_it() {
    for opened in Opened::both().await {
        opened.submit(vec![row(1)]).wait().await.expect("it is the first");
        let (broken, whole) = (Lineage::default(), Lineage::default());
        let submit = |lineage: &Lineage, id| {
            let write = Write::new(vec![row(id)]).in_lineage(lineage.clone());
            opened.db.committer().submit::<Error>(1, |_| Ok(write)).expect("there is room")
        };
        let before = submit(&broken, 2);
        let refused = submit(&broken, 1);
        let built_on_it = submit(&broken, 3);
        let other = submit(&whole, 4);
        before.wait().await.expect("nothing before it was refused");
        assert!(matches!(refused.wait().await, Err(Error::Database(_))));
        assert!(matches!(built_on_it.wait().await, Err(Error::Superseded)));
        other.wait().await.expect("it is another chain");
        assert_eq!((broken.is_broken(), whole.is_broken()), (true, false));
        assert!(matches!(submit(&broken, 5).wait().await, Err(Error::Superseded)));
        assert_eq!(opened.stored().await, [1, 2, 4]);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_takes_again_once_it_is_shorter() {
    let opened = Opened::sqlite().await;
    let waiting: Vec<_> = (0..MAX_QUEUE).map(|_| opened.submit(Vec::new())).collect();
    let one_more = || opened.db.committer().submit::<Error>(1, |_| Ok(Write::new(vec![row(1)])));
    assert!(matches!(one_more(), Err(Error::Overloaded)));
    for committed in waiting {
        committed.wait().await.expect("it was taken");
    }
    one_more().expect("there is room again").wait().await.expect("nothing is wrong with it");
    assert_eq!(opened.stored().await, [1]);
}

#[tokio::test]
async fn a_stop_commits_what_is_queued_and_takes_no_more() {
    for opened in Opened::both().await {
        let waiting = [1, 2, 3].map(|id| opened.submit(vec![row(id)]));
        opened.db.committer().stop();
        let refused = opened.db.committer().submit::<Error>(1, |_| Ok(Write::new(vec![row(4)])));
        assert!(matches!(refused, Err(Error::Stopping)));
        opened.db.close().await;
        for committed in waiting {
            committed.wait().await.expect("it was queued before the stop");
        }
        assert_eq!(opened.reopen().await.stored().await, [1, 2, 3]);
    }
}

#[tokio::test]
async fn who_has_lost_the_slot_writes_nothing_more() {
    for opened in Opened::both().await {
        opened.submit(vec![row(1)]).wait().await.expect("the slot is ours");
        // The start of another process does this, where no lock can keep it away.
        opened.execute("UPDATE writer_slot SET epoch = epoch + 1").await;
        let waiting = [2, 3].map(|id| opened.submit(vec![row(id)]));
        let committer = opened.db.committer();
        let published = committer.published();
        for committed in waiting {
            assert!(matches!(committed.wait().await, Err(Error::Stopping)));
        }
        assert_eq!(committer.ended().await, Ended::Fenced);
        assert_eq!(committer.health(), Health::Ended(Ended::Fenced));
        let refused = committer.submit::<Error>(1, |_| Ok(Write::new(vec![row(4)])));
        assert!(matches!(refused, Err(Error::Stopping)));
        assert_eq!(opened.stored().await, [1]);
        assert_eq!(committer.published(), published);
        opened.db.close().await;
    }
}

#[tokio::test]
async fn who_has_lost_the_slot_writes_nothing_in_many_statements_either() {
    for opened in Opened::both().await {
        opened.submit(vec![row(1)]).wait().await.expect("the slot is ours");
        opened.execute("UPDATE writer_slot SET epoch = epoch + 1").await;
        let transacted = opened.db.committer().transact(Execute("DELETE FROM filter".to_owned())).await;
        assert!(matches!(transacted, Err(Error::Stopping)));
        assert_eq!(opened.db.committer().ended().await, Ended::Fenced);
        assert_eq!(opened.stored().await, [1]);
    }
}

struct Panics;

impl Transaction for Panics {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        on!(conn, db => sqlx::query("DELETE FROM filter").execute(&mut **db).await.map(|_| ()))?;
        panic!("a mistake in a transaction");
    }
}

#[tokio::test]
async fn a_transaction_that_panics_fails_alone() {
    for opened in Opened::both().await {
        let (first, committer) = (opened.submit(vec![row(1)]), opened.db.committer().clone());
        let panicking = tokio::spawn(async move { committer.transact(Panics).await });
        tokio::task::yield_now().await;
        let last = opened.submit(vec![row(2)]);
        first.wait().await.expect("nothing is wrong with it");
        assert!(matches!(panicking.await.expect("the panic is contained"), Err(Error::Panicked)));
        last.wait().await.expect("nothing is wrong with it");
        assert_eq!(opened.stored().await, [1, 2]);
        assert_eq!(opened.db.committer().health(), Health::Working);
    }
}

#[tokio::test]
async fn a_write_whose_building_panics_lets_the_next_ones_pass() {
    let opened = Opened::sqlite().await;
    let (committer, lineage) = (opened.db.committer(), Lineage::default());
    let before = opened.submit(vec![row(1)]);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        committer.submit::<Error>(3, |_| {
            let _unfinished = lineage.until_finished();
            panic!("a mistake in what changes memory")
        })
    }));
    assert!(panicked.is_err());
    assert!(lineage.is_broken(), "half of the change is in memory");
    let after = opened.submit(vec![row(2)]);
    assert_eq!(after.position().0, before.position().0 + 4, "its positions stay unused");
    for committed in [before, after] {
        committed.wait().await.expect("nothing is wrong with it");
    }
    assert_eq!(opened.stored().await, [1, 2]);
    let whole = Lineage::default();
    whole.until_finished().finish();
    assert!(!whole.is_broken());
}

#[tokio::test]
async fn a_write_that_is_refused_while_it_is_built_lets_the_next_ones_pass() {
    let opened = Opened::sqlite().await;
    let before = opened.submit(vec![row(1)]);
    let nul = FilterColumns { user_nid: UserNid(USER), filter_id: FilterNid(2), json: "\0".into() }.row();
    let refused = opened.db.committer().submit::<Error>(1, |_| Ok(Write::new(vec![nul])));
    assert!(matches!(refused, Err(Error::HoldsNul)));
    let after = opened.submit(vec![row(3)]);
    assert_eq!(after.position().0, before.position().0 + 2);
    for committed in [before, after] {
        committed.wait().await.expect("nothing is wrong with it");
    }
    assert_eq!(opened.stored().await, [1, 3]);
}

#[tokio::test]
async fn a_slow_builder_keeps_back_those_behind_it_and_not_those_before() {
    for opened in Opened::both().await {
        let before = opened.submit(vec![row(1)]);
        let committer = opened.db.committer().clone();
        let (entered, is_in_its_place) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel();
        let slow = std::thread::spawn(move || {
            committer.submit::<Error>(1, |_| {
                entered.send(()).expect("the test waits");
                released.recv().expect("the test says when");
                Ok(Write::new(vec![row(2)]))
            })
        });
        is_in_its_place.recv().expect("there is room");
        // Others build meanwhile.
        let behind = opened.submit(vec![row(3)]);
        let positions = [before.position(), behind.position()];
        assert_eq!(positions[1].0, positions[0].0 + 2);
        assert_eq!(before.wait().await.expect("nothing is wrong with it"), positions[0]);
        assert_eq!(opened.stored().await, [1]);
        opened.db.committer().stop();
        release.send(()).expect("it waits");
        let slow = slow.join().expect("it does not panic").expect("it has a place");
        slow.wait().await.expect("it was queued before the stop");
        behind.wait().await.expect("it was queued before the stop");
        assert_eq!(opened.db.committer().published(), positions[1]);
        opened.db.close().await;
        assert_eq!(opened.reopen().await.stored().await, [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_committer_that_panics_says_so_and_keeps_nobody_waiting() {
    let opened = Opened::sqlite().await;
    let committer = opened.db.committer();
    committer.on_step(Arc::new(|step| {
        assert_ne!(step, CommitStep::Stored, "a mistake in the committer itself");
        Box::pin(std::future::ready(()))
    }));
    let waiting: Vec<_> = (1..=3).map(|id| opened.submit(vec![row(id)])).collect();
    for committed in waiting {
        assert!(matches!(committed.wait().await, Err(Error::Stopping)));
    }
    assert_eq!(committer.ended().await, Ended::Panicked);
    assert!(!Ended::Panicked.is_orderly());
    let refused = committer.submit::<Error>(1, |_| Ok(Write::new(vec![row(4)])));
    assert!(matches!(refused, Err(Error::Stopping)));
    opened.db.close().await;
}

#[tokio::test]
async fn a_clean_close_leaves_no_log_beside_the_database() {
    for round in 0..20 {
        let opened = Opened::sqlite().await;
        let path = opened.url.strip_prefix("sqlite:").expect("it is one").to_owned();
        for id in 0..50 {
            opened.submit(vec![row(id)]).wait().await.expect("nothing is wrong with it");
        }
        // Readers are open when the close begins, and one of them is in use until it has begun.
        let mut reader = opened.db.read().await.expect("it is open");
        let text = "SELECT COUNT(*) FROM filter";
        let (count,): (i64,) =
            on!(&mut reader.conn(), db => sqlx::query_as(text).fetch_one(&mut **db).await).expect("it can be read");
        assert_eq!(count, 50);
        let close = opened.db.close();
        tokio::pin!(close);
        tokio::select! {
            biased;
            () = &mut close => panic!("somebody still reads"),
            () = tokio::task::yield_now() => {}
        }
        drop(reader);
        close.await;
        let log = std::fs::metadata(format!("{path}-wal")).map_or(0, |log| log.len());
        assert_eq!(log, 0, "round {round}");
        // The file alone is a copy of everything.
        let copy = opened._dir.path().join("copy.db");
        std::fs::copy(&path, &copy).expect("it can be copied");
        let mut conn = SqliteConnection::connect(&format!("sqlite:{}", copy.display())).await.expect("it is whole");
        let (count,): (i64,) = sqlx::query_as(text).fetch_one(&mut conn).await.expect("it can be read");
        assert_eq!(count, 50);
    }
}

/// A statement that runs in its place in the queue.
struct Execute(String);

impl Transaction for Execute {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        on!(conn, db => sqlx::raw_sql(AssertSqlSafe(self.0.clone())).execute(&mut **db).await.map(|_| ()))?;
        Ok(())
    }
}

#[tokio::test]
async fn a_failing_transaction_leaves_the_rest_of_its_batch() {
    for opened in Opened::both().await {
        let (first, committer) = (opened.submit(vec![row(1)]), opened.db.committer().clone());
        let failing = tokio::spawn(async move {
            committer.transact(Execute("DELETE FROM filter; SELECT nothing FROM nowhere".to_owned())).await
        });
        // The spawned task queues its work before the committer runs: both wait for this one thread.
        tokio::task::yield_now().await;
        let last = opened.submit(vec![row(2)]);
        first.wait().await.expect("nothing is wrong with it");
        assert!(failing.await.expect("it does not panic").is_err());
        last.wait().await.expect("nothing is wrong with it");
        assert_eq!(opened.stored().await, [1, 2]);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_nothing_else() {
    let opened = Opened::sqlite().await;
    let limit = |pages| opened.db.committer().transact(Execute(format!("PRAGMA max_page_count = {pages}")));
    opened.submit(vec![row(1)]).wait().await.expect("there is room");
    // The limit is less than there is: SQLite takes the present size instead.
    limit(1).await.expect("it can be set");
    let large = |id: i64| {
        FilterColumns { user_nid: UserNid(USER), filter_id: FilterNid(id), json: "x".repeat(100_000).into() }.row()
    };
    let mut waiting = vec![opened.submit(vec![large(2)]), opened.submit(vec![large(3)])];
    waiting.push(opened.submit((100..200).map(large).collect()));
    for refused in waiting {
        assert!(matches!(refused.wait().await, Err(Error::DiskFull(_))));
    }
    assert_eq!(opened.db.committer().health(), Health::DiskFull);
    assert_eq!(opened.stored().await, [1], "reads go on, and see nothing of what was refused");
    limit(1_000_000).await.expect("it can be set");
    opened.submit(vec![large(2)]).wait().await.expect("there is room again");
    assert_eq!(opened.db.committer().health(), Health::Working);
    opened.db.close().await;
    let mut conn = SqliteConnection::connect(&opened.url).await.expect("it is there");
    let (check,): (String,) = sqlx::query_as("PRAGMA integrity_check").fetch_one(&mut conn).await.expect("it runs");
    assert_eq!(check, "ok");
}
