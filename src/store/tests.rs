//! Rules for the whole store, on both engines: every query text is valid, every table has an owner and an end.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqlSafeStr as _, SqliteConnection};

use super::{
    Database, DatabaseOptions, Durability, Insert, Lineage, Patience, Position, Role, Row, Sql, Value, Write,
    log::{LogEntry, Touch, decode},
    on,
    pieces::Piece,
    rows::MAX_CHUNK,
};
use crate::clock::Clock;

mod leftovers;
mod plans;

#[path = "../../tests/api/harness/postgres.rs"]
pub(crate) mod postgres;

/// Every file's query texts. [`the_lists_above_are_complete`] finds a file that is missing here.
const STATEMENTS: &[(&str, &[(&str, Sql)])] = &[
    ("account_data.rs", super::account_data::STATEMENTS),
    ("accounts.rs", super::accounts::STATEMENTS),
    ("aliases.rs", super::aliases::STATEMENTS),
    ("changed_rooms.rs", super::changed_rooms::STATEMENTS),
    ("checkpoints.rs", super::checkpoints::STATEMENTS),
    ("committer/batch.rs", super::committer::STATEMENTS),
    ("committer/connection.rs", super::committer::CONNECTION_STATEMENTS),
    ("cross_signing.rs", super::cross_signing::STATEMENTS),
    ("device_keys.rs", super::device_keys::STATEMENTS),
    ("devices.rs", super::devices::STATEMENTS),
    ("events.rs", super::events::STATEMENTS),
    ("filters.rs", super::filters::STATEMENTS),
    ("jobs.rs", super::jobs::STATEMENTS),
    ("key_backup.rs", super::key_backup::STATEMENTS),
    ("leftovers.rs", super::leftovers::STATEMENTS),
    ("members.rs", super::members::STATEMENTS),
    ("log/cursors.rs", super::log::cursors::STATEMENTS),
    ("log/feed.rs", super::log::feed::STATEMENTS),
    ("log/lease.rs", super::log::lease::STATEMENTS),
    ("log/trim.rs", super::log::trim::STATEMENTS),
    ("one_time_keys.rs", super::one_time_keys::STATEMENTS),
    ("open/server_info.rs", super::open::server_info::STATEMENTS),
    ("open/slot.rs", super::open::slot::STATEMENTS),
    ("profiles.rs", super::profiles::STATEMENTS),
    ("receipts.rs", super::receipts::STATEMENTS),
    ("relations.rs", super::relations::STATEMENTS),
    ("remote_members.rs", super::remote_members::STATEMENTS),
    ("room_heads.rs", super::room_heads::STATEMENTS),
    ("room_lists.rs", super::room_lists::STATEMENTS),
    ("server_keys.rs", super::server_keys::STATEMENTS),
    ("states.rs", super::states::STATEMENTS),
    ("sweeps.rs", super::sweeps::STATEMENTS),
    ("terms.rs", super::terms::STATEMENTS),
    ("timelines.rs", super::timelines::STATEMENTS),
    ("to_device.rs", super::to_device::STATEMENTS),
    ("tokens.rs", super::tokens::STATEMENTS),
    ("txn_ids.rs", super::txn_ids::STATEMENTS),
    ("unread.rs", super::unread::STATEMENTS),
    ("vocabulary/event_types.rs", super::vocabulary::event_types::STATEMENTS),
    ("vocabulary/keys.rs", super::vocabulary::keys::STATEMENTS),
    ("vocabulary/servers.rs", super::vocabulary::servers::STATEMENTS),
    ("vocabulary/users.rs", super::vocabulary::users::STATEMENTS),
];

