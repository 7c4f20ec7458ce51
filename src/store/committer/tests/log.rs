//! The row of the commit log that each batch writes, in both ways of committing.

use super::*;
use crate::store::{UserNid, committer::insert_rows, log::Touch, profiles::ProfileColumns, tests::commit_log};

impl Opened {
    /// The whole commit log: for each entry the positions of its batch, and its touches.
    async fn log(&self) -> Vec<(Position, Position, Vec<(Position, Touch)>)> {
        commit_log(&self.db).await.into_iter().map(|entry| (entry.after, entry.pos, entry.touches)).collect()
    }
}

fn touch(user: i64) -> Touch {
    Touch::Profile { user: UserNid(user) }
}

fn profile(user: i64) -> Row {
    ProfileColumns { user_nid: UserNid(user), field: "displayname".into(), json: "\"x\"".into() }.row()
}

/// A transaction that touches a profile, changes it, and fails if it is told to.
struct Change {
    user: i64,
    fails: bool,
}

impl Transaction for Change {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        conn.touch(touch(self.user));
        insert_rows(conn, &[profile(self.user)]).await?;
        if self.fails { Err(Error::Overloaded) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_batch_has_one_entry_with_the_touches_of_its_writes_in_their_order() {
    for opened in Opened::both().await {
        let committer = opened.db.committer();
        let start = committer.published();
        let at = |step: i64| Position(start.0 + step);
        let queue = || {
            let two = committer.submit::<Error>(2, |first| {
                let mut write = Write::new(vec![profile(1), profile(2)]);
                for (step, user) in [(0, 1), (1, 2)] {
                    write.set_position(Position(first.0 + step));
                    write.touch(touch(user));
                }
                Ok(write)
            });
            let one = committer.submit::<Error>(1, |_| Ok(Write::new(vec![profile(3)]).touching(touch(3))));
            [two, one].map(|committed| committed.expect("there is room"))
        };
        // In one call.
        for committed in queue() {
            committed.wait().await.expect("nothing is wrong with it");
        }
        let first = (start, at(3), vec![(at(1), touch(1)), (at(2), touch(2)), (at(3), touch(3))]);
        assert_eq!(opened.log().await, std::slice::from_ref(&first));
        // Step by step, because of the transaction between the writes.
        let waiting = queue();
        let mut transaction = std::pin::pin!(committer.transact(Change { user: 4, fails: false }));
        // It queues its work at once, and the committer waits for this one thread.
        let first_poll = std::future::poll_fn(|context| std::task::Poll::Ready(transaction.as_mut().poll(context)));
        assert!(first_poll.await.is_pending());
        let last = opened.db.committer().submit::<Error>(1, |_| Ok(Write::default().touching(touch(5))));
        for committed in waiting.into_iter().chain([last.expect("there is room")]) {
            committed.wait().await.expect("nothing is wrong with it");
        }
        transaction.await.expect("nothing is wrong with it");
        let touches = [(4, 1), (5, 2), (6, 3), (7, 4), (8, 5)].map(|(step, user)| (at(step), touch(user)));
        assert_eq!(opened.log().await, [first, (at(3), at(8), touches.into())]);
        assert_eq!(opened.db.counters().log_rows(), 2);
    }
}

#[tokio::test]
async fn a_batch_that_touched_nothing_has_no_entry() {
    for opened in Opened::both().await {
        opened.submit(vec![row(1)]).wait().await.expect("nothing is wrong with it");
        opened.db.committer().transact(Execute("DELETE FROM filter".to_owned())).await.expect("it runs");
        opened.db.committer().write(Write::default()).await.expect("nothing is wrong with it");
        assert_eq!(opened.log().await, []);
        assert_eq!(opened.db.counters().log_rows(), 0);
    }
}

#[tokio::test]
async fn a_write_that_fails_leaves_nothing_in_the_log() {
    for opened in Opened::both().await {
        let committer = opened.db.committer();
        let start = committer.published();
        let submit = |id: i64, user: i64| {
            let write = Write::new(vec![row(id)]).touching(touch(user));
            committer.submit::<Error>(1, |_| Ok(write)).expect("there is room")
        };
        let (good, refused) = (submit(1, 1), submit(1, 2));
        let failing = tokio::spawn({
            let committer = committer.clone();
            async move { committer.transact(Change { user: 3, fails: true }).await }
        });
        tokio::task::yield_now().await;
        let later = submit(2, 4);
        good.wait().await.expect("nothing is wrong with it");
        assert!(matches!(refused.wait().await, Err(Error::Database(_))));
        assert!(failing.await.expect("it does not panic").is_err());
        later.wait().await.expect("nothing is wrong with it");
        let at = |step: i64| Position(start.0 + step);
        let expected = [(start, at(1), vec![(at(1), touch(1))]), (at(1), at(4), vec![(at(4), touch(4))])];
        assert_eq!(opened.log().await, expected);
    }
}

/// Rows of a table that somebody follows, without the touch.
struct Silent;

impl Transaction for Silent {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        conn.touch(Touch::Leftover);
        insert_rows(conn, &[profile(1)]).await
    }
}

#[tokio::test]
#[cfg(debug_assertions)]
async fn a_write_to_a_followed_table_without_its_touch_panics() {
    let opened = Opened::sqlite().await;
    let committer = opened.db.committer();
    let submit = |write: Write| {
        let submit = std::panic::AssertUnwindSafe(|| committer.submit::<Error>(1, |_| Ok(write)));
        std::panic::catch_unwind(submit)
    };
    assert!(submit(Write::new(vec![profile(1)])).is_err());
    assert!(submit(Write::new(vec![profile(1)]).touching(Touch::Leftover)).is_err());
    let touched = submit(Write::new(vec![profile(1)]).touching(touch(1))).expect("it has its touch");
    touched.expect("there is room").wait().await.expect("nothing is wrong with it");
    assert!(matches!(committer.transact(Silent).await, Err(Error::Panicked)));
}
