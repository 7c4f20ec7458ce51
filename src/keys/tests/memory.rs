//! Memory that follows the commits: each service on a database is like a new one, whoever made the change.

use tokio::task::JoinSet;

use super::*;
use crate::store::tests::NewDatabase;

/// Requests at the same time.
const REQUESTS: usize = 20;

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

#[tokio::test]
async fn requests_at_the_same_time_read_a_cold_inbox_once_and_their_commits_are_counted() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let config = Config { server_name: owned_server_name!("example.org"), ..Config::default() };
        let service = || Arc::new(Keys::new(Arc::clone(&db), Clock::manual(0), &config, &Budget::new(64 << 20)));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let warm = Fixture { directory, db: Arc::clone(&db), keys: service(), config: config.clone() };
        let alice = Arc::new(warm.device(&owned_user_id!("@alice:example.org"), "DEV").await);
        let bob = Arc::new(warm.device(&owned_user_id!("@bob:example.org"), "BOB").await);
        for number in 0..5 {
            send(&warm, &alice, &format!("t{number}"), &bob, number).await;
        }

        let (cold, device) = (service(), bob.device_nid);
        let before = db.counters().statements();
        let requests = (0..REQUESTS).map(|_| {
            let keys = Arc::clone(&cold);
            async move { keys.inbox(device).await.expect("an inbox").count }
        });
        assert_eq!(requests.collect::<JoinSet<_>>().join_all().await, [5; REQUESTS]);
        assert_eq!(db.counters().statements() - before, 1);

        // The first commits come while others still wait for the read.
        let cold = Arc::new(Fixture { keys: service(), ..warm });
        let sends = (0_i64..).take(REQUESTS).map(|number| {
            let (cold, alice, bob) = (Arc::clone(&cold), Arc::clone(&alice), Arc::clone(&bob));
            async move { send(&cold, &alice, &format!("c{number}"), &bob, number).await }
        });
        sends.collect::<JoinSet<_>>().join_all().await;
        assert_eq!(digest(&cold.keys, device).await, digest(&service(), device).await);
    }
}
