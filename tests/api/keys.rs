//! Keys for end-to-end encryption ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption

use ruma::{CanonicalJsonObject, serde::Base64, signatures::Ed25519KeyPair};
use sabha::keys::{
    claim::MAX_CLAIMED_DEVICES,
    query::{MAX_QUERIED_DEVICES, MAX_QUERIED_USERS},
    to_device::MAX_MESSAGES,
};
use serde_json::{Map, Value, json};

use crate::harness::{Client, PASSWORD, TestServer, v3};

/// An Ed25519 key that is named by its public part, as cross-signing keys are, or by a device.
struct Key {
    public: String,
    pair: Ed25519KeyPair,
}

impl Key {
    fn new(name: Option<&str>) -> Self {
        let der = Ed25519KeyPair::generate();
        let pair = |name: &str| Ed25519KeyPair::from_der(&der, name.to_owned()).expect("it was just made");
        let public = Base64::<ruma::serde::base64::Standard, _>::new(pair("-").public_key()).encode();
        Self { pair: pair(name.unwrap_or(&public)), public }
    }

    fn sign(&self, user_id: &str, value: &Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(value.clone()).expect("the tests sign objects");
        ruma::signatures::sign_json(user_id, &self.pair, &mut object).expect("it can be signed");
        serde_json::to_value(object).expect("it is JSON")
    }

    /// Returns this key as a cross-signing key.
    fn published(&self, user_id: &str, usage: &str) -> Value {
        json!({
            "user_id": user_id, "usage": [usage], "keys": { format!("ed25519:{}", self.public): self.public },
        })
    }
}

/// A user's cross-signing keys.
struct CrossSigning {
    user_id: String,
    master: Key,
    self_signing: Key,
    user_signing: Key,
}

impl CrossSigning {
    fn new(client: &Client) -> Self {
        let user_id = client.user_id.clone();
        Self { user_id, master: Key::new(None), self_signing: Key::new(None), user_signing: Key::new(None) }
    }

    fn upload(&self) -> Value {
        let signed = |key: &Key, usage| self.master.sign(&self.user_id, &key.published(&self.user_id, usage));
        json!({
            "master_key": self.master.published(&self.user_id, "master"),
            "self_signing_key": signed(&self.self_signing, "self_signing"),
            "user_signing_key": signed(&self.user_signing, "user_signing"),
        })
    }
}

const CURVE_KEY: &str = "zKbLg+NrIjpnagy+pIY6uPL4ZwEG2v+8F9lmgsnlZzs";

fn device_keys(client: &Client, key: &Key) -> Value {
    let (user_id, device_id) = (&client.user_id, &client.device_id);
    let keys = json!({
        "user_id": user_id,
        "device_id": device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": { format!("ed25519:{device_id}"): key.public, format!("curve25519:{device_id}"): CURVE_KEY },
    });
    key.sign(user_id, &keys)
}

async fn upload_device_keys(client: &Client) -> (Key, Value) {
    let key = Key::new(Some(&client.device_id));
    let keys = device_keys(client, &key);
    client.post(&v3(["keys", "upload"]), json!({ "device_keys": keys })).await.ok();
    (key, keys)
}

async fn upload_cross_signing(client: &Client) -> CrossSigning {
    let keys = CrossSigning::new(client);
    client.post(&v3(["keys", "device_signing", "upload"]), keys.upload()).await.ok();
    keys
}

async fn query(client: &Client, user_id: &str) -> Value {
    client.post(&v3(["keys", "query"]), json!({ "device_keys": { user_id: [] } })).await.ok()
}

fn one_time_key(client: &Client) -> Value {
    json!({ "key": CURVE_KEY, "signatures": { &client.user_id: { format!("ed25519:{}", client.device_id): "c2ln" } } })
}

