//! Answers to other servers, and the checks of their signatures.

use std::time::Duration;

use http::Method;
use ruma::ServerName;
use sabha::clock::Clock;
use sabha_federation::{PublishedKeys, ServerSigner};
use serde_json::json;

use super::network::{Network, authorization, forged, get_as, signer};
use crate::harness::{Engine, TestServer, v3};

const KEYS: &str = "/_matrix/key/v2/server";
const VERSION: &str = "/_matrix/federation/v1/version";
const PROFILE: &str = "/_matrix/federation/v1/query/profile?user_id=%40bob%3Ab.test";

#[tokio::test]
async fn a_server_publishes_its_version_and_its_keys() {
    // Nobody listens at the address of c.test.
    let network = Network::of(&["b.test", "c.test"]);
    let b = network.start(Engine::Sqlite, "b.test").await;
    let anyone = b.anonymous();
    assert_eq!(anyone.get(VERSION).await.ok()["server"]["name"], "Sabha");

    let published = anyone.get(KEYS).await;
    let now = Clock::System.now_ms();
    let keys = PublishedKeys::parse(&ServerName::parse("b.test").unwrap(), published.text.as_bytes(), now).unwrap();
    assert_eq!(keys.current.into_keys().collect::<Vec<_>>(), [signer(&b).key_id()]);
    let hour = 3_600_000;
    assert!(keys.valid_until_ms > now + hour && keys.valid_until_ms < now + 48 * hour, "{}", keys.valid_until_ms);

    // As a notary the server returns its own keys.
    for answer in [
        anyone.get("/_matrix/key/v2/query/b.test").await.ok(),
        anyone.post("/_matrix/key/v2/query", json!({ "server_keys": { "b.test": {}, "c.test": {} } })).await.ok(),
    ] {
        let listed = answer["server_keys"].as_array().unwrap();
        assert_eq!(listed.len(), 1, "{answer}");
        assert_eq!(listed[0]["server_name"], "b.test");
    }
    assert_eq!(anyone.get("/_matrix/key/v2/query/c.test").await.ok(), json!({ "server_keys": [] }));
}

