//! What a commit holds when something in it fails, on both engines where both can fail so.

use std::sync::{Arc, Mutex};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use super::{Committed, Lineage, MAX_QUEUE, Transaction, Write};
use crate::store::{
    Conn, Database, DatabaseOptions, Durability, Error, Position, Row, conn::on, filters::FILTER, ids::lock,
    tests::postgres::PostgresDatabase,
};

/// An open database with what it lies in.
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

    /// Lets go of the database, and opens it as the next process would.
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
        incarnation: rand::random_range(1..i64::MAX),
        now_ms: 0,
    };
    Database::open(options).await.expect("it can be opened")
}

const USER: i64 = 7;

/// A row that the database takes once.
fn row(id: i64) -> Row {
    FILTER.row([USER.into(), id.into(), "{}".to_owned().into()])
}

#[tokio::test]
async fn a_refused_write_fails_alone() {
    for opened in Opened::both().await {
        // Nothing of these is awaited yet, so they are one batch.
        let good = [1, 2].map(|id| opened.submit(vec![row(id)]));
        let refused = opened.submit(vec![row(3), row(1)]);
        let later = opened.submit(vec![row(4)]);
        for committed in good {
            committed.wait().await.expect("it is as good as alone");
        }
        assert!(matches!(refused.wait().await, Err(Error::Database(_))));
        later.wait().await.expect("it is as good as alone");
        // Nothing of the refused one: neither its good row nor its bad one.
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
async fn memory_changes_in_the_order_of_positions_and_before_they_are_visible() {
    let opened = Opened::sqlite().await;
    let said: Arc<Mutex<Vec<(&str, Position, Position)>>> = Arc::default();
    let mut waiting = Vec::new();
    for id in 1..=3 {
        let committer = opened.db.committer();
        let tell = |what| {
            let (said, committer) = (Arc::clone(&said), committer.clone());
            move |position| lock(&said).push((what, position, committer.published()))
        };
        let (after, wake) = (tell("after"), tell("wake"));
        let committed = committer.submit::<Error>(2, |first| {
            let last = Position(first.0 + 1);
            Ok(Write::new(vec![row(id)]).after(move || after(last)).wake(move || wake(last)))
        });
        waiting.push(committed.expect("there is room"));
    }
    let before = opened.db.committer().published();
    let positions: Vec<Position> = waiting.iter().map(Committed::position).collect();
    assert_eq!(positions, [2, 4, 6].map(|step| Position(before.0 + step)));
    for committed in waiting {
        committed.wait().await.expect("nothing is wrong with it");
    }
    let said = lock(&said).clone();
    let last = positions[2];
    let expected: Vec<_> = positions.iter().map(|at| ("after", *at, before)).collect();
    assert_eq!(said[..3], expected, "no position is visible before all of the batch is in memory");
    let expected: Vec<_> = positions.iter().map(|at| ("wake", *at, last)).collect();
    assert_eq!(said[3..], expected, "who is woken sees the position");
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
        // What the start of another process does, where no lock can keep it away.
        opened.execute("UPDATE writer_slot SET epoch = epoch + 1").await;
        let waiting = [2, 3].map(|id| opened.submit(vec![row(id)]));
        let published = opened.db.committer().published();
        for committed in waiting {
            assert!(matches!(committed.wait().await, Err(Error::Database(_))));
        }
        let large = opened.submit((10..100).map(row).collect());
        assert!(matches!(large.wait().await, Err(Error::Database(_))));
        let transacted = opened.db.committer().transact(Execute("DELETE FROM filter".to_owned())).await;
        assert!(matches!(transacted, Err(Error::Database(_))));
        assert_eq!(opened.stored().await, [1]);
        assert_eq!(opened.db.committer().published(), published);
    }
}

/// A statement in its place in the queue.
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
        // The spawned task queues its work before the committer is let run: both wait for this one thread.
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
    // Less than there is: SQLite takes the present size instead.
    limit(1).await.expect("it can be set");
    let large = |id: i64| FILTER.row([USER.into(), id.into(), "x".repeat(100_000).into()]);
    let mut waiting = vec![opened.submit(vec![large(2)]), opened.submit(vec![large(3)])];
    waiting.push(opened.submit((100..200).map(large).collect()));
    for refused in waiting {
        assert!(matches!(refused.wait().await, Err(Error::Database(_))));
    }
    assert_eq!(opened.stored().await, [1], "reads go on, and see nothing of what was refused");
    limit(1_000_000).await.expect("it can be set");
    opened.submit(vec![large(2)]).wait().await.expect("there is room again");
    opened.db.close().await;
    let mut conn = SqliteConnection::connect(&opened.url).await.expect("it is there");
    let (check,): (String,) = sqlx::query_as("PRAGMA integrity_check").fetch_one(&mut conn).await.expect("it runs");
    assert_eq!(check, "ok");
}