both_engines! {
    async fn a_claimed_key_is_gone_and_counted(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let upload = v3(["keys", "upload"]);
        assert_eq!(alice.post(&upload, json!({})).await.ok()["one_time_key_counts"]["signed_curve25519"], 0);
        let keys = json!({ "one_time_keys": { "signed_curve25519:A": one_time_key(&alice) } });
        assert_eq!(alice.post(&upload, keys.clone()).await.ok()["one_time_key_counts"]["signed_curve25519"], 1);

        let wanted = json!({ "one_time_keys": { &alice.user_id: { &alice.device_id: "signed_curve25519" } } });
        let claimed = bob.post(&v3(["keys", "claim"]), wanted.clone()).await.ok();
        let key = &claimed["one_time_keys"][&alice.user_id][&alice.device_id]["signed_curve25519:A"];
        assert_eq!(*key, one_time_key(&alice));
        let again = bob.post(&v3(["keys", "claim"]), wanted).await.ok();
        assert_eq!(again["one_time_keys"], json!({}));
        // A claimed key that is uploaded again does not come back.
        assert_eq!(alice.post(&upload, keys).await.ok()["one_time_key_counts"]["signed_curve25519"], 0);
    }

    async fn devices_are_found_with_their_names(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let (_, keys) = upload_device_keys(&alice).await;
        alice.put(&v3(["devices", &alice.device_id]), json!({ "display_name": "Telephone" })).await.ok();
        let found = query(&bob, &alice.user_id).await;
        let mut expected = keys;
        expected["unsigned"] = json!({ "device_display_name": "Telephone" });
        assert_eq!(found["device_keys"][&alice.user_id][&alice.device_id], expected);

        let wanted = json!({ "device_keys": { "@nobody:sabha.test": [], "@carol:elsewhere.test": [], &bob.user_id: [] } });
        let found = bob.post(&v3(["keys", "query"]), wanted).await.ok();
        assert_eq!(found["device_keys"], json!({ &bob.user_id: {} }));
        assert!(found["failures"]["elsewhere.test"].is_object(), "{found}");
    }

    async fn signatures_are_stored_if_they_hold_and_shown_to_whom_they_concern(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let (_, device) = upload_device_keys(&alice).await;
        let (alice_keys, bob_keys) = (upload_cross_signing(&alice).await, upload_cross_signing(&bob).await);
        let bob_master = bob_keys.master.published(&bob.user_id, "master");
        let signed = json!({
            &alice.user_id: { &alice.device_id: alice_keys.self_signing.sign(&alice.user_id, &device) },
            &bob.user_id: { &bob_keys.master.public: alice_keys.user_signing.sign(&alice.user_id, &bob_master) },
        });
        let upload = v3(["keys", "signatures", "upload"]);
        let answer = alice.post(&upload, signed).await.ok();
        assert!(answer.get("failures").is_none_or(|failures| *failures == json!({})), "{answer}");

        let self_signing_id = format!("ed25519:{}", alice_keys.self_signing.public);
        for asker in [&alice, &bob] {
            let found = query(asker, &alice.user_id).await;
            let signatures = &found["device_keys"][&alice.user_id][&alice.device_id]["signatures"][&alice.user_id];
            assert!(signatures[&self_signing_id].is_string(), "{found}");
        }
        // Only Alice may see whom she has verified.
        let signers = |found: Value| found["master_keys"][&bob.user_id]["signatures"].clone();
        assert!(signers(query(&alice, &bob.user_id).await)[&alice.user_id].is_object());
        assert!(signers(query(&bob, &bob.user_id).await)[&alice.user_id].is_null());

        // Signatures by the wrong key, of another object, and of an unknown key.
        let mut other = device.clone();
        other["algorithms"] = json!([]);
        let refused = [
            (&alice.device_id, alice_keys.user_signing.sign(&alice.user_id, &device), "M_INVALID_SIGNATURE"),
            (&alice.device_id, alice_keys.self_signing.sign(&alice.user_id, &other), "M_INVALID_PARAM"),
            (&bob.device_id, alice_keys.self_signing.sign(&alice.user_id, &device), "M_NOT_FOUND"),
        ];
        for (key_id, key, errcode) in refused {
            let answer = alice.post(&upload, json!({ &alice.user_id: { key_id: key } })).await.ok();
            assert_eq!(answer["failures"][&alice.user_id][key_id]["errcode"], errcode, "{answer}");
        }
    }
}

