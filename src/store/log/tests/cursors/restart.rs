//! A consumer in the next process: it finds its place, or reads the tables.

use std::time::Duration;

use super::{EIGHT_DAYS, Recorder, World, insert};
use crate::store::{
    Conn, Error, Position, Transaction, UserNid,
    conn::on,
    log::{Consumer, LogEntry, Touch, feed::MAX_BYTES},
};

#[tokio::test]
async fn work_that_was_not_stored_is_done_again_after_a_kill() {
    for mut world in World::both().await {
        let recorder = Recorder::default();
        let cursor = world.cursor(recorder.clone());
        cursor.step().await.expect("it begins");
        assert_eq!(
            recorder.caught_up(),
            [(Position::BEFORE_ALL, Position::BEFORE_ALL)],
            "a new consumer begins with the tables"
        );
        for user in [1, 2] {
            world.touch(user).await;
            cursor.step().await.expect("done");
            if user == 1 {
                world.store().await;
            }
        }
        assert_eq!(recorder.users(), [1, 2]);
        drop(cursor);
        world = world.kill().await;
        let cursor = world.cursor(recorder.clone());
        for _ in ["it finds its place", "it does the rest"] {
            cursor.step().await.expect("done");
        }
        assert_eq!(recorder.users(), [1, 2, 2]);
        // From memory again.
        world.touch(3).await;
        cursor.step().await.expect("done");
        world.store().await;
        drop(cursor);
        world = world.kill().await;
        let cursor = world.cursor(recorder.clone());
        cursor.step().await.expect("it finds its place");
        world.touch(4).await;
        cursor.step().await.expect("done");
        assert_eq!(recorder.users(), [1, 2, 2, 3, 4]);
        assert_eq!(recorder.caught_up().len(), 1);
    }
}

/// Stores an entry before which the log has had this many bytes.
struct LargeLog(u64);

impl Transaction for LargeLog {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, pos: Position) -> Result<(), Error> {
        let touches = vec![(pos, Touch::Profile { user: UserNid(9) })];
        insert(conn, &LogEntry { after: Position(pos.0 - 1), pos, at_ms: 0, bytes_before: self.0, touches }).await
    }
}

#[tokio::test]
async fn a_cursor_too_far_behind_reads_the_tables_and_then_goes_on() {
    enum Distance {
        Near,
        Old,
        Long,
        Damaged,
        Trimmed,
    }
    for distance in [Distance::Near, Distance::Old, Distance::Long, Distance::Damaged, Distance::Trimmed] {
        for mut world in World::both().await {
            let recorder = Recorder::default();
            let cursor = world.cursor(recorder.clone());
            cursor.step().await.expect("it begins");
            let first = world.touch(1).await;
            cursor.step().await.expect("done");
            world.store().await;
            drop(cursor);
            for user in [2, 3] {
                world.touch(user).await;
            }
            match distance {
                Distance::Near => world.clock.advance(EIGHT_DAYS - 2 * Duration::from_secs(24 * 3600)),
                Distance::Old => world.clock.advance(EIGHT_DAYS),
                Distance::Long => {
                    world.db.committer().transact(LargeLog(MAX_BYTES + 10_000)).await.expect("committed");
                }
                Distance::Damaged => {
                    let damage = Damage("UPDATE commit_log SET touched = $1 WHERE pos > $2", first);
                    world.db.committer().transact(damage).await.expect("committed");
                }
                Distance::Trimmed => {
                    let loss = Damage("DELETE FROM commit_log WHERE touched <> $1 AND pos <= $2", first);
                    world.db.committer().transact(loss).await.expect("committed");
                }
            }
            world = world.kill().await;
            let cursor = world.cursor(recorder.clone());
            let latest = world.db.committer().feed().latest();
            for _ in ["it finds its place", "it goes on"] {
                cursor.step().await.expect("done");
            }
            let caught_up = recorder.caught_up().get(1).copied();
            let (expected, users) = if matches!(distance, Distance::Near) {
                (None, vec![1, 2, 3])
            } else {
                (Some((first, latest)), vec![1])
            };
            assert_eq!((caught_up, recorder.users()), (expected, users));
            world.touch(4).await;
            cursor.step().await.expect("done");
            assert_eq!(recorder.users().last(), Some(&4));
        }
    }
}

/// Changes the log behind the server's back, with a blob that is not one and a position.
struct Damage(&'static str, Position);

impl Transaction for Damage {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        let no_blob: &[u8] = &[1, 2, 3];
        Ok(on!(conn, db => sqlx::query(self.0).bind(no_blob).bind(self.1.0).execute(&mut **db).await.map(drop))?)
    }
}

/// Moves all stored places.
struct Misplace(Position);

impl Transaction for Misplace {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        let text = "UPDATE log_cursor SET pos = $1";
        Ok(on!(conn, db => sqlx::query(text).bind(self.0.0).execute(&mut **db).await.map(drop))?)
    }
}

#[tokio::test]
async fn a_place_after_all_commits_is_not_taken() {
    for place in [1_000, i64::MAX] {
        for mut world in World::both().await {
            let recorder = Recorder::default();
            let cursor = world.stored_cursor(recorder.clone()).await;
            world.db.committer().transact(Misplace(Position(place))).await.expect("committed");
            drop(cursor);
            world = world.kill().await;
            let cursor = world.cursor(recorder.clone());
            cursor.step().await.expect("it reads the tables");
            let latest = world.db.committer().feed().latest();
            assert_eq!(world.db.cursors().done(Recorder::NAME), Some(latest));
            assert_eq!(recorder.caught_up().last(), Some(&(Position::BEFORE_ALL, latest)));
            world.touch(2).await;
            cursor.step().await.expect("done");
            assert_eq!(recorder.users(), [1, 2]);
            world.store().await;
            drop(cursor);
            world = world.kill().await;
            let cursor = world.cursor(recorder.clone());
            cursor.step().await.expect("it finds its place");
            assert_eq!(recorder.caught_up().len(), 2, "the right place was stored");
        }
    }
}

#[tokio::test]
async fn entries_that_no_commit_has_made_are_deleted_at_the_start() {
    for mut world in World::both().await {
        let recorder = Recorder::default();
        let cursor = world.stored_cursor(recorder.clone()).await;
        // The positions of the next commits, and the last of all.
        for _ in 0..2 {
            let bogus = Position(world.published().0 + 5);
            let insert = Damage("INSERT INTO commit_log (touched, pos) VALUES ($1, $2)", bogus);
            world.db.committer().transact(insert).await.expect("committed");
        }
        let insert = Damage("INSERT INTO commit_log (touched, pos) VALUES ($1, $2)", Position(i64::MAX));
        world.db.committer().transact(insert).await.expect("committed");
        drop(cursor);
        world = world.kill().await;
        assert_eq!(world.entries().await, 1);
        let cursor = world.cursor(recorder.clone());
        cursor.step().await.expect("it finds its place");
        for user in [2, 3, 4] {
            world.touch(user).await;
            cursor.step().await.expect("done");
        }
        assert_eq!((recorder.users(), recorder.caught_up().len()), (vec![1, 2, 3, 4], 1));
    }
}
