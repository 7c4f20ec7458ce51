//! The life of keys and messages, on a real database.

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
    signatures::{SignatureFailure, SignedKey},
    to_device::SendToDeviceError,
    upload::{MAX_ALGORITHMS, UploadError},
    validate::Upload,
};
use crate::{
    account::LocalDevice,
    clock::Clock,
    config::Config,
    store::{
        Conn, Database, DatabaseOptions, DeviceNid, Durability, Error, Patience, Position, Transaction, UserNid, Write,
        device_keys::DEVICE_KEY,
        devices::{self, DEVICE},
        key_backup::{self, Part},
        rooms::find_txn_id,
        tests::count_rows,
    },
};

const SIGNED: &str = "signed_curve25519";

/// A database with devices, and the service on it.
struct Fixture {
    directory: tempfile::TempDir,
    db: Arc<Database>,
    keys: Arc<Keys>,
    config: Config,
}

/// Everyone sees everyone.
struct OneRoom;

impl SharedRooms for OneRoom {
    async fn share_a_room(&self, _: UserNid, _: UserNid) -> Result<bool, Error> {
        Ok(true)
    }
}

async fn open(path: &std::path::Path, incarnation: i64) -> Arc<Database> {
    let options = DatabaseOptions {
        location: DatabaseOptions::location(&format!("sqlite:{}", path.display())).expect("a path"),
        durability: Durability::Process,
        readers: 4,
        server_name: "example.org".to_owned(),
        incarnation,
        now_ms: 0,
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
        let keys = Arc::new(Keys::new(Arc::clone(&db), Arc::default(), Clock::manual(0), &config));
        Self { directory, db, keys, config }
    }

    /// Closes the database and opens it again, with empty memory.
    async fn reopen(self) -> Self {
        let Self { directory, db, keys, config } = self;
        drop(keys);
        let next = db.incarnation() + 1;
        db.close().await;
        drop(db);
        let db = open(&directory.path().join("db"), next).await;
        let keys = Arc::new(Keys::new(Arc::clone(&db), Arc::default(), Clock::manual(0), &config));
        Self { directory, db, keys, config }
    }

    async fn device(&self, user_id: &UserId, device_id: &str) -> LocalDevice {
        let user = self.db.user(user_id, true).await.expect("a user");
        let device_nid = self.db.committer().ids().device().expect("an id");
        let row = DEVICE.row([
            device_nid.into(),
            user.nid.into(),
            device_id.into(),
            None::<String>.into(),
            0.into(),
            None::<i64>.into(),
            None::<String>.into(),
        ]);
        let mut write = Write::new(vec![row]);
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
    Ok(keys.upload(device, checked, Vec::new()).await?.one_time[SIGNED])
}

/// The ID of the key that is handed out.
async fn claim(keys: &Keys, device: &LocalDevice) -> Option<String> {
    let wanted: Wanted = BTreeMap::from([(
        device.user_id().to_owned(),
        BTreeMap::from([(id_of(device).to_owned(), OneTimeKeyAlgorithm::from(SIGNED))]),
    )]);
    let mut claimed = keys.claim(&wanted).await.expect("the database works");
    let key = claimed.keys.remove(device.user_id())?.remove(id_of(device))?;
    key.into_keys().next().map(|id| id.as_str().trim_start_matches("signed_curve25519:").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_claims_hand_out_each_key_once_in_the_order_of_upload() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = Arc::new(fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await);
    // IDs that sort against the order of upload.
    let ids: Vec<String> = (0..60).map(|number| format!("K{:02}", 99 - number)).collect();
    for (number, id) in ids.iter().enumerate() {
        let key = one_time_key(u8::try_from(number).expect("less than 256"));
        upload(&fixture.keys, &alice, &[(id, key)], &[]).await.expect("it is new");
    }
    let claim_many = async |fixture: &Fixture, count: usize| {
        let claims: Vec<_> = (0..count)
            .map(|_| {
                let (keys, alice) = (Arc::clone(&fixture.keys), Arc::clone(&alice));
                tokio::spawn(async move { claim(&keys, &alice).await })
            })
            .collect();
        let mut claimed = Vec::new();
        for claim in claims {
            claimed.push(claim.await.expect("no claim panics").expect("there are enough keys"));
        }
        claimed.sort_unstable_by(|a, b| b.cmp(a));
        claimed
    };
    assert_eq!(claim_many(&fixture, 20).await, ids[..20]);
    let fixture = fixture.reopen().await;
    assert_eq!(claim_many(&fixture, 20).await, ids[20..40]);
    assert_eq!(fixture.keys.counts(alice.device_nid).await.expect("counts").one_time[SIGNED], 20);

    // A client that never heard of the claims uploads everything again.
    for (number, id) in ids.iter().enumerate() {
        let key = one_time_key(u8::try_from(number).expect("less than 256"));
        assert_eq!(upload(&fixture.keys, &alice, &[(id, key)], &[]).await.expect("it is taken"), 20);
    }
    assert_eq!(claim_many(&fixture, 20).await, ids[40..]);
    assert_eq!(claim(&fixture.keys, &alice).await, None);
}

#[tokio::test]
async fn the_same_id_with_another_key_is_refused_as_a_whole() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let keys = &fixture.keys;
    assert_eq!(upload(keys, &alice, &[("A", one_time_key(1))], &[]).await.expect("new"), 1);
    assert_eq!(upload(keys, &alice, &[("A", one_time_key(1))], &[]).await.expect("the same"), 1);
    let refused = upload(keys, &alice, &[("A", one_time_key(2)), ("B", one_time_key(3))], &[]).await;
    assert!(matches!(refused, Err(UploadError::KeyChanged { .. })), "{refused:?}");
    assert_eq!(keys.counts(alice.device_nid).await.expect("counts").one_time[SIGNED], 1);
}

#[tokio::test]
async fn a_device_holds_no_more_keys_than_the_limit() {
    let fixture = Fixture::new(|config| config.limits.one_time_keys_per_device = 2).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    upload(&fixture.keys, &alice, &[("A", one_time_key(1)), ("B", one_time_key(2))], &[]).await.expect("two");
    let refused = upload(&fixture.keys, &alice, &[("C", one_time_key(3))], &[]).await;
    assert!(matches!(refused, Err(UploadError::TooManyKeys { limit: 2 })), "{refused:?}");
    assert_eq!(upload(&fixture.keys, &alice, &[("A", one_time_key(1))], &[]).await.expect("nothing new"), 2);
}

#[tokio::test]
async fn the_fallback_key_is_handed_out_when_nothing_else_is_left() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let keys = &fixture.keys;
    upload(keys, &alice, &[("A", one_time_key(1))], &[("F", one_time_key(2))]).await.expect("new");
    let unused = async || keys.counts(alice.device_nid).await.expect("counts").unused_fallback.clone();
    assert_eq!(unused().await, [SIGNED]);
    assert_eq!(claim(keys, &alice).await.as_deref(), Some("A"));
    assert_eq!(unused().await, [SIGNED]);
    for _ in 0..2 {
        assert_eq!(claim(keys, &alice).await.as_deref(), Some("F"));
        assert_eq!(unused().await, [""; 0]);
    }
    // The same key again is still a used key; another one is not.
    upload(keys, &alice, &[], &[("F", one_time_key(2))]).await.expect("the same");
    assert_eq!(unused().await, [""; 0]);
    upload(keys, &alice, &[], &[("G", one_time_key(3))]).await.expect("another");
    assert_eq!(unused().await, [SIGNED]);
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

type Message = Raw<ruma::events::AnyToDeviceEventContent>;

fn messages(
    to: &[(&LocalDevice, &str)],
    body: &Value,
) -> BTreeMap<OwnedUserId, BTreeMap<DeviceIdOrAllDevices, Message>> {
    let mut messages = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (device, id) in to {
        let id = DeviceIdOrAllDevices::try_from(*id).expect("an ID");
        let content = Raw::from_json_string(body.to_string()).expect("JSON");
        messages.entry(device.user_id().to_owned()).or_default().insert(id, content);
    }
    messages
}

async fn send(fixture: &Fixture, from: &LocalDevice, txn: &str, to: &LocalDevice, number: i64) {
    let messages = messages(&[(to, id_of(to).as_str())], &json!({ "number": number }));
    fixture.keys.send_to_device(from, "m.test", <&TransactionId>::from(txn), &messages).await.expect("it is sent");
}

async fn received(fixture: &Fixture, device: DeviceNid, since: Position, limit: usize) -> (Vec<i64>, Position) {
    let upto = fixture.db.committer().published();
    let (messages, next) = fixture.keys.to_device_messages(device, since, upto, limit).await.expect("messages");
    let numbers = messages
        .iter()
        .map(|message| {
            let event: Value = serde_json::from_str(message.get()).expect("JSON");
            assert_eq!((&event["sender"], &event["type"]), (&json!("@alice:example.org"), &json!("m.test")));
            event["content"]["number"].as_i64().expect("a number")
        })
        .collect();
    (numbers, next)
}

#[tokio::test]
async fn messages_stay_until_they_are_acknowledged() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
    for number in 0..5 {
        send(&fixture, &alice, &format!("t{number}"), &bob, number).await;
    }
    // Sent again: nothing new.
    send(&fixture, &alice, "t0", &bob, 9).await;
    let (first, next) = received(&fixture, bob.device_nid, Position::ZERO, 2).await;
    assert_eq!(first, [0, 1]);
    // The answer was lost; the same again, also after a restart.
    let fixture = fixture.reopen().await;
    assert_eq!(received(&fixture, bob.device_nid, Position::ZERO, 2).await, (first, next));
    fixture.keys.acknowledge_to_device(bob.device_nid, next).await.expect("acknowledged");
    assert_eq!(received(&fixture, bob.device_nid, Position::ZERO, 10).await.0, [2, 3, 4]);
    assert_eq!(received(&fixture, bob.device_nid, next, 10).await.0, [2, 3, 4]);
    let upto = fixture.db.committer().published();
    fixture.keys.acknowledge_to_device(bob.device_nid, upto).await.expect("acknowledged");
    assert_eq!(received(&fixture, bob.device_nid, Position::ZERO, 10).await.0, [0; 0]);
}