#[tokio::test]
async fn the_first_cross_signing_keys_need_no_password_and_others_do() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let upload = v3(["keys", "device_signing", "upload"]);
    let keys = upload_cross_signing(&alice).await;
    alice.post(&upload, keys.upload()).await.ok();

    let own = query(&alice, &alice.user_id).await;
    assert_eq!(own["master_keys"][&alice.user_id], keys.master.published(&alice.user_id, "master"));
    assert!(own["user_signing_keys"][&alice.user_id].is_object());
    let others = query(&bob, &alice.user_id).await;
    assert!(others["self_signing_keys"][&alice.user_id].is_object());
    assert!(others["user_signing_keys"][&alice.user_id].is_null());

    let new = CrossSigning::new(&alice);
    let challenge = alice.post(&upload, new.upload()).await;
    assert_eq!(challenge.status.as_u16(), 401);
    let mut body = new.upload();
    body["auth"] = json!({
        "type": "m.login.password",
        "session": challenge.json["session"],
        "identifier": { "type": "m.id.user", "user": alice.user_id },
        "password": PASSWORD,
    });
    alice.post(&upload, body).await.ok();
    let own = query(&bob, &alice.user_id).await;
    assert_eq!(own["master_keys"][&alice.user_id], new.master.published(&alice.user_id, "master"));
}

#[tokio::test]
async fn cross_signing_keys_that_do_not_hold_are_refused() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let upload = v3(["keys", "device_signing", "upload"]);
    let keys = CrossSigning::new(&alice);
    let mut only_self_signing = keys.upload();
    only_self_signing.as_object_mut().expect("an object").remove("master_key");
    alice.post(&upload, only_self_signing).await.error(400, "M_MISSING_PARAM");

    let mut forged = keys.upload();
    forged["self_signing_key"] =
        Key::new(None).sign(&alice.user_id, &keys.self_signing.published(&alice.user_id, "self_signing"));
    alice.post(&upload, forged).await.error(400, "M_INVALID_SIGNATURE");

    let foreign = json!({ "master_key": keys.master.published("@bob:sabha.test", "master") });
    alice.post(&upload, foreign).await.error(400, "M_INVALID_PARAM");
    assert!(query(&alice, &alice.user_id).await["master_keys"].is_null());
}

#[tokio::test]
async fn device_keys_of_somebody_else_are_refused() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let keys = device_keys(&bob, &Key::new(Some(&bob.device_id)));
    alice.post(&v3(["keys", "upload"]), json!({ "device_keys": keys })).await.error(400, "M_INVALID_PARAM");
    assert_eq!(query(&alice, &alice.user_id).await["device_keys"], json!({ &alice.user_id: {} }));
}

