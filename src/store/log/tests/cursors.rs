//! Consumers of the log on both engines, one step at a time.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    clock::Clock,
    store::{
        Conn, Database, DatabaseOptions, Durability, Error, Patience, Role, Transaction, Write,
        conn::on,
        ids::lock,
        log::{feed::MAX_BYTES, trim::trim},
        tests::{count_rows, postgres::PostgresDatabase},
    },
};

const TEN_MINUTES: Duration = Duration::from_secs(600);
const EIGHT_DAYS: Duration = Duration::from_secs(8 * 24 * 3600);

/// An open database, with the directory or the PostgreSQL database that holds it.
pub(super) struct World {
    pub(super) db: Arc<Database>,
    clock: Clock,
    url: String,
    _dir: tempfile::TempDir,
    _postgres: Option<PostgresDatabase>,
}

impl World {
    pub(super) async fn both() -> Vec<Self> {
        let mut both = Vec::new();
        let dir = || tempfile::tempdir().expect("a temporary directory");
        let sqlite = dir();
        both.push(Self::open(format!("sqlite:{}", sqlite.path().join("sabha.db").display()), sqlite, None).await);
        if let Some(database) = PostgresDatabase::create().await {
            both.push(Self::open(database.url.clone(), dir(), Some(database)).await);
        }
        both
    }

    async fn open(url: String, dir: tempfile::TempDir, postgres: Option<PostgresDatabase>) -> Self {
        let clock = Clock::manual(0);
        Self { db: open(&url, &clock).await, clock, url, _dir: dir, _postgres: postgres }
    }

    /// Ends the process without a clean stop of the consumers, and starts the next one.
    async fn kill(self) -> Self {
        let Self { db, clock, url, _dir, _postgres } = self;
        db.close().await;
        // With the lock of the file.
        drop(db);
        Self { db: open(&url, &clock).await, clock, url, _dir, _postgres }
    }

    fn cursor<C: Consumer>(&self, consumer: C) -> Cursor<C> {
        Cursor::new(consumer, Arc::clone(&self.db), self.clock.clone())
    }

    /// A cursor that has done one entry, and whose place is stored.
    async fn stored_cursor<C: Consumer>(&self, consumer: C) -> Cursor<C> {
        let cursor = self.cursor(consumer);
        cursor.step().await.expect("it begins");
        self.touch(1).await;
        cursor.step().await.expect("done");
        self.store().await;
        cursor
    }

    /// Commits a touch of a user's profile.
    async fn touch(&self, user: i64) -> Position {
        let write = Write::default().touching(Touch::Profile { user: UserNid(user) });
        self.db.committer().write(write).await.expect("committed")
    }

    async fn store(&self) {
        self.db.cursors().store(&self.db).await.expect("stored");
    }

    async fn trim(&self) {
        trim(&self.db, self.clock.now_ms()).await.expect("trimmed");
    }

    async fn entries(&self) -> i64 {
        count_rows(&self.db, "commit_log").await
    }

    fn published(&self) -> Position {
        self.db.committer().published()
    }
}

async fn open(url: &str, clock: &Clock) -> Arc<Database> {
    let options = DatabaseOptions {
        location: DatabaseOptions::location(url).expect("a URL of ours"),
        durability: Durability::Process,
        readers: 1,
        server_name: "sabha.test".to_owned(),
        role: Role::Lead,
        incarnation: i64::from(rand::random::<u32>()),
        clock: clock.clone(),
        patience: Patience::default(),
    };
    Arc::new(Database::open(options).await.expect("it can be opened"))
}

/// The things that a consumer has done, in every process.
#[derive(Default)]
struct Seen {
    users: Vec<i64>,
    caught_up: Vec<(Position, Position)>,
    fails: bool,
}

/// Notes the users whose profiles were touched.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Seen>>);

impl Recorder {
    fn users(&self) -> Vec<i64> {
        lock(&self.0).users.clone()
    }

    fn caught_up(&self) -> Vec<(Position, Position)> {
        lock(&self.0).caught_up.clone()
    }

    fn fails(&self, fails: bool) {
        lock(&self.0).fails = fails;
    }
}

impl Consumer for Recorder {
    const NAME: &'static str = "recorder";
    type Work = i64;

    fn concerns(touch: &Touch) -> bool {
        matches!(touch, Touch::Profile { .. })
    }