#[tokio::test]
async fn a_device_that_fetches_nothing_keeps_the_newest_messages() {
    let fixture = Fixture::new(|config| config.limits.to_device_per_device = 16).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
    for number in 0..40 {
        send(&fixture, &alice, &format!("t{number}"), &bob, number).await;
        let (waiting, _) = received(&fixture, bob.device_nid, Position::ZERO, 100).await;
        assert!(waiting.len() <= 16 && waiting.last() == Some(&number), "{waiting:?}");
    }
    assert!(received(&fixture, bob.device_nid, Position::ZERO, 100).await.0.len() >= 15);
}

#[tokio::test]
async fn what_was_fetched_makes_room_for_what_comes() {
    let fixture = Fixture::new(|config| config.limits.to_device_per_device = 16).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
    for number in 0..10 {
        send(&fixture, &alice, &format!("t{number}"), &bob, number).await;
    }
    let (_, next) = received(&fixture, bob.device_nid, Position::ZERO, 6).await;
    fixture.keys.acknowledge_to_device(bob.device_nid, next).await.expect("acknowledged");
    for number in 10..22 {
        send(&fixture, &alice, &format!("t{number}"), &bob, number).await;
    }
    let (waiting, _) = received(&fixture, bob.device_nid, Position::ZERO, 100).await;
    assert_eq!(waiting, (6..22).collect::<Vec<_>>());
}

