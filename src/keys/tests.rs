//! The life of keys and messages, with a real database.

mod backups;
mod memory;
mod one_time;
mod to_device;

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    OneTimeKeyAlgorithm, OwnedOneTimeKeyId, OwnedUserId, TransactionId, UserId,
    encryption::OneTimeKey,
    owned_server_name, owned_user_id,
    serde::{Base64, Raw},
    to_device::DeviceIdOrAllDevices,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Keys,
    backup::{Algorithm, BackupError, MAX_BACKUP_BYTES, RoomKey, Stored},
    changes::SharedRooms,
    claim::Wanted,
    query::QueryError,
    signatures::{SignatureFailure, SignedKey},
    to_device::SendToDeviceError,
    upload::{MAX_ALGORITHMS, UploadError},
    validate::{MAX_ONE_TIME_KEYS, Upload},
};
use crate::{
    account::LocalDevice,
    clock::Clock,
    config::Config,
    memory::budget::Budget,
    shares::large_answers::LargeAnswers,
    store::{
        Conn, Database, DatabaseOptions, DeviceNid, Durability, Error, Patience, Position, Role, Transaction, UserNid,
        Write,
        device_keys::DeviceKeyColumns,
        devices::{self, DeviceColumns},
        key_backup::{self, Part},
        log::Touch,
        tests::{count_rows, touched_by},
        txn_ids::find_txn_id,
    },
};

use to_device::{received, send};

const SIGNED: &str = "signed_curve25519";

/// A database with devices, and the service under test.
struct Fixture {
    directory: tempfile::TempDir,
    db: Arc<Database>,
    keys: Arc<Keys>,
    config: Config,
}

/// Turns that are all free.
fn large_answers() -> LargeAnswers {
    LargeAnswers::new(CancellationToken::new())
}

/// A room that all users share.
struct OneRoom;

impl SharedRooms for OneRoom {
    async fn share_a_room_since(&self, _: UserNid, _: UserNid, _: Position) -> Result<bool, Error> {
        Ok(true)
    }
}

async fn open(path: &std::path::Path, incarnation: i64) -> Arc<Database> {
    let options = DatabaseOptions {
        location: DatabaseOptions::location(&format!("sqlite:{}", path.display())).expect("a path"),
        durability: Durability::Process,
        readers: 4,
        server_name: "example.org".to_owned(),
        role: Role::Lead,
        incarnation,
        clock: Clock::manual(0),
        patience: Patience::default(),
    };
    Arc::new(Database::open(options).await.expect("a new database opens"))
}

impl Fixture {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut config = Config { server_name: owned_server_name!("example.org"), ..Config::default() };
        change(&mut config);
        let db = open(&directory.path().join("db"), 1).await;
        let keys = Arc::new(Keys::new(Arc::clone(&db), Clock::manual(0), &config, &Budget::new(64 << 20)));
        Self { directory, db, keys, config }
    }

    /// Closes the database and opens it again, with empty memory.
    async fn reopen(self) -> Self {
        let Self { directory, db, keys, config } = self;
        drop(keys);
        let next = db.start() + 1;
        db.close().await;
        drop(db);
        let db = open(&directory.path().join("db"), next).await;
        let keys = Arc::new(Keys::new(Arc::clone(&db), Clock::manual(0), &config, &Budget::new(64 << 20)));
        Self { directory, db, keys, config }
    }

    async fn device(&self, user_id: &UserId, device_id: &str) -> LocalDevice {
        let user = self.db.user(user_id, true).await.expect("a user");
        let device_nid = self.db.committer().ids().device().expect("an id");
        let row = DeviceColumns {
            device_nid,
            user_nid: user.nid,
            device_id: device_id.into(),
            display_name: None,
            created_at: 0,
            last_seen_at: None,
            last_seen_ip: None,
        }
        .row();
        let touch = Touch::Device { user: user.nid, device: device_nid, gone: false };
        let mut write = Write::new(vec![row]).touching(touch);
        user.write_if_new(&mut write);
        self.db.committer().write(write).await.expect("it is stored");
        let revoked = CancellationToken::new();
        let device_id = Some(device_id.into());
        LocalDevice { user, device_nid, device_id, admin: false, expires_at: None, revoked, appservice: None }
    }
}

