//! Leftovers of devices and accounts are deleted piece by piece, and nothing else with them.

use super::{count_rows, postgres};
use crate::{
    clock::Clock,
    store::{
        Conn, Database, DatabaseOptions, DeviceNid, Durability, Error, EventNid, Patience, Position, RoomNid, Row,
        Transaction, UserNid, Write,
        account_data::ACCOUNT_DATA,
        cross_signing::KEY_SIGNATURE,
        device_keys::DEVICE_KEY,
        devices::{self, DEVICE},
        filters::FILTER,
        key_backup::{KEY_BACKUP_SESSION, KEY_BACKUP_VERSION},
        leftovers,
        log::Touch,
        one_time_keys::{CLAIMED_KEY, FALLBACK_KEY, ONE_TIME_KEY},
        profiles::{self, PROFILE},
        to_device::{TO_DEVICE, TO_DEVICE_SHARED},
        tokens::ACCESS_TOKEN,
        txn_ids::TXN_ID,
        unread::TALLY,
    },
};

/// More rows than any piece has.
const MANY: i64 = 1_100;

const TABLES: [&str; 16] = [
    "access_token",
    "account_data",
    "claimed_key",
    "device",
    "device_key",
    "fallback_key",
    "filter",
    "key_backup_session",
    "key_backup_version",
    "key_signature",
    "one_time_key",
    "profile",
    "to_device",
    "to_device_shared",
    "txn_id",
    "unread_tally",
];

async fn open(url: &str) -> Database {
    let options = DatabaseOptions {
        location: DatabaseOptions::location(url).expect("a URL of ours"),
        durability: Durability::Process,
        readers: 1,
        server_name: "sabha.test".to_owned(),
        incarnation: 1,
        clock: Clock::manual(0),
        patience: Patience::default(),
    };
    Database::open(options).await.expect("a new database")
}

/// `number` rows of everything that a user and their device may have.
fn rows(user: UserNid, device: DeviceNid, number: i64) -> Vec<Row> {
    let mut rows = vec![
        DEVICE.row([
            device.into(),
            user.into(),
            "DEV".into(),
            None::<String>.into(),
            0.into(),
            None::<i64>.into(),
            None::<String>.into(),
        ]),
        DEVICE_KEY.row([device.into(), user.into(), "{}".into()]),
        FALLBACK_KEY.row([device.into(), "a".into(), "k".into(), "{}".into(), false.into()]),
        KEY_SIGNATURE.row([user.into(), "DEV".into(), user.into(), "k".into(), "s".into()]),
        PROFILE.row([user.into(), "displayname".into(), "\"x\"".into()]),
        KEY_BACKUP_VERSION.row([
            user.into(),
            1.into(),
            "a".into(),
            "{}".into(),
            0.into(),
            number.into(),
            0.into(),
            false.into(),
        ]),
        ACCESS_TOKEN.row([
            device.0.to_le_bytes().to_vec().into(),
            user.into(),
            device.into(),
            0.into(),
            None::<i64>.into(),
            None::<Vec<u8>>.into(),
        ]),
    ];
    for index in 0..number {
        let name = format!("n{index:06}");
        let digest = index.to_le_bytes().to_vec();
        rows.extend([
            TXN_ID.row([device.into(), "send".into(), name.clone().into(), "".into(), 0.into()]),
            ONE_TIME_KEY.row([
                device.into(),
                "a".into(),
                name.clone().into(),
                index.into(),
                digest.clone().into(),
                "{}".into(),
            ]),
            CLAIMED_KEY.row([device.into(), digest.into()]),
            TO_DEVICE.row([
                device.into(),
                (index + 1).into(),
                0.into(),
                user.into(),
                "t".into(),
                1.into(),
                Some(user.0).into(),
                None::<String>.into(),
            ]),
            TO_DEVICE_SHARED.row([(index + 1).into(), user.0.into(), "{}".into()]),
            ACCOUNT_DATA.row([user.into(), RoomNid(0).into(), name.clone().into(), "{}".into(), 1.into(), 2.into()]),
            FILTER.row([user.into(), index.into(), "{}".into()]),
            TALLY.row([user.into(), index.into(), 1.into(), Vec::<u8>::new().into(), Vec::<u8>::new().into()]),
            KEY_BACKUP_SESSION.row([
                user.into(),
                1.into(),
                "!r".into(),
                name.into(),
                0.into(),
                0.into(),
                false.into(),
                1.into(),
                "{}".into(),
            ]),
        ]);
    }
    rows
}

/// The touches of [`rows`].
fn touches(user: UserNid, device: DeviceNid) -> [Touch; 7] {
    [
        Touch::Device { user, device, gone: false },
        Touch::DeviceList { user },
        Touch::KeyCounts { user, device },
        Touch::Profile { user },
        Touch::Txn { device, event: EventNid(1) },
        Touch::ToDevice { user, device, messages: 1, bytes: 1 },
        Touch::AccountData { user, room: RoomNid(0), kind: 0 },
    ]
}

/// Ends all devices of a user, and what belongs to the account.
struct End(UserNid);

impl Transaction for End {
    type Output = u64;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<u64, Error> {
        profiles::delete_belongings(conn, self.0).await?;
        let (devices, revoked) = devices::delete_devices(conn, self.0, DeviceNid(0)).await?;
        assert_eq!(revoked.len() as u64, devices, "each had one token");
        Ok(devices)
    }
}

#[tokio::test]
async fn what_is_left_over_goes_piece_by_piece_and_nothing_else_goes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut urls = vec![format!("sqlite:{}", dir.path().join("sabha.db").display())];
    let postgres = postgres::PostgresDatabase::create().await;
    urls.extend(postgres.as_ref().map(|database| database.url.clone()));
    for url in urls {
        let db = open(&url).await;
        let (ended, other) = ((UserNid(1), DeviceNid(1)), (UserNid(2), DeviceNid(2)));
        for ((user, device), number) in [(ended, MANY), (other, 3)] {
            let write = touches(user, device).into_iter().fold(Write::new(rows(user, device, number)), Write::touching);
            db.committer().write(write).await.expect("stored");
        }
        let counts = async || {
            let mut counts = Vec::new();
            for table in TABLES {
                counts.push((table, count_rows(&db, table).await));
            }
            counts
        };
        assert_eq!(db.committer().transact(End(ended.0)).await.expect("ended"), 1);
        let seen = ["access_token", "device", "device_key", "fallback_key", "profile"];
        for (table, count) in counts().await.into_iter().filter(|(table, _)| seen.contains(table)) {
            assert_eq!(count, 1, "{table} goes at once");
        }
        let before = db.committer().published();
        leftovers::sweep(&db).await.expect("swept");
        assert!(db.committer().published().0 > before.0 + 20, "in many commits");
        let once = [&seen[..], &["key_backup_version", "key_signature"]].concat();
        let expected: Vec<_> =
            TABLES.into_iter().map(|table| (table, if once.contains(&table) { 1 } else { 3 })).collect();
        assert_eq!(counts().await, expected, "{url}");
        assert_eq!(count_rows(&db, "leftover").await, 0);
        db.close().await;
    }
}