#[tokio::test]
async fn all_devices_are_reached_and_unknown_ones_ignored() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB1").await;
    let bob2 = fixture.device(&owned_user_id!("@bob:example.org"), "BOB2").await;
    let send = async |txn: &str, id: &str, body: Value| {
        let messages = messages(&[(&bob, id)], &body);
        fixture.keys.send_to_device(&alice, "m.test", <&TransactionId>::from(txn), &messages).await
    };
    send("1", "*", json!({ "number": 1 })).await.expect("sent");
    send("2", "NOBODY", json!({ "number": 2 })).await.expect("ignored");
    for device in [&bob, &bob2] {
        assert_eq!(received(&fixture, device.device_nid, Position::ZERO, 10).await.0, [1]);
    }
    assert!(matches!(send("3", "*", json!("text")).await, Err(SendToDeviceError::NotAnObject)));
    assert!(matches!(send("4", "*", json!({ "x": "x".repeat(65_536) })).await, Err(SendToDeviceError::TooLarge)));
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
    fixture.keys.upload(&alice, checked(), Vec::new()).await.expect("uploaded");
    let changed = fixture.db.committer().published();
    // The same keys again are no change.
    fixture.keys.upload(&alice, checked(), Vec::new()).await.expect("uploaded");
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

    // What it sent still arrives, but nothing is left to remember that for.
    send(&fixture, &alice, "t", &bob, 1).await;
    assert_eq!(received(&fixture, bob.device_nid, Position::ZERO, 10).await.0, [1]);
    let mut reader = fixture.db.read().await.expect("a reader");
    let txn = find_txn_id(&mut reader.conn(), alice.device_nid, "to_device", "m.test/t").await.expect("read");
    assert_eq!(txn, None);
}