fn id_of(device: &LocalDevice) -> &ruma::DeviceId {
    device.device_id.as_deref().expect("a device of these tests has an ID")
}

fn public_key(number: u8) -> String {
    Base64::<ruma::serde::base64::Standard, [u8; 32]>::new([number; 32]).encode()
}

fn one_time_key(number: u8) -> Value {
    json!({ "key": public_key(number), "signatures": { "@alice:example.org": { "ed25519:DEV": "c2ln" } } })
}

fn key_map(keys: &[(&str, Value)]) -> BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>> {
    keys.iter()
        .map(|(id, key)| {
            let id = OwnedOneTimeKeyId::try_from(format!("{SIGNED}:{id}").as_str()).expect("an ID");
            (id, Raw::from_json_string(key.to_string()).expect("JSON"))
        })
        .collect()
}

async fn upload(
    keys: &Keys,
    device: &LocalDevice,
    one_time: &[(&str, Value)],
    fallback: &[(&str, Value)],
) -> Result<u64, UploadError> {
    let own = (device.user_id(), id_of(device));
    let checked = Upload::check(own, None, &key_map(one_time), &key_map(fallback)).expect("the tests upload good keys");
    Ok(keys.upload(device, checked).await?.one_time[SIGNED])
}

#[tokio::test]
async fn what_sync_asks_costs_no_statements_once_it_is_known() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let (keys, upto) = (&fixture.keys, fixture.db.committer().published());
    let ask = async || {
        keys.counts(alice.device_nid).await.expect("counts");
        keys.acknowledge_to_device(alice.device_nid, upto).await.expect("acknowledged");
        let (messages, next) = keys.to_device_messages(alice.device_nid, upto, upto, 10).await.expect("messages");
        assert_eq!((messages.len(), next), (0, upto));
        assert!(keys.device_lists_changed(&OneRoom, alice.user.nid, upto, upto).await.expect("changes").is_empty());
    };
    ask().await;
    let before = fixture.db.counters().statements();
    ask().await;
    assert_eq!(fixture.db.counters().statements(), before);
}

#[tokio::test]
async fn changes_are_told_from_memory_and_from_the_database() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
    let before = fixture.db.committer().published();
    let device_keys = json!({
        "user_id": "@alice:example.org", "device_id": "DEV", "algorithms": [], "keys": {}, "signatures": {},
    });
    let device_keys = Raw::from_json_string(device_keys.to_string()).expect("JSON");
    let own = (alice.user_id(), id_of(&alice));
    let checked = || Upload::check(own, Some(&device_keys), &BTreeMap::new(), &BTreeMap::new()).expect("good keys");
    fixture.keys.upload(&alice, checked()).await.expect("uploaded");
    let changed = fixture.db.committer().published();
    // Uploading equal keys is no change.
    fixture.keys.upload(&alice, checked()).await.expect("uploaded");
    let upto = fixture.db.committer().published();
    let ask = async |fixture: &Fixture, since| {
        fixture.keys.device_lists_changed(&OneRoom, bob.user.nid, since, upto).await.expect("changes")
    };
    assert_eq!(ask(&fixture, before).await, [owned_user_id!("@alice:example.org")]);
    assert!(ask(&fixture, changed).await.is_empty());
    let fixture = fixture.reopen().await;
    assert_eq!(ask(&fixture, before).await, [owned_user_id!("@alice:example.org")]);
    assert!(ask(&fixture, changed).await.is_empty());
}

#[tokio::test]
async fn requests_about_keys_name_what_they_change() {
    let fixture = Fixture::new(|_| {}).await;
    let (db, keys) = (&fixture.db, &fixture.keys);
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;

    let (result, touched) = touched_by(db, upload(keys, &alice, &[("A", one_time_key(1))], &[])).await;
    result.expect("it is new");
    assert_eq!(touched, ["KeyCounts"]);
    let (result, touched) = touched_by(db, upload(keys, &alice, &[("A", one_time_key(1))], &[])).await;
    result.expect("it is the same");
    assert!(touched.is_empty(), "{touched:?}");

    let ((), touched) = touched_by(db, send(&fixture, &alice, "t", &bob, 1)).await;
    assert_eq!(touched, ["ToDevice", "Txn"]);
    let ((), touched) = touched_by(db, send(&fixture, &alice, "t", &bob, 1)).await;
    assert!(touched.is_empty(), "{touched:?}");
    keys.acknowledge_to_device(bob.device_nid, db.committer().published()).await.expect("acknowledged");
    let (result, touched) = touched_by(db, keys.delete_acknowledged()).await;
    result.expect("deleted");
    assert_eq!(touched, ["ToDeviceGone"]);
}

