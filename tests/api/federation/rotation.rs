//! New signing keys of ours, seen by other servers.

use std::time::Duration;

use http::Method;
use ruma::ServerName;
use sabha::{
    admin_api::{self, Operation, OperationError},
    clock::Clock,
    report::Report,
};
use sabha_federation::{OwnKey, PublishedKeys, key_file};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::{
    network::{Network, authorization, signer},
    peers::PROFILE,
};
use crate::harness::{Engine, TestServer, v3};

const KEYS: &str = "/_matrix/key/v2/server";

async fn carry_out(server: &TestServer, operation: Operation) -> Result<Value, OperationError> {
    admin_api::carry_out(server.app(), operation).await
}

async fn rotate(server: &TestServer) {
    carry_out(server, Operation::RotateKey).await.expect("a new key");
}

async fn import(server: &TestServer, keys: &[&OwnKey]) -> Result<Value, String> {
    let mut file = Zeroizing::new(String::new());
    keys.iter().for_each(|key| file.push_str(&key_file::write(key)));
    carry_out(server, Operation::ImportKeys { file }).await.map_err(|error| Report(&error).to_string())
}

/// The IDs of the keys that the server publishes as current and as old.
async fn published(server: &TestServer, clock: &Clock) -> [Vec<String>; 2] {
    let answer = server.anonymous().get(KEYS).await;
    let name = ServerName::parse("b.test").expect("a server name");
    let keys = PublishedKeys::parse(&name, answer.text.as_bytes(), clock.now_ms()).expect("signed");
    [keys.current.keys().map(ToString::to_string).collect(), keys.old.keys().map(ToString::to_string).collect()]
}

fn sorted<const N: usize>(ids: [&str; N]) -> Vec<String> {
    let mut ids = ids.map(str::to_owned).to_vec();
    ids.sort();
    ids
}

#[tokio::test]
async fn no_request_is_refused_while_the_key_is_rotated_under_load() {
    let network = Network::of(&["a.test", "b.test"]);
    let a = network.start(Engine::Sqlite, "a.test").await;
    let b = network.start(Engine::Sqlite, "b.test").await;
    let (alice, bob) = (a.register("alice").await, b.register("bob").await);
    let path = v3(["profile", &bob.user_id, "displayname"]);
    let mut asking = JoinSet::new();
    for _ in 0..4 {
        let (alice, path) = (alice.clone(), path.clone());
        asking.spawn(async move {
            for _ in 0..25 {
                assert_eq!(alice.get(&path).await.ok(), json!({ "displayname": "bob" }));
            }
        });
    }
    let room = alice.create_room(json!({})).await;
    for n in 0..3 {
        alice.send_text(&room, &format!("before{n}"), "hello").await;
        let before = authorization(signer(&a), "b.test", Method::GET, PROFILE, "");
        rotate(&a).await;
        alice.send_text(&room, &format!("after{n}"), "hello").await;
        // The new key, and a request with the old one that has taken its time.
        alice.get(&path).await.ok();
        b.anonymous().request_as(Some(&before), Method::GET, PROFILE, None).await.ok();
    }
    asking.join_all().await;
}

both_engines! {
    async fn a_replaced_key_is_published_as_valid_for_minutes_and_as_old_for_ever(engine: Engine) {
        let network = Network::of(&["b.test"]);
        let clock = Clock::manual(Clock::System.now_ms());
        let mut b = network.builder(engine, "b.test").clock(clock.clone()).start().await;
        let first = signer(&b).key_id().to_string();
        rotate(&b).await;
        let second = signer(&b).key_id().to_string();
        assert_eq!(published(&b, &clock).await, [sorted([&first, &second]), vec![]]);
        clock.advance(Duration::from_secs(5 * 60));
        let after = [sorted([&second]), sorted([&first])];
        assert_eq!(published(&b, &clock).await, after);
        b.restart().await;
        assert_eq!(signer(&b).key_id().to_string(), second);
        assert_eq!(published(&b, &clock).await, after);

        // After a restart within that time, the secret of the replaced key is gone.
        rotate(&b).await;
        let third = signer(&b).key_id().to_string();
        b.restart().await;
        assert_eq!(published(&b, &clock).await, [sorted([&third]), sorted([&first, &second])]);
        let listed = carry_out(&b, Operation::ListKeys).await.expect("read");
        let listed = listed.as_array().expect("a list");
        assert_eq!(listed.len(), 3);
        for key in listed {
            assert_eq!(key["expired_at"].is_null(), key["key_id"] == third.as_str(), "{key}");
        }
    }

    async fn an_imported_key_is_used_and_those_beside_it_are_published_as_old(engine: Engine) {
        let network = Network::of(&["b.test"]);
        let clock = Clock::manual(Clock::System.now_ms());
        let mut b = network.builder(engine, "b.test").clock(clock.clone()).start().await;
        let first = signer(&b).key_id().to_string();
        let (imported, beside, other) = (OwnKey::generate(), OwnKey::generate(), OwnKey::generate());
        let said = import(&b, &[&imported, &beside]).await.expect("imported");
        assert_eq!((&said["key_id"], &said["backup_needed"]), (&json!(imported.key_id()), &json!(true)));
        assert_eq!(signer(&b).key_id(), *imported.key_id());
        clock.advance(Duration::from_secs(5 * 60));
        let after = [sorted([imported.key_id().as_str()]), sorted([&first, beside.key_id().as_str()])];
        assert_eq!(published(&b, &clock).await, after);

        // Again, it changes nothing.
        let said = import(&b, &[&imported, &beside]).await.expect("nothing to do");
        assert_eq!(said["backup_needed"], false);
        let refused = import(&b, &[&beside]).await.expect_err("a former one");
        assert!(refused.contains("was replaced by a later key"), "{refused}");
        let seed = key_file::write(&other).split_whitespace().last().expect("a seed").to_owned();
        let forged = format!("ed25519 {} {seed}", imported.key_id().key_name());
        let forged = key_file::read(forged.as_bytes()).expect("a key");
        for keys in [[&forged[0], &other], [&other, &forged[0]]] {
            let refused = import(&b, &keys).await.expect_err("a name that is taken");
            assert!(refused.contains("another key with the name"), "{refused}");
        }
        let nonsense = Operation::ImportKeys { file: Zeroizing::new("nonsense".to_owned()) };
        assert!(matches!(carry_out(&b, nonsense).await, Err(OperationError::NoKey(_))));
        assert_eq!(published(&b, &clock).await, after);
        b.restart().await;
        assert_eq!(published(&b, &clock).await, after);
    }
}
