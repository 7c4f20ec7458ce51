//! Consumers of the log on both engines, one step at a time.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    clock::Clock,
    store::{
        Conn, Database, DatabaseOptions, Error, Write,
        conn::on,
        ids::lock,
        log::trim::trim,
        tests::{count_rows, options, postgres::PostgresDatabase},
    },
};

mod entries;
mod moved_lease;
mod restart;

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
    let (incarnation, clock) = (i64::from(rand::random::<u32>()), clock.clone());
    let options = DatabaseOptions { incarnation, clock, ..options(url) };
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

/// Stores an entry behind the committer's back.
pub(super) async fn insert(conn: &mut Conn<'_>, entry: &LogEntry) -> Result<(), Error> {
    let text = "INSERT INTO commit_log (pos, touched) VALUES ($1, $2)";
    Ok(on!(conn, db => sqlx::query(text)
        .bind(entry.pos.0).bind(encode(entry)).execute(&mut **db).await.map(drop))?)
}