/// Signs a device out.
struct Delete(UserNid, DeviceNid);

impl Transaction for Delete {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        devices::delete_device(conn, self.0, self.1, "DEV").await.map(drop)
    }
}

#[tokio::test]
async fn a_device_that_was_signed_out_meanwhile_leaves_nothing() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
    fixture.db.committer().transact(Delete(alice.user.nid, alice.device_nid)).await.expect("deleted");

    let keys = &fixture.keys;
    let refused = upload(keys, &alice, &[("A", one_time_key(1))], &[("F", one_time_key(2))]).await;
    assert!(matches!(refused, Err(UploadError::DeviceGone)), "{refused:?}");
    let counts = keys.counts(alice.device_nid).await.expect("counts");
    assert_eq!((counts.one_time[SIGNED], counts.unused_fallback.len()), (0, 0));

    // Its message still arrives, but its transaction ID is not stored, as no device is left for it.
    send(&fixture, &alice, "t", &bob, 1).await;
    assert_eq!(received(&fixture, bob.device_nid, Position::BEFORE_ALL, 10).await.0, [1]);
    let mut reader = fixture.db.read().await.expect("a reader");
    let txn = find_txn_id(&mut reader.conn(), alice.device_nid, "to_device", "m.test/t").await.expect("read");
    assert_eq!(txn, None);
}

#[tokio::test]
async fn only_the_named_keys_are_read_for_signatures_and_uploads() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let other = fixture.device(&owned_user_id!("@alice:example.org"), "OTHER").await;
    // Malformed JSON, so that reading this row fails.
    let row = DeviceKeyColumns { device_nid: other.device_nid, user_nid: other.user.nid, json: "{".into() }.row();
    let write = Write::new(vec![row]).touching(Touch::DeviceList { user: other.user.nid });
    fixture.db.committer().write(write).await.expect("stored");
    let signed = |key_id: &str| SignedKey {
        user_id: alice.user_id().to_owned(),
        key_id: key_id.to_owned(),
        json: "{}".to_owned(),
    };
    let failures = fixture.keys.upload_signatures(&alice, vec![signed("DEV"), signed("NONE")]).await;
    let failures = failures.expect("the damaged key is not read");
    assert!(failures[alice.user_id()].values().all(|failure| *failure == SignatureFailure::NotFound));
    fixture.keys.upload_signatures(&alice, vec![signed("OTHER")]).await.expect_err("it is read");
}

#[tokio::test]
async fn users_are_looked_up_many_at_a_time() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let statements = || fixture.db.counters().statements();
    let unknown = (0..320).map(|number| UserId::parse(format!("@user{number}:example.org")).expect("a user ID"));
    let wanted = unknown.map(|user_id| (user_id, Vec::new())).collect();
    let before = statements();
    let queried = fixture.keys.query(&alice.user, &wanted, &large_answers()).await.expect("they are unknown");
    assert!(queried.device_keys.is_empty());
    assert_eq!(statements() - before, 10, "32 users in a statement");
}

