//! Requests of our users that are answered by another server.

use ruma::ServerName;
use sabha::server::StartError;
use serde_json::json;

use super::network::Network;
use crate::harness::{Engine, TestServer, v3};

const UNKNOWN: &str = "M_UNKNOWN";

both_engines! {
    async fn a_user_sees_profiles_and_aliases_of_another_server(engine: Engine) {
        let network = Network::of(&["a.test", "b.test", "dead.test"]);
        let a = network.start(engine, "a.test").await;
        let b = network.start(engine, "b.test").await;
        let alice = a.register("alice").await;
        let bob = b.register("bob").await;
        bob.put(&v3(["profile", &bob.user_id, "displayname"]), json!({ "displayname": "Bob" })).await.ok();
        bob.put(&v3(["profile", &bob.user_id, "m.tz"]), json!({ "m.tz": "Europe/Berlin" })).await.ok();
        let room = bob.create_room(json!({ "room_alias_name": "tea", "preset": "public_chat" })).await;

        let profile = alice.get(&v3(["profile", "@bob:b.test"])).await.ok();
        assert_eq!(profile, json!({ "displayname": "Bob", "m.tz": "Europe/Berlin" }));
        let name = alice.get(&v3(["profile", "@bob:b.test", "displayname"])).await.ok();
        assert_eq!(name, json!({ "displayname": "Bob" }));
        let zone = alice.get(&v3(["profile", "@bob:b.test", "m.tz"])).await.ok();
        assert_eq!(zone, json!({ "m.tz": "Europe/Berlin" }));
        let found = alice.get(&v3(["directory", "room", "#tea:b.test"])).await.ok();
        assert_eq!(found, json!({ "room_id": room, "servers": ["b.test"] }));

        bob.put(&v3(["directory", "list", "room", &room]), json!({ "visibility": "public" })).await.ok();
        let listed = alice.get("/_matrix/client/v3/publicRooms?server=b.test").await.ok();
        assert_eq!(listed["chunk"][0]["room_id"], room, "{listed}");
        let none = json!({ "filter": { "generic_search_term": "coffee" } });
        let listed = alice.post("/_matrix/client/v3/publicRooms?server=b.test", none).await.ok();
        assert_eq!(listed["chunk"], json!([]));
        assert_eq!(alice.get("/_matrix/client/v3/publicRooms").await.ok()["chunk"], json!([]));
        alice.get("/_matrix/client/v3/publicRooms?server=dead.test").await.error(502, UNKNOWN);

        // Things that the other server does not have.
        alice.get(&v3(["profile", "@nobody:b.test"])).await.error(404, "M_NOT_FOUND");
        alice.get(&v3(["profile", "@bob:b.test", "avatar_url"])).await.error(404, "M_NOT_FOUND");
        alice.get(&v3(["directory", "room", "#coffee:b.test"])).await.error(404, "M_NOT_FOUND");
        // Letters beyond ASCII survive two servers and a signature.
        bob.put(&v3(["directory", "room", "#чай:b.test"]), json!({ "room_id": room })).await.ok();
        assert_eq!(alice.get(&v3(["directory", "room", "#чай:b.test"])).await.ok()["room_id"], room);
        // Our own users and aliases are not requested from other servers.
        assert_eq!(alice.get(&v3(["profile", &alice.user_id])).await.ok(), json!({ "displayname": "alice" }));
        alice.get(&v3(["directory", "room", "#tea:a.test"])).await.error(404, "M_NOT_FOUND");
        // No server listens at this address.
        alice.get(&v3(["profile", "@bob:dead.test"])).await.error(502, UNKNOWN);
        alice.get(&v3(["directory", "room", "#tea:dead.test"])).await.error(502, UNKNOWN);
        // Addresses that the operator denies are never connected to, and the answer tells nothing about them.
        for user in ["@x:10.0.0.1", "@x:[::1]:22", "@x:[::ffff:10.0.0.1]", "@x:169.254.169.254:80"] {
            alice.get(&v3(["profile", user])).await.error(502, UNKNOWN);
        }
    }

    async fn without_federation_nobody_is_asked(engine: Engine) {
        let network = Network::of(&["a.test", "b.test"]);
        let a = network.builder(engine, "a.test").config(|config| config.federation.enabled = false).start().await;
        let b = network.start(engine, "b.test").await;
        let (alice, bob) = (a.register("alice").await, b.register("bob").await);
        bob.create_room(json!({ "room_alias_name": "tea" })).await;
        alice.get(&v3(["profile", "@bob:b.test"])).await.error(404, "M_NOT_FOUND");
        alice.get(&v3(["directory", "room", "#tea:b.test"])).await.error(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_vouches_for_is_not_asked() {
    let network = Network::of(&["a.test", "b.test"]);
    let without = network.builder(Engine::Sqlite, "a.test").config(|config| config.federation.ca_files.clear());
    let (a, b) = (without.start().await, network.start(Engine::Sqlite, "b.test").await);
    b.register("bob").await;
    a.register("alice").await.get(&v3(["profile", "@bob:b.test"])).await.error(502, UNKNOWN);
}

#[tokio::test]
async fn a_certificate_for_another_name_does_not_do() {
    let network = Network::of(&["a.test", "b.test"]);
    let a = network.start(Engine::Sqlite, "a.test").await;
    let wrong = network.tls("other.test");
    let b = network.builder(Engine::Sqlite, "b.test").config(|config| config.listeners[1].tls = Some(wrong));
    let b = b.start().await;
    b.register("bob").await;
    a.register("alice").await.get(&v3(["profile", "@bob:b.test"])).await.error(502, UNKNOWN);
}

#[tokio::test]
async fn a_denied_server_is_not_connected_to_even_if_the_map_names_it() {
    let network = Network::of(&["a.test", "b.test"]);
    let a = network.builder(Engine::Sqlite, "a.test").config(|config| config.outbound.allow.clear()).start().await;
    let b = network.start(Engine::Sqlite, "b.test").await;
    b.register("bob").await;
    a.register("alice").await.get(&v3(["profile", "@bob:b.test"])).await.error(502, UNKNOWN);
}

#[tokio::test]
async fn a_server_is_found_where_its_name_delegates_to() {
    // example.test serves only the well-known document; the server of its users is b.test.
    let network = Network::of(&["a.test", "example.test", "b.test"]);
    let a = network.start(Engine::Sqlite, "a.test").await;
    let document = TestServer::builder().config(network.join("example.test")).config(|config| {
        config.listeners[1].resources = vec![sabha::config::Resource::WellKnown];
        config.federation.well_known_server = Some("b.test:8448".to_owned());
    });
    let _document = document.start().await;
    let b = TestServer::builder().config(network.join("b.test")).config(|config| {
        config.server_name = ServerName::parse("example.test").unwrap();
    });
    let b = b.start().await;
    let bob = b.register("bob").await;
    assert_eq!(bob.user_id, "@bob:example.test");
    bob.put(&v3(["profile", &bob.user_id, "displayname"]), json!({ "displayname": "Bob" })).await.ok();
    let profile = a.register("alice").await.get(&v3(["profile", "@bob:example.test"])).await.ok();
    assert_eq!(profile, json!({ "displayname": "Bob" }));
}

#[tokio::test]
async fn a_missing_authority_stops_the_start_with_the_files_name() {
    let network = Network::of(&["a.test"]);
    let mut a = network.start(Engine::Sqlite, "a.test").await;
    a.stop().await;
    a.config_mut().federation.ca_files = vec![network.ca_file().with_extension("gone")];
    let refused = a.try_restart().await.err().expect("the file is not there");
    assert!(matches!(refused, StartError::Outbound(_)));
    let line = sabha::report::Report(&refused).to_string();
    assert!(line.starts_with("federation.ca_files: ") && line.contains("ca.gone cannot be read"), "{line}");
}
