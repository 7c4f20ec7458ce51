//! Signing keys: those of others by time, through notaries, and for others as a notary.

use std::time::Duration;

use ruma::ServerName;
use sabha::clock::Clock;
use sabha_federation::{OwnKey, PublicKey, PublishedKeys, ServerSigner, published_keys};
use serde_json::{Value, json};

use super::{
    network::{Network, get_as, signer},
    peers::{PROFILE, Peer, keys_until, nothing},
};
use crate::harness::{Client, Engine, TestServer};

const HOUR: i64 = 3_600_000;

/// A network of b.test and these peers, and a clock that stands at the present.
struct Scene {
    network: Network,
    clock: Clock,
    b: TestServer,
}

impl Scene {
    async fn start(engine: Engine, names: &[&'static str], notaries: &[&'static str]) -> Self {
        let network = Network::of(&[&["b.test"], names].concat());
        let clock = Clock::manual(Clock::System.now_ms());
        let notaries = notaries.iter().map(|name| ServerName::parse(name).expect("a server name")).collect();
        let builder = network.builder(engine, "b.test").clock(clock.clone());
        let b = builder.config(|config| config.federation.trusted_notaries = notaries).start().await;
        b.register("bob").await;
        Self { network, clock, b }
    }

    async fn peer(&self, name: &'static str) -> Peer {
        Peer::start(&self.network, name, self.clock.now_ms() + HOUR, nothing).await
    }

    /// Lets the pause after a useless request pass.
    fn pass_pause(&self) {
        self.clock.advance(Duration::from_secs(130));
    }

    async fn is_believed(&self, signer: &ServerSigner) -> bool {
        match get_as(&self.b.anonymous(), signer, "b.test", PROFILE).await.status.as_u16() {
            200 => true,
            401 => false,
            other => panic!("unexpected: {other}"),
        }
    }

    fn until(&self, signer: &ServerSigner) -> Option<String> {
        Some(keys_until(signer, self.clock.now_ms() + HOUR))
    }
}

fn of(name: &str) -> ServerSigner {
    ServerSigner::generate(ServerName::parse(name).expect("a server name"))
}

/// The signer of the same name that has only this key.
fn only(signer: &ServerSigner) -> ServerSigner {
    ServerSigner::from_key_file(signer.server_name().to_owned(), &signer.to_key_file()).expect("our file")
}

/// Another key with the name of this one.
fn forged(signer: &ServerSigner) -> ServerSigner {
    let seed = of("any.test").to_key_file().split_whitespace().last().expect("a seed").to_owned();
    let file = format!("ed25519 {} {seed}", signer.key_id().key_name());
    ServerSigner::from_key_file(signer.server_name().to_owned(), &file).expect("a key file")
}

both_engines! {
    async fn a_new_key_is_believed_at_once_and_a_retired_one_no_more(engine: Engine) {
        let scene = Scene::start(engine, &["peer.test"], &[]).await;
        let peer = scene.peer("peer.test").await;
        let old = only(&peer.signer);
        assert!(scene.is_believed(&old).await);
        for n in 2..5 {
            peer.signer.rotate(OwnKey::generate(), scene.clock.now_ms() - 1);
            peer.publishes(scene.until(&only(&peer.signer)));
            assert!(scene.is_believed(&peer.signer).await);
            assert_eq!(peer.asked(), n, "each answer was of use, so there is no pause");
        }
        scene.pass_pause();
        assert!(!scene.is_believed(&old).await);
        // The server may take it back.
        peer.publishes(scene.until(&old));
        scene.pass_pause();
        assert!(scene.is_believed(&old).await);
    }
}

#[tokio::test]
async fn a_key_is_not_replaced_by_another_of_its_name() {
    let scene = Scene::start(Engine::Sqlite, &["peer.test"], &[]).await;
    let peer = scene.peer("peer.test").await;
    assert!(scene.is_believed(&peer.signer).await);
    // Somebody else has the name for a while.
    let forged = forged(&peer.signer);
    peer.publishes(scene.until(&forged));
    let unknown = of("peer.test");
    assert!(!scene.is_believed(&unknown).await);
    assert!(!scene.is_believed(&forged).await);
    assert_eq!(peer.asked(), 2);
    scene.pass_pause();
    peer.publishes(scene.until(&peer.signer));
    assert!(scene.is_believed(&peer.signer).await);
    assert!(!scene.is_believed(&forged).await);
}