#[tokio::test]
async fn changed_device_lists_are_told_to_those_who_share_a_room() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let stranger = server.register("stranger").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let next_batch = |answer: Value| answer["next_batch"].as_str().expect("a token").to_owned();
    let since = next_batch(bob.sync(None).await);
    let since_stranger = next_batch(stranger.sync(None).await);
    upload_device_keys(&alice).await;

    let answer = bob.sync(Some(&since)).await;
    assert_eq!(answer["device_lists"]["changed"], json!([alice.user_id]));
    let to = next_batch(answer);
    let changes = bob.get(&format!("/_matrix/client/v3/keys/changes?from={since}&to={to}")).await.ok();
    assert_eq!(changes["changed"], json!([alice.user_id]));
    let none = bob.get(&format!("/_matrix/client/v3/keys/changes?from={to}&to={to}")).await.ok();
    assert_eq!(none["changed"], json!([]));
    assert!(stranger.sync(Some(&since_stranger)).await["device_lists"].is_null());

    // A deleted device is a change too.
    alice.login_again().await.post(&v3(["logout"]), json!({})).await.ok();
    assert_eq!(bob.sync(Some(&to)).await["device_lists"]["changed"], json!([alice.user_id]));
    bob.get("/_matrix/client/v3/keys/changes?from=nonsense&to=nonsense").await.error(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn there_is_one_fallback_key_of_an_algorithm() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let fallback = |ids: &[&str]| {
        let keys = ids.iter().map(|id| ((*id).to_owned(), one_time_key(&alice)));
        json!({ "fallback_keys": keys.collect::<serde_json::Map<String, Value>>() })
    };
    let upload = v3(["keys", "upload"]);
    let two = fallback(&["signed_curve25519:A", "signed_curve25519:B"]);
    alice.post(&upload, two).await.error(400, "M_INVALID_PARAM");
    let many: Vec<String> = (0..9).map(|number| format!("signed_{number}:A")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    alice.post(&upload, fallback(&many)).await.error(400, "M_INVALID_PARAM");
    assert_eq!(alice.sync(None).await["device_unused_fallback_key_types"], json!([]));
    alice.post(&upload, fallback(&["signed_curve25519:A"])).await.ok();
    alice.post(&upload, fallback(&many[..7])).await.ok();
    // Fallback keys of earlier uploads count.
    alice.post(&upload, fallback(&many[7..8])).await.error(400, "M_INVALID_PARAM");
    assert_eq!(alice.sync(None).await["device_unused_fallback_key_types"].as_array().map(Vec::len), Some(8));
}

both_engines! {
    async fn a_request_names_a_bounded_number_of_users_and_devices(server: TestServer) {
        let alice = server.register("alice").await;
        let (query, claim) = (v3(["keys", "query"]), v3(["keys", "claim"]));
        let to_device = |txn: &str| v3(["sendToDevice", "m.test", txn]);
        let users = |count: usize, value: &Value| -> Value {
            (0..count).map(|n| (format!("@{n}:sabha.test"), value.clone())).collect::<Map<_, _>>().into()
        };
        let devices = |count: usize| (0..count).map(|n| format!("D{n}")).collect::<Vec<_>>();

        let too_many = json!({ "device_keys": { &alice.user_id: devices(MAX_QUERIED_DEVICES + 1) } });
        alice.post(&query, too_many).await.error(400, "M_INVALID_PARAM");
        let too_many = json!({ "device_keys": users(MAX_QUERIED_USERS + 1, &json!([])) });
        alice.post(&query, too_many).await.error(400, "M_INVALID_PARAM");
        // Users without a device count too.
        let too_many = json!({ "one_time_keys": users(MAX_CLAIMED_DEVICES + 1, &json!({})) });
        alice.post(&claim, too_many).await.error(400, "M_INVALID_PARAM");
        let too_many = json!({ "messages": users(MAX_MESSAGES + 1, &json!({})) });
        alice.put(&to_device("1"), too_many).await.error(400, "M_INVALID_PARAM");

        let mut asked = users(MAX_QUERIED_USERS - 1, &json!([]));
        asked[&alice.user_id] = json!([alice.device_id]);
        upload_device_keys(&alice).await;
        let answer = alice.post(&query, json!({ "device_keys": asked })).await.ok();
        assert_eq!(answer["device_keys"].as_object().map(Map::len), Some(1), "the others are unknown");
        let mut messages = users(MAX_MESSAGES - 1, &json!({ "*": {} }));
        messages[&alice.user_id] = json!({ "*": { "number": 1 } });
        // A repeated request sends nothing.
        for _ in 0..2 {
            alice.put(&to_device("2"), json!({ "messages": messages })).await.ok();
        }
        assert_eq!(alice.sync(None).await["to_device"]["events"].as_array().map(Vec::len), Some(1));
    }
}

#[tokio::test]
async fn the_keys_of_a_device_are_bounded() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let upload = async |change: &dyn Fn(&mut Value)| {
        let mut keys = device_keys(&alice, &Key::new(Some(&alice.device_id)));
        change(&mut keys);
        alice.post(&v3(["keys", "upload"]), json!({ "device_keys": keys })).await
    };
    upload(&|keys| keys["more"] = json!("x".repeat(8 * 1024))).await.error(413, "M_TOO_LARGE");
    let sign = |keys: &mut Value, number: usize| {
        for index in 0..number {
            keys["signatures"][&alice.user_id][format!("ed25519:{index}")] = json!("c2ln");
        }
    };
    upload(&|keys| sign(keys, 16)).await.error(400, "M_INVALID_PARAM");
    upload(&|keys| sign(keys, 15)).await.ok();
}