const INSERTS: &[(&str, &[&Insert])] = &[
    ("account_data.rs", super::account_data::INSERTS),
    ("accounts.rs", super::accounts::INSERTS),
    ("aliases.rs", super::aliases::INSERTS),
    ("committer/logged.rs", super::committer::INSERTS),
    ("cross_signing.rs", super::cross_signing::INSERTS),
    ("device_keys.rs", super::device_keys::INSERTS),
    ("devices.rs", super::devices::INSERTS),
    ("events.rs", super::events::INSERTS),
    ("filters.rs", super::filters::INSERTS),
    ("jobs.rs", super::jobs::INSERTS),
    ("key_backup.rs", super::key_backup::INSERTS),
    ("members.rs", super::members::INSERTS),
    ("leftovers.rs", super::leftovers::INSERTS),
    ("one_time_keys.rs", super::one_time_keys::INSERTS),
    ("open/server_info.rs", super::open::server_info::INSERTS),
    ("profiles.rs", super::profiles::INSERTS),
    ("receipts.rs", super::receipts::INSERTS),
    ("relations.rs", super::relations::INSERTS),
    ("remote_members.rs", super::remote_members::INSERTS),
    ("room_heads.rs", super::room_heads::INSERTS),
    ("server_keys.rs", super::server_keys::INSERTS),
    ("states.rs", super::states::INSERTS),
    ("timelines.rs", super::timelines::INSERTS),
    ("to_device.rs", super::to_device::INSERTS),
    ("tokens.rs", super::tokens::INSERTS),
    ("txn_ids.rs", super::txn_ids::INSERTS),
    ("unread.rs", super::unread::INSERTS),
    ("vocabulary/event_types.rs", super::vocabulary::event_types::INSERTS),
    ("vocabulary/keys.rs", super::vocabulary::keys::INSERTS),
    ("vocabulary/servers.rs", super::vocabulary::servers::INSERTS),
    ("vocabulary/users.rs", super::vocabulary::users::INSERTS),
];

/// A connection to a new database of either engine, with our schema.
enum Empty {
    Sqlite(SqliteConnection, #[expect(dead_code, reason = "dropped with the connection")] tempfile::TempDir),
    Postgres(PgConnection, #[expect(dead_code, reason = "dropped with the connection")] postgres::PostgresDatabase),
}

impl Empty {
    async fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite:{}", dir.path().join("sabha.db").display());
        migrate(&url).await;
        Self::Sqlite(SqliteConnection::connect(&url).await.expect("it was made"), dir)
    }

    async fn postgres() -> Option<Self> {
        let database = postgres::PostgresDatabase::create().await?;
        migrate(&database.url).await;
        Some(Self::Postgres(PgConnection::connect(&database.url).await.expect("it runs"), database))
    }

    async fn both() -> Vec<Self> {
        let mut both = vec![Self::sqlite().await];
        both.extend(Self::postgres().await);
        both
    }

    fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(..))
    }

    async fn prepare(&mut self, text: &'static str) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(conn, _) => conn.prepare(text.into_sql_str()).await.map(drop),
            Self::Postgres(conn, _) => conn.prepare(text.into_sql_str()).await.map(drop),
        }
    }

    /// Prepares the texts that a commit in one call sends, with up to two rows of a table, of new keys and of others.
    async fn prepare_one_call(&mut self, insert: &'static Insert) -> Result<(), sqlx::Error> {
        let row = || [Row { insert, values: vec![Value::Int(1); insert.columns.len()].into(), is_new: false }];
        let known = [Piece::of_any(insert, 1), Piece::of_any(insert, 2)];
        let of_one = [true, false].map(|is_new| Piece::of(insert, &row(), is_new));
        for piece in known.into_iter().chain(of_one) {
            match self {
                Self::Sqlite(conn, _) => {
                    // SQLite prepares one statement at a time. None of ours holds a semicolon.
                    for text in super::committer::sqlite_text(&[piece]).split("; ") {
                        conn.prepare(AssertSqlSafe(text.to_owned()).into_sql_str()).await?;
                    }
                }
                Self::Postgres(conn, _) => {
                    let other = Piece::of_any(&super::open::server_info::SERVER_INFO, 1);
                    let text = super::committer::postgres_text(&[piece, other]);
                    conn.prepare(AssertSqlSafe(text).into_sql_str()).await?;
                }
            }
        }
        Ok(())
    }

    async fn tables(&mut self) -> Vec<String> {
        match self {
            Self::Sqlite(conn, _) => sqlx::query_scalar(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
                AND name <> '_sqlx_migrations' ORDER BY name",
            )
            .fetch_all(conn)
            .await
            .expect("it runs"),
            Self::Postgres(conn, _) => sqlx::query_scalar(
                "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' \
                AND table_name <> '_sqlx_migrations' ORDER BY table_name COLLATE \"C\"",
            )
            .fetch_all(conn)
            .await
            .expect("it runs"),
        }
    }
}