    fn work(&self, entry: &LogEntry) -> Option<i64> {
        entry
            .touches
            .iter()
            .find_map(|(_, touch)| if let Touch::Profile { user } = touch { Some(user.0) } else { None })
    }

    async fn perform(&self, work: Vec<i64>) -> Result<(), Error> {
        let mut seen = lock(&self.0);
        if seen.fails {
            return Err(Error::Overloaded);
        }
        seen.users.extend(work);
        Ok(())
    }

    async fn catch_up(&self, from: Position, to: Position) -> Result<(), Error> {
        lock(&self.0).caught_up.push((from, to));
        Ok(())
    }
}

/// A second consumer of the same things.
struct Other(Recorder);

impl Consumer for Other {
    const NAME: &'static str = "other";
    type Work = i64;

    fn concerns(touch: &Touch) -> bool {
        Recorder::concerns(touch)
    }

    fn work(&self, entry: &LogEntry) -> Option<i64> {
        self.0.work(entry)
    }

    async fn perform(&self, work: Vec<i64>) -> Result<(), Error> {
        self.0.perform(work).await
    }

    async fn catch_up(&self, from: Position, to: Position) -> Result<(), Error> {
        self.0.catch_up(from, to).await
    }
}

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

/// Stores an entry behind the committer's back.
pub(super) async fn insert(conn: &mut Conn<'_>, entry: &LogEntry) -> Result<(), Error> {
    let text = "INSERT INTO commit_log (pos, touched) VALUES ($1, $2)";
    Ok(on!(conn, db => sqlx::query(text)
        .bind(entry.pos.0).bind(encode(entry)).execute(&mut **db).await.map(drop))?)
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

#[tokio::test]
async fn a_consumer_whose_work_fails_stops_only_itself_and_tries_again() {
    for world in World::both().await {
        let (failing, fine) = (Recorder::default(), Recorder::default());
        let (first, second) = (world.cursor(failing.clone()), world.cursor(Other(fine.clone())));
        first.step().await.expect("it begins");
        second.step().await.expect("it begins");
        failing.fails(true);
        let touched = world.touch(1).await;
        first.step().await.expect_err("it fails");
        second.step().await.expect("done");
        world.clock.advance(Duration::from_secs(5));
        let lags = world.db.cursors().lags(&world.db, world.clock.now_ms());
        let lag = |consumer, positions, seconds| Lag { consumer, positions, time: Duration::from_secs(seconds) };
        assert_eq!(lags, [lag("other", 0, 0), lag("recorder", touched.0, 5)]);
        // Its entry stays for it.
        world.store().await;
        world.clock.advance(TEN_MINUTES);
        world.trim().await;
        failing.fails(false);
        first.step().await.expect("done");
        assert_eq!((failing.users(), fine.users()), (vec![1], vec![1]));
    }
}

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
async fn whoever_waits_for_a_consumer_waits_until_it_is_there() {
    for world in World::both().await {
        let cursors = world.db.cursors();
        let touched = world.touch(1).await;
        let reached = cursors.reached(Recorder::NAME, touched);
        let steps = async {
            let cursor = world.cursor(Recorder::default());
            // A new consumer catches up with the tables, and is there at once.
            cursor.step().await.expect("done");
        };
        tokio::join!(reached, steps);
    }
}

#[tokio::test]
async fn entries_without_work_pass_by_and_wake_nobody_who_is_done() {
    for world in World::both().await {
        let recorder = Recorder::default();
        let cursor = world.cursor(recorder.clone());
        cursor.step().await.expect("it begins");
        let cursors = world.db.cursors();
        let other = async || {
            let write = Write::default().touching(Touch::Job);
            world.db.committer().write(write).await.expect("committed")
        };
        for _ in 0..2 {
            assert_eq!(cursors.done(Recorder::NAME), Some(world.db.committer().feed().latest()));
            other().await;
        }
        assert_eq!(cursors.done(Recorder::NAME), Some(world.published()));
        // Not past an entry with work.
        let touched = world.touch(1).await;
        other().await;
        assert_eq!(cursors.done(Recorder::NAME), Some(Position(touched.0 - 1)));
        cursor.step().await.expect("done");
        assert_eq!((cursors.done(Recorder::NAME), recorder.users()), (Some(world.published()), vec![1]));
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
