//! Refused writes and failing transactions: only they fail, and the writes that build on them.

use sqlx::{Connection as _, SqliteConnection};

use super::*;

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