/// The number of rows in a table.
pub(crate) async fn count_rows(db: &Database, table: &str) -> i64 {
    let text = format!("SELECT COUNT(*) FROM {table}");
    let mut reader = db.read().await.expect("a reader");
    on!(&mut reader.conn(), db => sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&mut **db).await)
        .expect("it can be counted")
}

/// All entries of the commit log.
pub(crate) async fn commit_log(db: &Database) -> Vec<LogEntry> {
    let mut reader = db.read().await.expect("a reader");
    let text = "SELECT pos, touched FROM commit_log ORDER BY pos";
    let rows: Vec<(i64, Vec<u8>)> =
        on!(&mut reader.conn(), db => sqlx::query_as(text).fetch_all(&mut **db).await).expect("it can be read");
    rows.into_iter().map(|(pos, touched)| decode(Position(pos), &touched).expect("it was encoded")).collect()
}

/// The result of `work`, and the kinds of what it touched. Without words: which of them are new depends on what was
/// done before.
pub(crate) async fn touched_by<T>(db: &Database, work: impl Future<Output = T>) -> (T, Vec<String>) {
    let before = db.committer().published();
    let result = work.await;
    let entries = commit_log(db).await.into_iter().filter(|entry| entry.pos > before);
    let touches = entries.flat_map(|entry| entry.touches).filter(|(_, touch)| !matches!(touch, Touch::Word { .. }));
    let kind = |touch: Touch| format!("{touch:?}").split(' ').next().unwrap_or_default().to_owned();
    (result, touches.map(|(_, touch)| kind(touch)).collect())
}

/// A new database, with the directory or the PostgreSQL database that holds it.
pub(crate) struct NewDatabase {
    pub(crate) db: Arc<Database>,
    _dir: Option<tempfile::TempDir>,
    _postgres: Option<postgres::PostgresDatabase>,
}

impl NewDatabase {
    /// A database of each engine that this machine has.
    pub(crate) async fn of_both_engines() -> Vec<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Arc::new(open(&format!("sqlite:{}", dir.path().join("sabha.db").display())).await);
        let mut both = vec![Self { db, _dir: Some(dir), _postgres: None }];
        if let Some(postgres) = postgres::PostgresDatabase::create().await {
            let db = Arc::new(open(&postgres.url).await);
            both.push(Self { db, _dir: None, _postgres: Some(postgres) });
        }
        both
    }
}

/// Makes a write fail: it belongs to a chain of which an earlier write has failed.
pub(crate) fn failing(write: Write) -> Write {
    let lineage = Lineage::default();
    drop(lineage.until_finished());
    write.in_lineage(lineage)
}

async fn migrate(url: &str) {
    open(url).await.close().await;
}

async fn open(url: &str) -> Database {
    let options = DatabaseOptions {
        location: DatabaseOptions::location(url).expect("a URL of ours"),
        durability: Durability::Process,
        readers: 1,
        server_name: "sabha.test".to_owned(),
        role: Role::Lead,
        incarnation: 1,
        clock: Clock::manual(0),
        patience: Patience::default(),
    };
    Database::open(options).await.expect("a new database")
}

#[tokio::test]
async fn every_statement_is_valid_on_both_engines() {
    let mut refused = String::new();
    for mut empty in Empty::both().await {
        let engine = if empty.is_postgres() { "PostgreSQL" } else { "SQLite" };
        let statements =
            STATEMENTS.iter().flat_map(|(file, all)| all.iter().map(move |(name, sql)| (*file, *name, sql.text())));
        let mut texts: Vec<_> = statements.collect();
        for (file, inserts) in INSERTS {
            for insert in *inserts {
                let largest = MAX_CHUNK.ilog2() as usize;
                texts.extend([0, largest].map(|size| (*file, insert.table, insert.text(size, empty.is_postgres()))));
            }
        }
        for (file, inserts) in INSERTS {
            for insert in *inserts {
                if let Err(error) = empty.prepare_one_call(insert).await {
                    refused.push_str(&format!("{engine}, {file} {} in one call: {error}\n", insert.table));
                }
            }
        }
        for (file, name, text) in texts {
            if let Err(error) = empty.prepare(text).await {
                refused.push_str(&format!("{engine}, {file} {name}: {error}\n"));
            }
        }
    }
    assert!(refused.is_empty(), "refused:\n{refused}");
}