#[tokio::test]
async fn without_federation_there_are_no_such_endpoints() {
    let network = Network::of(&["b.test"]);
    let off =
        network.builder(Engine::Sqlite, "b.test").config(|config| config.federation.enabled = false).start().await;
    for path in [KEYS, VERSION, PROFILE, "/_matrix/key/v2/query/b.test", "/_matrix/federation/v1/publicRooms"] {
        off.anonymous().get(path).await.error(404, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn they_are_served_where_the_configuration_says() {
    let network = Network::of(&["b.test"]);
    let b = network
        .builder(Engine::Sqlite, "b.test")
        .config(|config| config.listeners[0].resources = vec![sabha::config::Resource::Client])
        .start()
        .await;
    b.anonymous().get(KEYS).await.error(404, "M_UNRECOGNIZED");
}

both_engines! {
    async fn only_a_request_that_its_origin_signed_for_us_is_answered(engine: Engine) {
        let network = Network::of(&["a.test", "b.test", "c.test"]);
        let a = network.start(engine, "a.test").await;
        let b = network.start(engine, "b.test").await;
        let bob = b.register("bob").await;
        bob.put(&v3(["profile", &bob.user_id, "displayname"]), json!({ "displayname": "Bob" })).await.ok();
        let client = b.anonymous();

        let answer = get_as(&client, signer(&a), "b.test", PROFILE).await.ok();
        assert_eq!(answer, json!({ "displayname": "Bob" }));

        let ask = async |authorization: Option<&str>, path: &str| {
            client.request_as(authorization, Method::GET, path, None).await
        };
        // The signature is missing or cannot be parsed.
        for header in [None, Some("Bearer abc"), Some("X-Matrix"), Some("X-Matrix origin=a.test,key=\"ed25519:1\"")] {
            ask(header, PROFILE).await.error(401, "M_UNAUTHORIZED");
        }
        // A request that was signed for c.test cannot be used here.
        get_as(&client, signer(&a), "c.test", PROFILE).await.error(401, "M_UNAUTHORIZED");
        // Nor can it be used with another destination, or without one.
        let for_c = authorization(signer(&a), "c.test", Method::GET, PROFILE, "");
        ask(Some(&for_c.replace("destination=c.test", "destination=b.test")), PROFILE).await.error(401, "M_UNAUTHORIZED");
        ask(Some(&for_c.replace("destination=c.test,", "")), PROFILE).await.error(401, "M_UNAUTHORIZED");
        // The request differs from the signed one.
        let for_b = authorization(signer(&a), "b.test", Method::GET, PROFILE, "");
        ask(Some(&for_b), &PROFILE.replace("bob", "bo")).await.error(401, "M_UNAUTHORIZED");
        ask(Some(&for_b), &format!("{PROFILE}&field=displayname")).await.error(401, "M_UNAUTHORIZED");
        // Signed with another key under the same ID, and with a key that a.test does not publish.
        get_as(&client, &forged(&a), "b.test", PROFILE).await.error(401, "M_UNAUTHORIZED");
        let unknown = ServerSigner::generate(ServerName::parse("a.test").expect("a server name"));
        get_as(&client, &unknown, "b.test", PROFILE).await.error(401, "M_UNAUTHORIZED");
        // Signed with a.test's key in the name of another server, of our own, and of one that does not exist.
        for name in ["c.test", "b.test", "nowhere.test"] {
            ask(Some(&for_b.replace("origin=a.test", &format!("origin={name}"))), PROFILE).await.error(401, "M_UNAUTHORIZED");
        }
        // Servers from before v1.3 send no destination, but sign it.
        assert_eq!(ask(Some(&for_b.replace("destination=b.test,", "")), PROFILE).await.ok(), json!({ "displayname": "Bob" }));

        // Users that do not exist or are not ours, and invalid parameters.
        let path = |user: &str| PROFILE.replace("%40bob%3Ab.test", user);
        get_as(&client, signer(&a), "b.test", &path("%40nobody%3Ab.test")).await.error(404, "M_NOT_FOUND");
        get_as(&client, signer(&a), "b.test", &path("%40alice%3Aa.test")).await.error(404, "M_NOT_FOUND");
        get_as(&client, signer(&a), "b.test", &path("bob")).await.error(400, "M_INVALID_PARAM");
        get_as(&client, signer(&a), "b.test", "/_matrix/federation/v1/query/profile").await.error(400, "M_MISSING_PARAM");
        // A single field, also one that is not set.
        let field = |field: &str| format!("{PROFILE}&field={field}");
        assert_eq!(get_as(&client, signer(&a), "b.test", &field("displayname")).await.ok(), json!({ "displayname": "Bob" }));
        assert_eq!(get_as(&client, signer(&a), "b.test", &field("avatar_url")).await.ok(), json!({}));
    }

    async fn the_public_directory_is_open_to_other_servers(engine: Engine) {
        let network = Network::of(&["a.test", "b.test"]);
        let a = network.start(engine, "a.test").await;
        let b = network.start(engine, "b.test").await;
        let bob = b.register("bob").await;
        let room = bob.create_room(json!({ "preset": "public_chat", "visibility": "public", "name": "Tea" })).await;
        let at_home = json!({
            "preset": "public_chat", "visibility": "public", "name": "Tea at home", "creation_content": { "m.federate": false },
        });
        bob.create_room(at_home).await;
        let path = "/_matrix/federation/v1/publicRooms";
        let own = bob.get(&v3(["publicRooms"])).await.ok();
        assert_eq!(own["chunk"].as_array().map(Vec::len), Some(2), "{own}");
        let listed = get_as(&b.anonymous(), signer(&a), "b.test", path).await.ok();
        assert_eq!(listed["chunk"].as_array().map(Vec::len), Some(1), "{listed}");
        assert_eq!(listed["chunk"][0]["room_id"], room);
        for (term, expected) in [("tea", 1), ("coffee", 0)] {
            let body = json!({ "filter": { "generic_search_term": term } }).to_string();
            let header = authorization(signer(&a), "b.test", Method::POST, path, &body);
            let listed = b.anonymous().request_as(Some(&header), Method::POST, path, Some(body.clone())).await.ok();
            assert_eq!(listed["chunk"].as_array().expect("a checked answer has it").len(), expected);
            // The signature covers the body.
            let other = body.replace("te", "be").replace("co", "bo");
            b.anonymous().request_as(Some(&header), Method::POST, path, Some(other)).await.error(401, "M_UNAUTHORIZED");
        }
    }

    async fn keys_are_believed_while_valid_and_survive_a_restart(engine: Engine) {
        let network = Network::of(&["a.test", "b.test"]);
        let start_ms = Clock::System.now_ms();
        let (clock_a, clock_b) = (Clock::manual(start_ms), Clock::manual(start_ms));
        let mut a = network.builder(engine, "a.test").clock(clock_a.clone()).start().await;
        let mut b = network.builder(engine, "b.test").clock(clock_b.clone()).start().await;
        b.register("bob").await;
        let signed = authorization(signer(&a), "b.test", Method::GET, PROFILE, "");
        let ask = async |b: &TestServer| b.anonymous().request_as(Some(&signed), Method::GET, PROFILE, None).await;
        ask(&b).await.ok();

        // b.test does not contact a.test again, and still knows its key.
        a.stop().await;
        b.restart().await;
        ask(&b).await.ok();

        // After its end the key is invalid, until a.test publishes it again.
        clock_b.advance(Duration::from_secs(25 * 3600));
        ask(&b).await.error(401, "M_UNAUTHORIZED");
        a.restart().await;
        // The clock of a.test is slow, so the validity that it publishes has ended already.
        clock_b.advance(Duration::from_secs(3600));
        ask(&b).await.error(401, "M_UNAUTHORIZED");
        clock_a.advance(Duration::from_secs(26 * 3600));
        // b.test asks again only after a pause.
        ask(&b).await.error(401, "M_UNAUTHORIZED");
        clock_b.advance(Duration::from_secs(120));
        ask(&b).await.ok();
    }
}