#[tokio::test]
async fn a_message_to_a_device_that_is_signed_out_meanwhile_is_not_stored() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB1").await;
    let bob2 = fixture.device(&owned_user_id!("@bob:example.org"), "BOB2").await;
    let messages = messages(&[(&bob, "*")], &json!({ "number": 1 }));
    let prepared = fixture.keys.prepare(&alice, "m.test", <&TransactionId>::from("t"), &messages).await.expect("good");
    fixture.db.committer().transact(Delete(bob.user.nid, bob.device_nid)).await.expect("deleted");
    for part in prepared {
        fixture.db.committer().transact(part).await.expect("sent");
    }
    assert_eq!(received(&fixture, bob.device_nid, Position::ZERO, 10).await.0, [0; 0]);
    assert_eq!(received(&fixture, bob2.device_nid, Position::ZERO, 10).await.0, [1]);
}

#[tokio::test]
async fn a_message_to_many_devices_has_one_body_until_the_last_of_them_has_it() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let mut devices = Vec::new();
    for number in 0..30 {
        devices.push(fixture.device(&owned_user_id!("@bob:example.org"), &format!("BOB{number}")).await);
    }
    let to_all = messages(&[(&devices[0], "*")], &json!({ "number": 1 }));
    fixture.keys.send_to_device(&alice, "m.test", <&TransactionId>::from("1"), &to_all).await.expect("sent");
    send(&fixture, &alice, "2", &devices[0], 2).await;
    let rows = async || (count_rows(&fixture.db, "to_device").await, count_rows(&fixture.db, "to_device_shared").await);
    assert_eq!(rows().await, (31, 1));
    let upto = fixture.db.committer().published();
    for (index, device) in devices.iter().enumerate() {
        let expected = if index == 0 { vec![1, 2] } else { vec![1] };
        assert_eq!(received(&fixture, device.device_nid, Position::ZERO, 10).await.0, expected);
        assert_eq!(rows().await.1, 1);
        fixture.keys.acknowledge_to_device(device.device_nid, upto).await.expect("acknowledged");
        fixture.keys.delete_acknowledged().await.expect("deleted");
    }
    assert_eq!(rows().await, (0, 0));
}

#[tokio::test]
async fn a_message_to_very_many_devices_goes_on_where_it_was_interrupted() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let mut devices = Vec::new();
    for number in 0..600 {
        devices.push(fixture.device(&owned_user_id!("@bob:example.org"), &format!("BOB{number}")).await);
    }
    let to_all = |number: i64| messages(&[(&devices[0], "*"), (&devices[0], "BOB7")], &json!({ "number": number }));
    let mut fixture = fixture;
    for (number, txn) in [(1, "after one part"), (2, "after two parts")] {
        let txn = <&TransactionId>::from(txn);
        let parts = fixture.keys.prepare(&alice, "m.test", txn, &to_all(number)).await.expect("good");
        assert_eq!(parts.len(), 3);
        for part in parts.into_iter().take(number as usize) {
            fixture.db.committer().transact(part).await.expect("sent");
        }
        // The server ended here. The client asks again, and once more.
        fixture = fixture.reopen().await;
        for _ in 0..2 {
            fixture.keys.send_to_device(&alice, "m.test", txn, &to_all(number)).await.expect("sent");
        }
    }
    // Two requests that overlap: the second begins, and goes on, between the parts of the first.
    let txn = <&TransactionId>::from("overlapping");
    let mut requests = Vec::new();
    for _ in 0..2 {
        let parts = fixture.keys.prepare(&alice, "m.test", txn, &to_all(3)).await.expect("good");
        requests.push(parts.into_iter());
    }
    for request in [0, 0, 1, 1, 0, 1] {
        let part = requests[request].next().expect("a part is left");
        fixture.db.committer().transact(part).await.expect("sent");
    }
    for (index, device) in devices.iter().enumerate() {
        let expected = if index == 7 { vec![1, 1, 2, 2, 3, 3] } else { vec![1, 2, 3] };
        assert_eq!(received(&fixture, device.device_nid, Position::ZERO, 10).await.0, expected, "device {index}");
    }
}