#[tokio::test]
async fn answers_that_are_not_believed_do_not_harm_known_keys() {
    let scene = Scene::start(Engine::Sqlite, &["peer.test"], &[]).await;
    let peer = scene.peer("peer.test").await;
    assert!(scene.is_believed(&peer.signer).await);
    let (next, thief) = (of("peer.test"), of("thief.test"));
    let good = scene.until(&next).expect("an answer");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut answer: Value = serde_json::from_str(&good).expect("JSON");
        change(&mut answer);
        answer.to_string()
    };
    let answers = [
        "[]".to_owned(),
        "not JSON".to_owned(),
        // Larger than any answer.
        format!("{}{good}", " ".repeat(65 * 1024)),
        keys_until(&thief, scene.clock.now_ms() + HOUR),
        changed(&|answer| answer["signatures"] = json!({})),
        changed(&|answer| answer["valid_until_ts"] = json!(-1)),
        changed(&|answer| answer["valid_until_ts"] = json!(1.5)),
        changed(&|answer| answer["valid_until_ts"] = json!(1_i64 << 53)),
        changed(&|answer| answer["old_verify_keys"] = json!({ "ed25519:x": { "key": "AAAA", "expired_ts": -1 } })),
        changed(&|answer| answer["signatures"] = json!({ "peer.test": { next.key_id().as_str(): "AAAA" } })),
        // Right, but its time is over.
        keys_until(&next, scene.clock.now_ms()),
        keys_until(&next, 0),
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        peer.publishes(Some(answer));
        assert!(!scene.is_believed(&next).await, "answer {n}");
        assert_eq!(peer.asked(), n + 2);
        assert!(scene.is_believed(&peer.signer).await, "answer {n}");
        scene.pass_pause();
    }
    peer.publishes(scene.until(&next));
    assert!(scene.is_believed(&next).await);
}

#[tokio::test]
async fn a_server_cannot_make_its_keys_valid_for_more_than_seven_days() {
    let scene = Scene::start(Engine::Sqlite, &["peer.test"], &[]).await;
    let peer = scene.peer("peer.test").await;
    peer.publishes(Some(keys_until(&peer.signer, (1 << 53) - 1)));
    assert!(scene.is_believed(&peer.signer).await);
    peer.publishes(None);
    scene.clock.advance(Duration::from_secs(7 * 24 * 3600 - 1));
    assert!(scene.is_believed(&peer.signer).await);
    assert_eq!(peer.asked(), 1);
    scene.clock.advance(Duration::from_secs(2));
    assert!(!scene.is_believed(&peer.signer).await);
    assert_eq!(peer.asked(), 2);
}

#[tokio::test]
async fn a_trusted_notary_shows_the_keys_of_a_server_that_is_gone() {
    let scene = Scene::start(Engine::Sqlite, &["notary.test", "gone.test"], &["notary.test"]).await;
    let notary = scene.peer("notary.test").await;
    let countersigned =
        |answer: &str| published_keys::countersign(&notary.signer, answer).expect("an answer").get().to_owned();
    // Nobody listens at gone.test.
    let gone = of("gone.test");
    assert!(!scene.is_believed(&gone).await);
    let check = async |answers: &[String], is_believed: bool| {
        scene.pass_pause();
        notary.knows(answers);
        assert_eq!(scene.is_believed(&gone).await, is_believed, "{answers:?}");
    };
    let good = scene.until(&gone).expect("an answer");
    let thief = of("gone.test");
    // Without its signature, with a wrong one, of another server, for another server, and not valid now.
    check(std::slice::from_ref(&good), false).await;
    for other in [forged(&notary.signer), of("notary.test"), of("other.test")] {
        let wrong = published_keys::countersign(&other, &good).expect("an answer").get().to_owned();
        check(&[wrong], false).await;
    }
    check(&[countersigned(&keys_until(&of("other.test"), scene.clock.now_ms() + HOUR))], false).await;
    check(&[countersigned(&keys_until(&gone, scene.clock.now_ms() - 1))], false).await;
    check(&[countersigned(&keys_until(&thief, scene.clock.now_ms() + HOUR))], false).await;
    check(&[], false).await;
    let fresh = scene.until(&gone).expect("an answer");
    check(&[countersigned(&fresh)], true).await;
}