#[tokio::test]
async fn a_query_with_a_large_answer_waits_for_its_turn() {
    let fixture = Fixture::new(|_| {}).await;
    let mut users = Vec::new();
    for (name, bytes) in [("alice", 900), ("large", 300_000)] {
        let device = fixture.device(&UserId::parse(format!("@{name}:example.org")).expect("a user ID"), "DEV").await;
        let (device_nid, user_nid) = (device.device_nid, device.user.nid);
        let json = json!({ "algorithms": ["a".repeat(bytes)] }).to_string();
        let row = DeviceKeyColumns { device_nid, user_nid, json: json.into() }.row();
        let write = Write::new(vec![row]).touching(Touch::DeviceList { user: user_nid });
        fixture.db.committer().write(write).await.expect("stored");
        users.push(device);
    }
    let (large, alice) = (large_answers(), &users[0].user);
    let wanted = |of: &LocalDevice| [(of.user_id().to_owned(), Vec::new())].into_iter().collect();
    let turns = [large.turn(alice.nid).await.expect("it is free"), large.turn(alice.nid).await.expect("so is this")];
    let small = fixture.keys.query(alice, &wanted(&users[0]), &large).await.expect("it needs no turn");
    assert!(small.turn.is_none() && small.device_keys.len() == 1);
    let wanted = wanted(&users[1]);
    let ended = async {
        while large.asking(alice.nid) <= turns.len() {
            tokio::task::yield_now().await;
        }
        drop(turns);
    };
    let (queried, ()) = tokio::join!(fixture.keys.query(alice, &wanted, &large), ended);
    let queried = queried.expect("it has its turn");
    assert!(queried.turn.is_some() && queried.device_keys.len() == 1);
    assert_eq!(large.asking(alice.nid), 1, "until the answer is complete");
}

#[tokio::test]
async fn a_query_answers_with_a_bounded_number_of_bytes() {
    let mut fixture = Fixture::new(|_| {}).await;
    let mut users = Vec::new();
    for number in 0..40 {
        let user_id = UserId::parse(format!("@user{number}:example.org")).expect("a user ID");
        let device = fixture.device(&user_id, "DEV").await;
        let (device_nid, user_nid) = (device.device_nid, device.user.nid);
        let json = json!({ "algorithms": ["a".repeat(900)] }).to_string();
        let row = DeviceKeyColumns { device_nid, user_nid, json: json.into() }.row();
        let write = Write::new(vec![row]).touching(Touch::DeviceList { user: user_nid });
        fixture.db.committer().write(write).await.expect("stored");
        users.push((device, user_id));
    }
    Arc::get_mut(&mut fixture.keys).expect("nobody else has it").queried_bytes = 20_000;
    let asker = &users[0].0.user;
    let wanted = |count: usize| users[..count].iter().map(|(_, user_id)| (user_id.clone(), Vec::new())).collect();
    let queried = fixture.keys.query(asker, &wanted(20), &large_answers()).await.expect("they fit");
    assert_eq!(queried.device_keys.len(), 20);
    let refused = fixture.keys.query(asker, &wanted(40), &large_answers()).await;
    assert!(matches!(refused, Err(QueryError::TooLarge)), "{refused:?}");
}

#[tokio::test]
async fn users_with_huge_keys_keep_nobody_else_from_being_asked_for() {
    let mut fixture = Fixture::new(|_| {}).await;
    let mut users = Vec::new();
    for (name, bytes) in [("alice", 900), ("huge", 200_000), ("mallory", 200_000), ("bob", 900)] {
        let user_id = UserId::parse(format!("@{name}:example.org")).expect("a user ID");
        let device = fixture.device(&user_id, "DEV").await;
        let (device_nid, user_nid) = (device.device_nid, device.user.nid);
        let json = json!({ "algorithms": ["a".repeat(bytes)] }).to_string();
        let row = DeviceKeyColumns { device_nid, user_nid, json: json.into() }.row();
        let write = Write::new(vec![row]).touching(Touch::DeviceList { user: user_nid });
        fixture.db.committer().write(write).await.expect("stored");
        users.push((device, user_id));
    }
    let asker = Arc::clone(&users[0].0.user);
    let wanted = users.iter().map(|(_, user_id)| (user_id.clone(), Vec::new())).collect();
    for (most, told) in [(500_000, vec![0, 1, 2, 3]), (300_000, vec![0, 3])] {
        Arc::get_mut(&mut fixture.keys).expect("nobody else has it").queried_bytes = most;
        let queried = fixture.keys.query(&asker, &wanted, &large_answers()).await.expect("they fit");
        let mut expected: Vec<_> = told.into_iter().map(|number: usize| &users[number].1).collect();
        expected.sort();
        assert_eq!(queried.device_keys.keys().collect::<Vec<_>>(), expected, "{most} bytes");
        assert!(queried.device_keys.values().all(|devices| devices.len() == 1), "{most} bytes");
    }
}