#[tokio::test]
async fn whoever_floods_an_inbox_loses_their_own_messages() {
    let fixture = Fixture::new(|config| config.limits.to_device_per_device = 16).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let other = fixture.device(&owned_user_id!("@alice:example.org"), "OTHER").await;
    let mallory = fixture.device(&owned_user_id!("@mallory:example.org"), "M").await;
    for number in 0..3 {
        send(&fixture, &alice, &format!("a{number}"), &other, number).await;
    }
    for number in 0..50 {
        send(&fixture, &mallory, &format!("m{number}"), &other, 100 + number).await;
    }
    send(&fixture, &alice, "last", &other, 3).await;
    let upto = fixture.db.committer().published();
    let (waiting, _) =
        fixture.keys.to_device_messages(other.device_nid, Position::ZERO, upto, 100).await.expect("messages");
    assert!(waiting.len() <= 16);
    let waiting: Vec<Value> = waiting.iter().map(|event| serde_json::from_str(event.get()).expect("JSON")).collect();
    let of_alice = waiting.iter().filter(|event| event["sender"] == "@alice:example.org");
    assert_eq!(
        of_alice.map(|event| event["content"]["number"].as_i64()).collect::<Vec<_>>(),
        (0..4).map(Some).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn an_inbox_is_bounded_in_bytes_and_so_is_an_answer() {
    let mut fixture = Fixture::new(|_| {}).await;
    Arc::get_mut(&mut fixture.keys).expect("nobody else has it").to_device_bytes = 2_000_000;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
    let large = |number: i64| messages(&[(&bob, "BOB")], &json!({ "number": number, "x": "x".repeat(60_000) }));
    for number in 0..80 {
        let txn = format!("t{number}");
        let txn = <&TransactionId>::from(txn.as_str());
        fixture.keys.send_to_device(&alice, "m.test", txn, &large(number)).await.expect("sent");
    }
    let (mut all, mut since) = (Vec::new(), Position::ZERO);
    loop {
        let (some, next) = received(&fixture, bob.device_nid, since, 100).await;
        if some.is_empty() {
            break;
        }
        assert!(some.len() <= 17, "an answer with {} messages of 60 kB", some.len());
        all.extend(some);
        since = next;
    }
    assert_eq!(all.last(), Some(&79));
    assert!((28..=33).contains(&all.len()), "{} messages of 60 kB", all.len());
    assert_eq!(all, (80 - all.len() as i64..80).collect::<Vec<_>>());
}

#[tokio::test]
async fn only_the_named_keys_are_read_for_signatures_and_uploads() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let other = fixture.device(&owned_user_id!("@alice:example.org"), "OTHER").await;
    // Whoever reads this notices.
    let row = DEVICE_KEY.row([other.device_nid.into(), other.user.nid.into(), "{".into()]);
    fixture.db.committer().write(Write::new(vec![row])).await.expect("stored");
    let signed = |key_id: &str| SignedKey {
        user_id: alice.user_id().to_owned(),
        key_id: key_id.to_owned(),
        json: "{}".to_owned(),
    };
    let failures = fixture.keys.upload_signatures(&alice, vec![signed("DEV"), signed("NONE")], Vec::new()).await;
    let failures = failures.expect("the damaged key is not read");
    assert!(failures[alice.user_id()].values().all(|failure| *failure == SignatureFailure::NotFound));
    fixture.keys.upload_signatures(&alice, vec![signed("OTHER")], Vec::new()).await.expect_err("it is read");
}

#[tokio::test]
async fn a_device_has_keys_of_few_algorithms() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let own = (alice.user_id(), id_of(&alice));
    let key = |algorithm: usize| {
        let id = OwnedOneTimeKeyId::try_from(format!("signed_a{algorithm}:A").as_str()).expect("an ID");
        BTreeMap::from([(id, Raw::from_json_string(one_time_key(1).to_string()).expect("JSON"))])
    };
    for algorithm in 0..=MAX_ALGORITHMS {
        let one_time = Upload::check(own, None, &key(algorithm), &BTreeMap::new()).expect("a good key");
        let fallback = Upload::check(own, None, &BTreeMap::new(), &key(algorithm)).expect("a good key");
        for upload in [one_time, fallback] {
            let uploaded = fixture.keys.upload(&alice, upload, Vec::new()).await;
            assert_eq!(uploaded.is_ok(), algorithm < MAX_ALGORITHMS, "{algorithm}: {uploaded:?}");
        }
    }
}

