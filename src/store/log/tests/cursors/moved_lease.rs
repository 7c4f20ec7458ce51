//! A consumer whose process loses the lease in the middle of a step.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{Recorder, World};
use crate::store::{
    Error, Position,
    log::{Consumer, LogEntry, Touch},
};

/// A consumer that waits after its work until the test lets it go on.
#[derive(Clone, Default)]
struct Held {
    inner: Recorder,
    worked: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Held {
    async fn wait(&self) {
        self.worked.notify_one();
        self.go_on.notified().await;
    }
}

impl Consumer for Held {
    const NAME: &'static str = "held";
    type Work = i64;

    fn concerns(touch: &Touch) -> bool {
        Recorder::concerns(touch)
    }

    fn work(&self, entry: &LogEntry) -> Option<i64> {
        self.inner.work(entry)
    }

    async fn perform(&self, work: Vec<i64>) -> Result<(), Error> {
        self.inner.perform(work).await?;
        self.wait().await;
        Ok(())
    }

    async fn catch_up(&self, from: Position, to: Position) -> Result<(), Error> {
        self.inner.catch_up(from, to).await?;
        self.wait().await;
        Ok(())
    }
}

/// Another process may have done more by then, and its place is the one that counts.
#[tokio::test]
async fn a_step_that_ends_after_the_lease_is_lost_moves_nothing() {
    for world in World::both().await {
        let held = Held::default();
        let cursor = world.cursor(held.clone());
        let cursors = world.db.cursors();
        world.touch(1).await;
        let step = async |loses: bool| {
            let losing = async {
                held.worked.notified().await;
                if loses {
                    // A process does this when it steps down.
                    cursors.forget_places();
                }
                held.go_on.notify_one();
            };
            let (done, ()) = tokio::join!(cursor.step(), losing);
            done.expect("done");
        };
        step(true).await;
        assert_eq!(cursors.done(Held::NAME), None, "it has read the tables in vain");
        step(false).await;
        let begun = cursors.done(Held::NAME).expect("it has begun");
        world.store().await;
        let touched = world.touch(2).await;
        step(true).await;
        assert_eq!(cursors.done(Held::NAME), None, "it has done an entry in vain");
        cursor.step().await.expect("it finds its place");
        assert_eq!(cursors.done(Held::NAME), Some(begun));
        step(false).await;
        assert_eq!((cursors.done(Held::NAME), held.inner.users()), (Some(touched), vec![2, 2]));
    }
}
