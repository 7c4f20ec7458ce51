//! Registration with a shared secret, for tools that know Synapse's endpoint.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sabha::{
    clock::Clock,
    config::{Rate, RateLimits, RegistrationMode, Secret},
};
use serde_json::{Value, json};
use sha1::Sha1;

use crate::harness::{Builder, Client, Engine, Response, TestServer, v3};

const PATH: &str = "/_synapse/admin/v1/register";
const SECRET: &str = "complement";

/// Configures a server on which nobody can register without the shared secret.
fn builder() -> Builder {
    TestServer::builder().registration(RegistrationMode::Closed).config(|config| {
        config.registration.shared_secret = Secret::try_from(SECRET.to_owned()).ok();
    })
}

async fn nonce(client: &Client) -> String {
    client.get(PATH).await.ok()["nonce"].as_str().expect("a nonce").to_owned()
}

fn mac(secret: &str, parts: &[&str]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(parts.join("\0").as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Registers `name` with a fresh nonce and a MAC made with `secret`.
async fn register(client: &Client, secret: &str, name: &str, admin: bool, also: Value) -> Response {
    let nonce = nonce(client).await;
    let mac = mac(secret, &[&nonce, name, "sUp3rs3kr1t", if admin { "admin" } else { "notadmin" }]);
    let mut body = json!({ "nonce": nonce, "username": name, "password": "sUp3rs3kr1t", "mac": mac, "admin": admin });
    body.as_object_mut().expect("an object").extend(also.as_object().cloned().unwrap_or_default());
    client.post(PATH, body).await
}

both_engines! {
    async fn who_knows_the_secret_makes_users_and_admins(engine: Engine) {
        let server = builder().engine(engine).start().await;
        let anonymous = server.anonymous();
        let answer = register(&anonymous, SECRET, "Alice", false, json!({ "displayname": "Alice L." })).await.ok();
        assert_eq!((&answer["user_id"], &answer["home_server"]), (&json!("@alice:sabha.test"), &json!("sabha.test")));
        let alice = anonymous.signed_in(&answer);
        assert_eq!(alice.get(&v3(["account", "whoami"])).await.ok()["device_id"], answer["device_id"]);
        let profile = alice.get(&v3(["profile", &alice.user_id])).await.ok();
        assert_eq!(profile["displayname"], "Alice L.");
        alice.login("alice", "sUp3rs3kr1t").await;

        let answer = register(&anonymous, SECRET, "root", true, json!({ "inhibit_login": true })).await.ok();
        assert_eq!(answer, json!({ "user_id": "@root:sabha.test", "home_server": "sabha.test" }));
        let users = server.app().accounts.list_users(None, 10).await.expect("read");
        let ranks: Vec<_> = users.iter().map(|user| (user.user_id.localpart(), user.account.admin)).collect();
        assert_eq!(ranks, [("alice", false), ("root", true)]);
    }
}

#[tokio::test]
async fn a_wrong_mac_nonce_or_name_makes_nothing() {
    let server = builder().start().await;
    let client = server.anonymous();
    register(&client, "guess", "alice", true, json!({})).await.error(403, "M_FORBIDDEN");
    register(&client, SECRET, "alice", false, json!({ "admin": true })).await.error(403, "M_FORBIDDEN");
    register(&client, SECRET, "alice", false, json!({ "nonce": "other" })).await.error(400, "M_UNKNOWN");
    register(&client, SECRET, "us,er", false, json!({})).await.error(400, "M_INVALID_USERNAME");
    register(&client, SECRET, "alice", false, json!({ "user_type": "king" })).await.error(400, "M_INVALID_PARAM");
    client.post(PATH, json!({})).await.error(400, "M_BAD_JSON");
    assert!(!server.app().accounts.has_any_account().await.expect("read"));
    register(&client, SECRET, "alice", false, json!({})).await.ok();
    register(&client, SECRET, "alice", false, json!({})).await.error(400, "M_USER_IN_USE");
}

#[tokio::test]
async fn a_nonce_is_good_once_and_for_a_minute() {
    let clock = Clock::manual(1_800_000_000_000);
    let server = builder().clock(clock.clone()).start().await;
    let client = server.anonymous();
    let attempt = async |nonce: &str, name: &str| {
        let mac = mac(SECRET, &[nonce, name, "sUp3rs3kr1t", "notadmin"]);
        client.post(PATH, json!({ "nonce": nonce, "username": name, "password": "sUp3rs3kr1t", "mac": mac })).await
    };
    let used = nonce(&client).await;
    attempt(&used, "alice").await.ok();
    attempt(&used, "bob").await.error(400, "M_UNKNOWN");
    let late = nonce(&client).await;
    clock.advance(Duration::from_secs(60));
    attempt(&late, "bob").await.error(400, "M_UNKNOWN");
}

#[tokio::test]
async fn without_a_secret_there_is_no_such_endpoint() {
    let server = TestServer::start().await;
    let client = server.anonymous();
    client.get(PATH).await.error(404, "M_UNRECOGNIZED");
    client.post(PATH, json!({})).await.error(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn guessing_is_limited() {
    let limits = RateLimits { register: Rate::new(0.001, 1), address_factor: 1.0, ..RateLimits::default() };
    let server = builder().rate_limits(limits).start().await;
    let client = server.anonymous();
    client.get(PATH).await.ok();
    client.get(PATH).await.error(429, "M_LIMIT_EXCEEDED");
    client.post(PATH, json!({})).await.error(429, "M_LIMIT_EXCEEDED");
}
