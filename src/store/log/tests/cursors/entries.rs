//! The entries that are kept, in the table and in memory, and those that are trimmed.

use std::sync::Arc;

use super::{EIGHT_DAYS, Other, Recorder, TEN_MINUTES, World};
use crate::store::{
    Position,
    log::{Feed, LogEntry, Touch, feed},
    tests::count_rows,
};

#[tokio::test]
async fn nothing_is_written_while_nothing_happens() {
    for world in World::both().await {
        let cursor = world.cursor(Recorder::default());
        cursor.step().await.expect("it begins");
        let start = world.published();
        let keep = async || {
            world.db.cursors().forget_unknown(&world.db).await.expect("read");
            world.store().await;
            world.trim().await;
            world.published()
        };
        assert_eq!(keep().await, start);
        world.touch(1).await;
        world.touch(2).await;
        cursor.step().await.expect("done");
        world.clock.advance(TEN_MINUTES);
        let stored = keep().await;
        assert!(stored > start);
        assert_eq!(world.entries().await, 1);
        for _ in 0..2 {
            world.clock.advance(EIGHT_DAYS);
            assert_eq!(keep().await, stored);
        }
        // A stored place is no news of its own for anybody.
        assert!(world.db.committer().feed().latest() < stored);
    }
}

#[tokio::test]
async fn entries_go_behind_the_slowest_cursor_after_ten_minutes_and_in_any_case_after_seven_days() {
    for mut world in World::both().await {
        let recorder = Recorder::default();
        let (fast, slow) = (world.cursor(Recorder::default()), world.cursor(Other(recorder.clone())));
        fast.step().await.expect("it begins");
        slow.step().await.expect("it begins");
        for user in [1, 2, 3] {
            world.touch(user).await;
        }
        slow.step().await.expect("done");
        world.store().await;
        for user in [4, 5] {
            world.touch(user).await;
        }
        world.trim().await;
        assert_eq!(world.entries().await, 5, "the first cursor has done nothing, and they are new");
        fast.step().await.expect("done");
        world.store().await;
        world.trim().await;
        assert_eq!(world.entries().await, 5, "they are new");
        world.clock.advance(TEN_MINUTES);
        world.trim().await;
        assert_eq!(world.entries().await, 3, "the last one that is done stays, as the mark that none is missing");
        drop((fast, slow));
        world = world.kill().await;
        // The slow one does not go on.
        let fast = world.cursor(Recorder::default());
        let slow = world.cursor(Other(recorder.clone()));
        fast.step().await.expect("it finds its place");
        slow.step().await.expect("it finds its place");
        world.trim().await;
        assert_eq!(world.entries().await, 3);
        world.clock.advance(EIGHT_DAYS);
        world.trim().await;
        assert_eq!(world.entries().await, 1);
        slow.step().await.expect("done");
        assert_eq!((recorder.users(), recorder.caught_up().len()), (vec![1, 2, 3], 2));
        // The entry that is left knows the size of the log.
        let first = world.touch(6).await;
        let newest = world.db.committer().feed().time_after(Position(first.0 - 1));
        assert_eq!(newest, Some(world.clock.now_ms()));
        assert!(world.db.committer().feed().bytes() > 0);
    }
}

#[tokio::test]
async fn a_consumer_that_is_gone_holds_nothing_back() {
    for mut world in World::both().await {
        let (stays, goes) = (world.cursor(Recorder::default()), world.cursor(Other(Recorder::default())));
        stays.step().await.expect("it begins");
        goes.step().await.expect("it begins");
        world.touch(1).await;
        stays.step().await.expect("done");
        goes.step().await.expect("done");
        world.store().await;
        assert_eq!(count_rows(&world.db, "log_cursor").await, 2);
        drop((stays, goes));
        world = world.kill().await;
        let stays = world.cursor(Recorder::default());
        world.db.cursors().forget_unknown(&world.db).await.expect("forgotten");
        assert_eq!(count_rows(&world.db, "log_cursor").await, 1);
        stays.step().await.expect("it finds its place");
        for user in [2, 3] {
            world.touch(user).await;
        }
        stays.step().await.expect("done");
        world.store().await;
        world.clock.advance(TEN_MINUTES);
        world.trim().await;
        assert_eq!(world.entries().await, 1);
    }
}

#[tokio::test]
async fn memory_holds_the_newest_entries_and_the_table_the_others() {
    for world in World::both().await {
        let feed = Feed::new(feed::LogEnd { pos: Position(10), bytes: 0 });
        let entry = |pos: i64| {
            let touches = vec![(Position(pos), Touch::Job); 100];
            Arc::new(LogEntry { after: Position(pos - 1), pos: Position(pos), at_ms: pos, bytes_before: 0, touches })
        };
        for pos in 11..=2000 {
            feed.append(entry(pos));
        }
        assert_eq!(feed.latest(), Position(2000));
        let positions = async |after: i64| match feed.after(&world.db, Position(after), 0).await.expect("read") {
            feed::Upcoming::Entries(entries) => entries.iter().map(|entry| entry.pos.0).collect::<Vec<_>>(),
            feed::Upcoming::TooFar => vec![],
        };
        // 655 entries of a hundred touches.
        assert_eq!(positions(1345).await, (1346..=1545).collect::<Vec<_>>());
        assert_eq!(positions(1999).await, [2000]);
        assert_eq!(positions(1344).await, [0; 0], "the table of this test has none");
        assert_eq!((feed.time_after(Position(1998)), feed.time_after(Position(1344))), (Some(1999), None));
    }
}