/// The answers of b.test as a notary, each checked with both keys.
async fn notary_answers(scene: &Scene, client: &Client, wanted: Value, peers: &[&Peer]) -> Vec<PublishedKeys> {
    let answer = client.post("/_matrix/key/v2/query", json!({ "server_keys": wanted })).await.ok();
    let b = signer(&scene.b);
    let parse = |answer: &Value| {
        let peer = peers.iter().find(|peer| answer["server_name"] == peer.signer.server_name().as_str());
        let (text, name) = (answer.to_string(), peer.expect("a known one").signer.server_name());
        let keys = PublishedKeys::parse(name, text.as_bytes(), scene.clock.now_ms()).expect("signed by its server");
        assert!(keys.is_signed_by(b.server_name(), &b.key_id(), PublicKey::of(b)));
        keys
    };
    answer["server_keys"].as_array().expect("a list").iter().map(parse).collect()
}

both_engines! {
    async fn as_a_notary_we_pass_on_the_answers_of_others_with_our_signature(engine: Engine) {
        let mut scene = Scene::start(engine, &["one.test", "two.test", "gone.test"], &[]).await;
        let (one, two) = (scene.peer("one.test").await, scene.peer("two.test").await);
        let both = json!({ "one.test": {}, "two.test": {}, "gone.test": {} });
        for _ in 0..3 {
            let answers = notary_answers(&scene, &scene.b.anonymous(), both.clone(), &[&one, &two]).await;
            assert_eq!(answers.len(), 2);
        }
        assert_eq!((one.asked(), two.asked()), (1, 1), "the stored answers do");
        let single = scene.b.anonymous().get("/_matrix/key/v2/query/one.test?minimum_valid_until_ts=1").await.ok();
        assert_eq!(single["server_keys"].as_array().map(Vec::len), Some(1));
        let none = scene.b.anonymous().get("/_matrix/key/v2/query/gone.test?minimum_valid_until_ts=1").await.ok();
        assert_eq!(none, json!({ "server_keys": [] }));

        // A key that the stored answer has, one that it has not, and a time that it does not reach.
        let known = json!({ "one.test": { one.signer.key_id().as_str(): {} } });
        assert_eq!(notary_answers(&scene, &scene.b.anonymous(), known.clone(), &[&one]).await.len(), 1);
        assert_eq!(one.asked(), 1);
        scene.pass_pause();
        let unknown = json!({ "one.test": { "ed25519:unknown": {} } });
        for _ in 0..3 {
            assert_eq!(notary_answers(&scene, &scene.b.anonymous(), unknown.clone(), &[&one]).await.len(), 1);
        }
        assert_eq!(one.asked(), 2);
        scene.pass_pause();
        let later = scene.clock.now_ms() + 2 * HOUR;
        let later = json!({ "one.test": { one.signer.key_id().as_str(): { "minimum_valid_until_ts": later } } });
        one.publishes(Some(keys_until(&one.signer, scene.clock.now_ms() + 3 * HOUR)));
        let answers = notary_answers(&scene, &scene.b.anonymous(), later, &[&one]).await;
        assert_eq!(answers[0].valid_until_ms, scene.clock.now_ms() + 3 * HOUR);
        assert_eq!(one.asked(), 3);

        // A server that is gone keeps its last answer, also over a restart, although it has ended.
        one.publishes(None);
        scene.b.restart().await;
        scene.clock.advance(Duration::from_secs(30 * 24 * 3600));
        let answers = notary_answers(&scene, &scene.b.anonymous(), known, &[&one]).await;
        assert!(answers[0].valid_until_ms < scene.clock.now_ms());
        assert_eq!(one.asked(), 4);
    }
}

#[tokio::test]
async fn a_request_to_a_notary_names_a_hundred_servers_at_most() {
    let scene = Scene::start(Engine::Sqlite, &[], &[]).await;
    let client = scene.b.anonymous();
    // Addresses that may not be connected to.
    let servers = |count: usize| -> Value { (0..count).map(|n| (format!("10.0.0.{n}"), json!({}))).collect() };
    let ask = async |count: usize| client.post("/_matrix/key/v2/query", json!({ "server_keys": servers(count) })).await;
    assert_eq!(ask(100).await.ok(), json!({ "server_keys": [] }));
    ask(101).await.error(400, "M_INVALID_PARAM");
    assert_eq!(ask(0).await.ok(), json!({ "server_keys": [] }));
}