fn room_key(session: &str, first_message_index: i64) -> RoomKey {
    let json = json!({
        "first_message_index": first_message_index, "forwarded_count": 0, "is_verified": false, "session_data": {},
    });
    let raw: Raw<()> = Raw::from_json_string(json.to_string()).expect("JSON");
    RoomKey::check(ruma::room_id!("!room:example.org"), session, &raw).expect("a good key")
}

async fn new_backup(fixture: &Fixture, user: UserNid) -> i64 {
    let algorithm: Raw<()> = Raw::from_json_string(r#"{"algorithm":"a","auth_data":{}}"#.to_owned()).expect("JSON");
    fixture.keys.create_backup(user, Algorithm::check(&algorithm).expect("it is good")).await.expect("created")
}

/// Says that the room keys of a version take so many bytes.
struct SetBytes(UserNid, i64, i64);

impl Transaction for SetBytes {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        key_backup::set_count(conn, self.0, self.1, 1, (1, self.2)).await
    }
}

#[tokio::test]
async fn the_bytes_of_all_backups_of_a_user_are_bounded() {
    let fixture = Fixture::new(|_| {}).await;
    let user = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await.user.nid;
    let keys = &fixture.keys;
    let full = new_backup(&fixture, user).await;
    fixture.db.committer().transact(SetBytes(user, full, MAX_BACKUP_BYTES)).await.expect("set");
    let version = new_backup(&fixture, user).await;
    let refused = keys.put_backup_keys(user, version, vec![room_key("a", 5)]).await;
    assert!(matches!(refused, Err(BackupError::Full)), "{refused:?}");
    keys.delete_backup(user, full).await.expect("deleted");
    keys.put_backup_keys(user, version, vec![room_key("a", 5)]).await.expect("there is room again");
}

#[tokio::test]
async fn a_large_backup_is_stored_and_deleted_piece_by_piece() {
    let fixture = Fixture::new(|_| {}).await;
    let user = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await.user.nid;
    let keys = &fixture.keys;
    let version = new_backup(&fixture, user).await;
    let many = |index: i64| (0..1_001).map(|number| room_key(&format!("s{number}"), index)).collect::<Vec<_>>();
    let bytes = async || {
        key_backup::totals(&mut fixture.db.read().await.expect("a reader").conn(), user).await.expect("read").bytes
    };
    let before = fixture.db.committer().published();
    assert_eq!(keys.put_backup_keys(user, version, many(5)).await.expect("stored").count, 1_001);
    assert!(fixture.db.committer().published().0 > before.0 + 4, "in several commits");
    let stored = bytes().await;
    // Again, and worse: nothing changes.
    for index in [5, 6] {
        assert_eq!(keys.put_backup_keys(user, version, many(index)).await.expect("taken").count, 1_001);
    }
    // Better ones of the same size.
    assert_eq!(keys.put_backup_keys(user, version, many(4)).await.expect("stored").count, 1_001);
    assert_eq!(bytes().await, stored);
    let part = Part::Session("!room:example.org".to_owned(), "s0".to_owned());
    assert_eq!(keys.delete_backup_keys(user, version, part).await.expect("deleted").count, 1_000);
    let deleted = keys.delete_backup_keys(user, version, Part::Room("!room:example.org".to_owned())).await;
    assert!(matches!(deleted, Ok(Stored { count: 0, .. })), "{deleted:?}");
    assert_eq!((bytes().await, count_rows(&fixture.db, "key_backup_session").await), (0, 0));
    // A deleted version is gone at once, and its keys a little later.
    keys.put_backup_keys(user, version, many(4)).await.expect("stored");
    keys.delete_backup(user, version).await.expect("deleted");
    assert!(matches!(keys.backup_page(user, version, &Part::All, None).await, Err(BackupError::NoSuchVersion)));
    crate::store::leftovers::sweep(&fixture.db).await.expect("swept");
    assert_eq!(count_rows(&fixture.db, "key_backup_session").await, 0);
}
