//! The end of a committer: a stop, the loss of the slot, a panic and a clean close.

use std::sync::Arc;

use sqlx::{Connection as _, SqliteConnection};

use super::*;

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