/// Rows of one commit that replace each other are found by their [`Insert`].
#[test]
fn no_table_has_two_inserts() {
    let mut tables: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, inserts) in INSERTS {
        inserts.iter().for_each(|insert| tables.entry(insert.table).or_default().push(file));
    }
    tables.retain(|_, files| files.len() > 1);
    assert!(tables.is_empty(), "{tables:?}");
}

/// Tables that the store alone writes, each with a statement of its own. Nobody follows them.
const OWN_TABLES: [&str; 4] = ["counter", "incarnation", "log_cursor", "writer_slot"];

/// Each [`Insert`] says by which touch its table is followed, or that it is not.
#[test]
fn every_table_says_whether_it_is_followed() {
    let inserts = INSERTS.iter().flat_map(|(_, inserts)| inserts.iter().map(|insert| insert.table));
    let mut known: Vec<&str> = inserts.chain(OWN_TABLES).collect();
    known.sort_unstable();
    assert_eq!(known, declared("sqlite").keys().collect::<Vec<_>>());
}

#[test]
fn the_lists_above_are_complete() {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut missing = String::new();
    for path in files(&store) {
        let text = fs::read_to_string(&path).expect("our own source");
        let name = path.strip_prefix(&store).expect("it lies below").display().to_string();
        let begins = |start: &str| text.lines().any(|line| line == start);
        if begins("statements! {") && !STATEMENTS.iter().any(|(file, _)| *file == name) {
            missing.push_str(&format!("STATEMENTS: {name}\n"));
        }
        if begins("inserts! {") && !INSERTS.iter().any(|(file, _)| *file == name) {
            missing.push_str(&format!("INSERTS: {name}\n"));
        }
    }
    assert!(missing.is_empty(), "add to the lists in src/store/tests.rs:\n{missing}");
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).expect("our own source").map(|entry| entry.expect("readable").path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    dirs.iter().flat_map(|dir| self::files(dir)).chain(files).collect()
}

/// The tables that the migrations declare: name to owner and end.
fn declared(engine: &str) -> BTreeMap<String, (String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
    let mut tables = BTreeMap::new();
    for path in files(&dir) {
        for line in fs::read_to_string(&path).expect("our own migrations").lines() {
            let Some(declaration) = line.strip_prefix("-- table: ") else {
                continue;
            };
            let parts: Vec<_> = declaration.splitn(3, " | ").collect();
            let [name, owner, ends] = parts[..] else { panic!("{}: {line}", path.display()) };
            let owner = owner.strip_prefix("owner: ").unwrap_or_else(|| panic!("no owner: {line}"));
            let ends =
                ends.strip_prefix("ends: ").filter(|ends| !ends.is_empty()).unwrap_or_else(|| panic!("no end: {line}"));
            tables.insert(name.to_owned(), (owner.to_owned(), ends.to_owned()));
        }
    }
    tables
}

#[test]
fn both_engines_declare_the_same_tables() {
    assert_eq!(declared("sqlite"), declared("postgres"));
}

#[tokio::test]
async fn every_table_has_an_owner_and_an_end_of_life() {
    for mut empty in Empty::both().await {
        let declared = declared(if empty.is_postgres() { "postgres" } else { "sqlite" });
        assert_eq!(empty.tables().await, declared.keys().cloned().collect::<Vec<_>>());
        for (table, (owner, _)) in declared {
            let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&owner);
            assert!(module.with_extension("rs").exists(), "{table} is owned by {owner}, which is no module of src/");
        }
    }
}
