//! The query texts and tables of all files of the store, and new databases for tests.

use std::sync::Arc;

use sqlx::AssertSqlSafe;

use self::empty::Empty;
use super::{
    Conn, Database, DatabaseOptions, Durability, Error, Insert, Lineage, Patience, Position, Role, Sql, Write,
    log::{LogEntry, Touch, decode},
    on,
};
use crate::clock::Clock;

mod empty;
mod leftovers;
mod plans;
mod rules;

#[path = "../../tests/api/harness/postgres.rs"]
pub(crate) mod postgres;

/// Every file's query texts. [`rules`] finds a file that is missing here.
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
    ("graph.rs", super::graph::STATEMENTS),
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
    ("own_keys.rs", super::own_keys::STATEMENTS),
    ("profiles.rs", super::profiles::STATEMENTS),
    ("receipts.rs", super::receipts::STATEMENTS),
    ("redactions.rs", super::redactions::STATEMENTS),
    ("relations.rs", super::relations::STATEMENTS),
    ("remote_members.rs", super::remote_members::STATEMENTS),
    ("room_heads.rs", super::room_heads::STATEMENTS),
    ("room_lists.rs", super::room_lists::STATEMENTS),
    ("server_keys.rs", super::server_keys::STATEMENTS),
    ("sides.rs", super::sides::STATEMENTS),
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
    ("edges.rs", super::edges::INSERTS),
    ("events.rs", super::events::INSERTS),
    ("filters.rs", super::filters::INSERTS),
    ("gaps.rs", super::gaps::INSERTS),
    ("jobs.rs", super::jobs::INSERTS),
    ("key_backup.rs", super::key_backup::INSERTS),
    ("members.rs", super::members::INSERTS),
    ("leftovers.rs", super::leftovers::INSERTS),
    ("one_time_keys.rs", super::one_time_keys::INSERTS),
    ("own_keys.rs", super::own_keys::INSERTS),
    ("profiles.rs", super::profiles::INSERTS),
    ("receipts.rs", super::receipts::INSERTS),
    ("redactions.rs", super::redactions::INSERTS),
    ("relations.rs", super::relations::INSERTS),
    ("remote_members.rs", super::remote_members::INSERTS),
    ("room_heads.rs", super::room_heads::INSERTS),
    ("server_keys.rs", super::server_keys::INSERTS),
    ("sides.rs", super::sides::INSERTS),
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

/// Takes the lease away in a commit of its holder, as a process that gives it up at once. The next commit fails.
pub(crate) async fn take_lease_away(conn: &mut Conn<'_>) -> Result<(), Error> {
    let text = "UPDATE writer_slot SET epoch = epoch + 1, holder = 0";
    Ok(on!(conn, db => sqlx::query(text).execute(&mut **db).await.map(drop))?)
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

/// The options of a database for a test, without followers.
pub(crate) fn options(url: &str) -> DatabaseOptions {
    DatabaseOptions {
        location: DatabaseOptions::location(url).expect("a URL of ours"),
        durability: Durability::Process,
        readers: 1,
        server_name: "sabha.test".to_owned(),
        role: Role::Lead,
        incarnation: 1,
        clock: Clock::manual(0),
        patience: Patience::default(),
    }
}

async fn open(url: &str) -> Database {
    Database::open(options(url)).await.expect("a new database")
}
