//! Keys by time, without any network: no address may be connected to.

use ruma::server_name;
use sabha_federation::{OwnKey, published_keys};

use super::*;
use crate::{config, store::tests::NewDatabase};

const NOW: i64 = 1_700_000_000_000;
const DAY: i64 = 24 * 3_600_000;

/// A name that is an address, so that nobody looks it up. Connections to it are denied.
fn server() -> &'static ServerName {
    server_name!("10.0.0.1")
}

fn ring(db: &Arc<Database>, own: &Arc<ServerSigner>, notaries: &[OwnedServerName]) -> KeyRing {
    let (clock, budget) = (Clock::manual(NOW), Budget::new(1 << 28));
    let outbound = Arc::new(Outbound::new(&config::Outbound::default(), &[]).unwrap());
    let discovery = Arc::new(Discovery::new(Arc::clone(&outbound), clock.clone(), &budget));
    KeyRing::new(Arc::clone(db), clock, Arc::clone(own), (outbound, discovery), notaries, &budget)
}

fn own() -> Arc<ServerSigner> {
    Arc::new(ServerSigner::generate(ruma::owned_server_name!("sabha.test")))
}

/// The answer that the server publishes at this moment.
fn published(signer: &ServerSigner, at_ms: i64) -> PublishedKeys {
    let text = published_keys::publish(signer, at_ms).unwrap();
    PublishedKeys::parse(signer.server_name(), text.get().as_bytes(), at_ms).unwrap()
}

#[tokio::test]
async fn keys_are_found_by_time_and_outlive_a_restart() {
    for new in NewDatabase::of_both_engines().await {
        let signer = ServerSigner::generate(server().to_owned());
        let first = signer.current();
        let ring_of_before = ring(&new.db, &own(), &[]);
        let learn = async |at_ms: i64| {
            let answer = published(&signer, at_ms);
            ring_of_before.learn(server(), &ring_of_before.slot(server()), &answer, Source::Server).await;
        };
        learn(NOW).await;
        signer.rotate(OwnKey::generate(), NOW - DAY);
        learn(NOW).await;
        let second = signer.current();

        for ring in [ring_of_before, ring(&new.db, &own(), &[])] {
            let check = async |key: &OwnKey, at_ms: Option<i64>, is_found: bool| {
                let found = ring.at(server(), key.key_id(), at_ms).await;
                if is_found {
                    assert_eq!(found.unwrap(), key.public_key());
                } else {
                    // The server may know it, but cannot be asked.
                    assert!(!found.unwrap_err().is_definite());
                }
            };
            check(&first, Some(NOW - DAY), true).await;
            check(&first, Some(-1), true).await;
            check(&first, None, true).await;
            check(&second, Some(NOW), true).await;
            check(&second, Some(NOW + DAY), true).await;
            check(&first, Some(NOW - DAY + 1), false).await;
            check(&second, Some(NOW + DAY + 1), false).await;
            check(&OwnKey::generate(), None, false).await;
            assert_eq!(ring.find(server(), second.key_id()).await.unwrap(), second.public_key());
            // No key is valid for so long, so nobody is asked.
            let future = ring.at(server(), second.key_id(), Some(NOW + 8 * DAY)).await.unwrap_err();
            assert!(matches!(future, KeyError::Unknown) && future.is_definite());
        }
    }
}

#[tokio::test]
async fn our_own_keys_are_known_without_asking_anybody() {
    let [new, ..] = &NewDatabase::of_both_engines().await[..] else { panic!("SQLite is always there") };
    let own = own();
    let first = own.current();
    own.rotate(OwnKey::generate(), NOW);
    let ring = ring(&new.db, &own, &[own.server_name().to_owned()]);
    let at = async |key_id: &ServerSigningKeyId, at_ms| ring.at(own.server_name(), key_id, Some(at_ms)).await.ok();
    assert_eq!(at(first.key_id(), NOW).await, Some(first.public_key()));
    assert_eq!(at(first.key_id(), NOW + 1).await, None);
    assert_eq!(at(&own.key_id(), NOW + 1).await, Some(own.current().public_key()));
}

#[tokio::test]
async fn a_stored_key_is_not_replaced_even_by_those_who_do_not_know_it() {
    for new in NewDatabase::of_both_engines().await {
        let (signer, thief) =
            (ServerSigner::generate(server().to_owned()), ServerSigner::generate(server().to_owned()));
        let ring = ring(&new.db, &own(), &[]);
        ring.learn(server(), &ring.slot(server()), &published(&signer, NOW), Source::Server).await;
        let forged = ServerKeyRow {
            key_id: signer.key_id().to_string(),
            public_key: thief.current().public_key().as_bytes().to_vec(),
            valid_until: NOW + 9 * DAY,
            expired_at: None,
        };
        let answer = ServerKeyAnswer { json: "{}".into(), valid_until: NOW - DAY };
        let store = |keys: &[ServerKeyRow], is_present| StoreKeys {
            server_name: server().as_str().into(),
            keys: keys.to_vec(),
            answer: answer.clone(),
            is_present,
        };
        new.db.committer().transact(store(std::slice::from_ref(&forged), false)).await.unwrap();
        let mut reader = new.db.read().await.unwrap();
        let rows = rows::keys_of(&mut reader.conn(), server().as_str()).await.unwrap();
        let keys: Vec<_> = rows.iter().map(|row| (&row.key_id, &row.public_key, row.valid_until)).collect();
        assert_eq!(keys, [(&forged.key_id, &signer.current().public_key().as_bytes().to_vec(), NOW + DAY)]);
        // Nor does an answer that has ended replace one that is valid for longer, unless the server says so now.
        let stored = rows::answers_of(&mut reader.conn(), &[server().as_str()]).await.unwrap();
        assert_eq!(stored[server().as_str()].valid_until, NOW + DAY);
        drop(reader);
        new.db.committer().transact(store(&[], true)).await.unwrap();
        let stored = rows::answers_of(&mut new.db.read().await.unwrap().conn(), &[server().as_str()]).await.unwrap();
        assert_eq!(stored[server().as_str()].valid_until, NOW - DAY);
    }
}

#[test]
fn an_answer_settles_it_and_silence_does_not() {
    let check = |error: KeyError, is_definite: bool| assert_eq!(error.is_definite(), is_definite, "{error}");
    check(KeyError::Unknown, true);
    check(PublishedKeysError::NotSigned.into(), true);
    check(PublishedKeysError::OtherServer.into(), true);
    check(KeyError::Refused(StatusCode::NOT_FOUND), true);
    check(KeyError::Refused(StatusCode::FORBIDDEN), true);
    check(KeyError::Refused(StatusCode::TOO_MANY_REQUESTS), false);
    check(KeyError::Refused(StatusCode::INTERNAL_SERVER_ERROR), false);
    check(KeyError::Refused(StatusCode::FOUND), false);
    check(KeyError::AskedBefore, false);
    check(OutboundError::TimedOut(std::time::Duration::from_secs(1)).into(), false);
    check(store::Error::Stopping.into(), false);
}
