//! Leftovers of devices and accounts are deleted piece by piece, and nothing else with them.

use std::sync::Arc;

use super::{count_rows, options, postgres};
use crate::{
    clock::Clock,
    store::{
        Conn, Database, DeviceNid, Error, EventNid, FilterNid, Position, RoomNid, Row, Transaction, UserNid, Write,
        account_data::AccountDataColumns,
        cross_signing::KeySignatureColumns,
        device_keys::DeviceKeyColumns,
        devices::{self, DeviceColumns},
        filters::FilterColumns,
        key_backup::{KeyBackupSessionColumns, KeyBackupVersionColumns},
        leftovers::Sweeper,
        log::{Cursor, Touch},
        one_time_keys::{ClaimedKeyColumns, FallbackKeyColumns, OneTimeKeyColumns},
        profiles::{self, ProfileColumns},
        to_device::{ToDeviceColumns, ToDeviceSharedColumns},
        tokens::AccessTokenColumns,
        txn_ids::TxnIdColumns,
        unread::TallyColumns,
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
    Database::open(options(url)).await.expect("a new database")
}

/// `number` rows of everything that a user and their device may have.
fn rows(user: UserNid, device: DeviceNid, number: i64) -> Vec<Row> {
    let mut rows = vec![
        DeviceColumns {
            device_nid: device,
            user_nid: user,
            device_id: "DEV".into(),
            display_name: None,
            created_at: 0,
            last_seen_at: None,
            last_seen_ip: None,
        }
        .row(),
        DeviceKeyColumns { device_nid: device, user_nid: user, json: "{}".into() }.row(),
        FallbackKeyColumns {
            device_nid: device,
            algorithm: "a".into(),
            key_id: "k".into(),
            json: "{}".into(),
            used: false,
        }
        .row(),
        KeySignatureColumns {
            user_nid: user,
            key_id: "DEV".into(),
            signer_nid: user,
            signer_key_id: "k".into(),
            signature: "s".into(),
        }
        .row(),
        ProfileColumns { user_nid: user, field: "displayname".into(), json: "\"x\"".into() }.row(),
        KeyBackupVersionColumns {
            user_nid: user,
            version: 1,
            algorithm: "a".into(),
            auth_data: "{}".into(),
            etag: 0,
            count: number,
            bytes: 0,
            deleted: false,
        }
        .row(),
        AccessTokenColumns {
            token_hash: [device.0.to_le_bytes(); 4].concat(),
            user_nid: user,
            device_nid: device,
            created_at: 0,
            expires_at: None,
            refresh_hash: None,
        }
        .row(),
    ];
    for index in 0..number {
        let name = format!("n{index:06}");
        let digest = index.to_le_bytes().to_vec();
        rows.extend([
            TxnIdColumns {
                device_nid: device,
                scope: "send".into(),
                txn: name.clone().into(),
                event_id: "".into(),
                created_at: 0,
            }
            .row(),
            OneTimeKeyColumns {
                device_nid: device,
                algorithm: "a".into(),
                key_id: name.clone().into(),
                seq: index,
                digest: digest.clone(),
                json: "{}".into(),
            }
            .row(),
            ClaimedKeyColumns { device_nid: device, digest }.row(),
            ToDeviceColumns {
                device_nid: device,
                pos: Position(index + 1),
                seq: 0,
                sender_nid: user,
                r#type: "t".into(),
                bytes: 1,
                share: Some(user.0),
                json: None,
            }
            .row(),
            ToDeviceSharedColumns { pos: Position(index + 1), share: user.0, json: "{}".into() }.row(),
            AccountDataColumns {
                user_nid: user,
                room_nid: RoomNid(0),
                r#type: name.clone().into(),
                json: "{}".into(),
                pos: Position(1),
                bytes: 2,
            }
            .row(),
            FilterColumns { user_nid: user, filter_id: FilterNid(index), json: "{}".into() }.row(),
            TallyColumns {
                user_nid: user,
                room_nid: RoomNid(index),
                upto: Position(1),
                basis: Vec::new(),
                tally: Vec::new(),
            }
            .row(),
            KeyBackupSessionColumns {
                user_nid: user,
                version: 1,
                room_id: "!r".into(),
                session_id: name.into(),
                first_message_index: 0,
                forwarded_count: 0,
                is_verified: false,
                bytes: 1,
                json: "{}".into(),
            }
            .row(),
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
        let devices = devices::delete_devices(conn, self.0, DeviceNid(0)).await?;
        let tokens = |touch: &Touch| if let Touch::Sessions { tokens, .. } = touch { tokens.len() as u64 } else { 0 };
        let revoked: u64 = conn.touches.iter().map(tokens).sum();
        assert_eq!(revoked, devices, "each had one token");
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
        let db = Arc::new(open(&url).await);
        let sweeper = Cursor::new(Sweeper::new(Arc::clone(&db)), Arc::clone(&db), Clock::manual(0));
        sweeper.step().await.expect("nothing is left over yet");
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
        sweeper.step().await.expect("swept");
        assert!(db.committer().published().0 > before.0 + 20, "in many commits");
        let once = [&seen[..], &["key_backup_version", "key_signature"]].concat();
        let expected: Vec<_> =
            TABLES.into_iter().map(|table| (table, if once.contains(&table) { 1 } else { 3 })).collect();
        assert_eq!(counts().await, expected, "{url}");
        assert_eq!(count_rows(&db, "leftover").await, 0);
        db.close().await;
    }
}
