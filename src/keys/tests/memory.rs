//! Memory that follows the commits: each service on a database is like a new one, whoever made the change.

use super::*;
use crate::store::tests::NewDatabase;

/// The parts of memory that a sync of the device asks for.
async fn digest(keys: &Keys, device: DeviceNid) -> String {
    let counts = keys.counts(device).await.expect("counts");
    let inbox = keys.inbox(device).await.expect("an inbox");
    format!("{:?} {:?} {:?} {:?}", counts.one_time, counts.unused_fallback, inbox.newest, (inbox.count, inbox.bytes))
}

#[tokio::test]
async fn keys_in_memory_are_like_read_ones_after_each_commit() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let config = Config { server_name: owned_server_name!("example.org"), ..Config::default() };
        let service = || Arc::new(Keys::new(Arc::clone(&db), Clock::manual(0), &config, &Budget::new(64 << 20)));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let fixture = Fixture { directory, db: Arc::clone(&db), keys: service(), config: config.clone() };
        let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
        let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
        // Nobody tells this one of a change, except the entries of the commit log.
        let follower = service();
        for step in 0..5 {
            for keys in [&fixture.keys, &follower] {
                digest(keys, bob.device_nid).await;
            }
            let keys = &fixture.keys;
            match step {
                0 => {
                    let keys = [("A", one_time_key(1)), ("B", one_time_key(2))];
                    assert_eq!(upload(&fixture.keys, &bob, &keys, &[("F", one_time_key(3))]).await.expect("new"), 2);
                }
                1 => send(&fixture, &alice, "t1", &bob, 1).await,
                2 => send(&fixture, &alice, "t2", &bob, 2).await,
                3 => {
                    let first = Position(db.committer().published().0 - 1);
                    keys.acknowledge_to_device(bob.device_nid, first).await.expect("acknowledged");
                    keys.delete_acknowledged().await.expect("deleted");
                }
                _ => {
                    let algorithm = OneTimeKeyAlgorithm::from(SIGNED);
                    let wanted = [(id_of(&bob).to_owned(), algorithm)].into_iter().collect();
                    let wanted = [(bob.user_id().to_owned(), wanted)].into_iter().collect();
                    keys.claim(&wanted).await.expect("claimed");
                }
            }
            let expected = digest(&service(), bob.device_nid).await;
            assert_eq!(digest(&fixture.keys, bob.device_nid).await, expected, "step {step}");
            assert_eq!(digest(&follower, bob.device_nid).await, expected, "step {step}");
        }

        let before = db.committer().published();
        let write = Write::default().touching(Touch::DeviceList { user: alice.user.nid });
        let upto = db.committer().write(write).await.expect("stored");
        for keys in [&fixture.keys, &follower] {
            let changed = keys.device_lists_changed(&OneRoom, bob.user.nid, before, upto).await.expect("changes");
            assert_eq!(changed, [alice.user_id().to_owned()]);
        }
    }
}
