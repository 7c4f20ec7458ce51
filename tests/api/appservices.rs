//! Application services: acting as users, creating them, and exclusive names.

use sabha::{
    config::{Rate, RateLimits, RegistrationMode},
    server::StartError,
};
use serde_json::{Value, json};

use crate::harness::{Builder, Client, Engine, TestServer, v3};

const IRC: &str = "
id: irc
url: http://localhost:9000
as_token: as_irc_secret
hs_token: hs_irc_secret
sender_localpart: _irc_bot
rate_limited: false
namespaces:
  users: [{ exclusive: true, regex: '@_irc_.*' }, { exclusive: false, regex: '@shared_.*' }]
  aliases: [{ exclusive: true, regex: '#_irc_.*' }]
  rooms: []
";

const LIMITED: &str = "
id: limited
url: null
as_token: as_limited_secret
hs_token: hs_limited_secret
sender_localpart: limited_bot
namespaces: { users: [{ exclusive: false, regex: '@limited_.*' }] }
de.sorunome.msc2409.push_ephemeral: true
";

/// Starts a server with these application services. Their files are read at the start, and may be deleted then.
async fn start(builder: Builder, files: &[&str]) -> TestServer {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |(n, text): (usize, &&str)| {
        let path = dir.path().join(format!("{n}.yaml"));
        std::fs::write(&path, text).expect("writable");
        path
    };
    let paths = files.iter().enumerate().map(write).collect();
    builder.config(|config| config.appservices.files = paths).start().await
}

async fn start_irc(engine: Engine) -> TestServer {
    start(TestServer::builder().engine(engine), &[IRC]).await
}

/// A client of the application service itself, or of its users with `?user_id=` in the paths.
fn service(server: &TestServer, token: &str) -> Client {
    server.anonymous().with_token(token)
}

fn as_user(path: &str, name: &str) -> String {
    format!("{path}?user_id=%40{name}%3Asabha.test")
}

async fn register(client: &Client, name: &str) -> crate::harness::Response {
    let body = json!({ "type": "m.login.application_service", "username": name, "inhibit_login": true });
    client.post(&v3(["register"]), body).await
}

both_engines! {
    async fn more_of_its_invitations_may_wait_for_a_user_than_of_others(engine: Engine) {
        let builder = TestServer::builder().engine(engine);
        let server = start(builder.config(|config| config.limits.pending_invites_per_user = 8), &[IRC]).await;
        let (irc, alice) = (service(&server, "as_irc_secret"), server.register("alice").await);
        for _ in 0..3 {
            irc.create_room(json!({ "invite": [alice.user_id] })).await;
        }
        let room = irc.create_room(json!({})).await;
        irc.invite(&room, &alice.user_id).await;
        let room = irc.create_room(json!({})).await;
        let invite = v3(["rooms", &room, "invite"]);
        irc.post(&invite, json!({ "user_id": alice.user_id })).await.error(403, "M_FORBIDDEN");
    }

    async fn it_acts_as_its_sender_and_as_the_users_that_it_made(engine: Engine) {
        let server = start_irc(engine).await;
        let irc = service(&server, "as_irc_secret");
        let whoami = v3(["account", "whoami"]);
        assert_eq!(irc.get(&whoami).await.ok(), json!({ "user_id": "@_irc_bot:sabha.test" }));
        assert!(!server.app().accounts.has_any_account().await.expect("read"), "nobody can log in yet");

        irc.get(&as_user(&whoami, "_irc_bob")).await.error(403, "M_FORBIDDEN");
        let answer = register(&irc, "_irc_Bob").await.ok();
        assert_eq!(answer, json!({ "user_id": "@_irc_bob:sabha.test" }));
        assert_eq!(irc.get(&as_user(&whoami, "_irc_bob")).await.ok()["user_id"], "@_irc_bob:sabha.test");
        register(&irc, "_irc_bob").await.error(400, "M_USER_IN_USE");

        // The service can do everything as a user that the user can do.
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        irc.post(&as_user(&v3(["join", &room]), "_irc_bob"), json!({})).await.ok();
        let send = as_user(&v3(["rooms", &room, "send", "m.room.message", "1"]), "_irc_bob");
        let first = irc.put(&send, json!({ "msgtype": "m.text", "body": "hi" })).await.ok();
        let again = irc.put(&send, json!({ "msgtype": "m.text", "body": "hi" })).await.ok();
        assert_eq!(first, again, "transaction IDs work without a device");
        let event = alice.get(&v3(["rooms", &room, "event", first["event_id"].as_str().expect("an ID")])).await.ok();
        assert_eq!(event["sender"], "@_irc_bob:sabha.test");
        let sync = irc.get(&(as_user("/_matrix/client/v3/sync", "_irc_bob") + "&timeout=0")).await.ok();
        assert!(sync["rooms"]["join"][&room].is_object(), "{sync}");

        // The service sees the members of a room that one of its users is in, although its sender is not.
        let members = irc.get(&v3(["rooms", &room, "joined_members"])).await.ok();
        assert_eq!(members["joined"].as_object().map(serde_json::Map::len), Some(2));
        let other = alice.create_room(json!({})).await;
        irc.get(&v3(["rooms", &other, "joined_members"])).await.error(403, "M_FORBIDDEN");
    }

    async fn it_acts_as_nobody_else(engine: Engine) {
        let server = start_irc(engine).await;
        let irc = service(&server, "as_irc_secret");
        server.register("alice").await;
        let whoami = v3(["account", "whoami"]);
        for name in ["alice", "nobody"] {
            irc.get(&as_user(&whoami, name)).await.error(403, "M_FORBIDDEN");
        }
        irc.get(&format!("{whoami}?user_id=%40_irc_bob%3Aelsewhere.test")).await.error(403, "M_FORBIDDEN");
        irc.get(&format!("{whoami}?user_id=_irc_bot")).await.error(403, "M_FORBIDDEN");
        service(&server, "as_irc_secre").get(&whoami).await.error(401, "M_UNKNOWN_TOKEN");
        service(&server, "hs_irc_secret").get(&whoami).await.error(401, "M_UNKNOWN_TOKEN");
        // `user_id` has no effect for other clients.
        let bob = server.register("bob").await;
        assert_eq!(bob.get(&as_user(&whoami, "alice")).await.ok()["user_id"], "@bob:sabha.test");
        irc.post(&v3(["logout"]), json!({})).await.error(403, "M_FORBIDDEN");
    }

    async fn exclusive_names_are_for_it_alone(engine: Engine) {
        let server = start_irc(engine).await;
        let irc = service(&server, "as_irc_secret");
        let anonymous = server.anonymous();
        // For others the name is invalid in any case, because it begins with `_`.
        let dummy = |name: &str| json!({ "username": name, "password": "pass word 1", "auth": { "type": "m.login.dummy" } });
        anonymous.post(&v3(["register"]), dummy("_irc_eve")).await.error(400, "M_INVALID_USERNAME");
        anonymous.post(&v3(["register"]), dummy("shared_eve")).await.ok();
        register(&irc, "carol").await.error(400, "M_EXCLUSIVE");
        register(&irc, "shared_carol").await.ok();
        register(&irc, "_irc carol").await.error(400, "M_INVALID_USERNAME");
        register(&anonymous, "_irc_carol").await.error(401, "M_MISSING_TOKEN");
        register(&service(&server, "guess"), "_irc_carol").await.error(401, "M_UNKNOWN_TOKEN");
        let nameless = json!({ "type": "m.login.application_service" });
        irc.post(&v3(["register"]), nameless).await.error(400, "M_MISSING_PARAM");
    }

    async fn exclusive_aliases_are_for_it_alone(engine: Engine) {
        let server = start_irc(engine).await;
        let irc = service(&server, "as_irc_secret");
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let alias = v3(["directory", "room", "#_irc_tea:sabha.test"]);
        let body = json!({ "room_id": room });
        alice.put(&alias, body.clone()).await.error(400, "M_EXCLUSIVE");
        alice.post(&v3(["createRoom"]), json!({ "room_alias_name": "_irc_tea" })).await.error(400, "M_EXCLUSIVE");
        irc.post(&v3(["join", &room]), json!({})).await.ok();
        irc.put(&v3(["directory", "room", "#tea:sabha.test"]), body.clone()).await.error(400, "M_EXCLUSIVE");
        irc.put(&alias, body.clone()).await.ok();
        alice.delete(&alias, json!({})).await.error(400, "M_EXCLUSIVE");
        // Any user of the service may delete the alias, without being in the room.
        register(&irc, "_irc_bob").await.ok();
        irc.delete(&as_user(&alias, "_irc_bob"), json!({})).await.ok();
        irc.post(&v3(["createRoom"]), json!({ "room_alias_name": "_irc_tea" })).await.ok();
    }

    async fn it_logs_its_users_in_without_a_password(engine: Engine) {
        let server = start_irc(engine).await;
        let irc = service(&server, "as_irc_secret");
        register(&irc, "_irc_bob").await.ok();
        server.register("alice").await;
        let login = |name: &str| {
            json!({ "type": "m.login.application_service", "identifier": { "type": "m.id.user", "user": name } })
        };
        let flows = irc.get(&v3(["login"])).await.ok();
        let offers = |flow: &Value| flow["type"] == "m.login.application_service";
        assert!(flows["flows"].as_array().expect("a list").iter().any(offers), "{flows}");
        let bob = irc.signed_in(&irc.post(&v3(["login"]), login("_irc_bob")).await.ok());
        assert_eq!(bob.get(&v3(["account", "whoami"])).await.ok()["user_id"], "@_irc_bob:sabha.test");
        irc.post(&v3(["login"]), login("alice")).await.error(400, "M_EXCLUSIVE");
        irc.post(&v3(["login"]), login("_irc_nobody")).await.error(403, "M_FORBIDDEN");
        server.anonymous().post(&v3(["login"]), login("_irc_bob")).await.error(401, "M_MISSING_TOKEN");
        bob.post(&v3(["login"]), login("_irc_bob")).await.error(401, "M_UNKNOWN_TOKEN");
        // The account gets a session of its own, also when it is registered with one.
        let body = json!({ "type": "m.login.application_service", "username": "_irc_eve" });
        let eve = irc.signed_in(&irc.post(&v3(["register"]), body).await.ok());
        eve.get(&v3(["account", "whoami"])).await.ok();
    }

    async fn it_manages_the_devices_of_its_users(engine: Engine) {
        let server = start_irc(engine).await;
        let irc = service(&server, "as_irc_secret");
        let device = v3(["devices", "BRIDGE"]);
        let with_device = |path: &str| format!("{path}?device_id=BRIDGE");
        let whoami = v3(["account", "whoami"]);
        irc.get(&with_device(&whoami)).await.error(400, "M_UNKNOWN_DEVICE");
        irc.post(&v3(["keys", "upload"]), json!({})).await.error(400, "M_MISSING_PARAM");
        assert_eq!(irc.put(&device, json!({ "display_name": "Bridge" })).await.status, 201);
        assert_eq!(irc.put(&device, json!({ "display_name": "The bridge" })).await.status, 200);
        assert_eq!(irc.get(&device).await.ok()["display_name"], "The bridge");
        assert_eq!(irc.get(&with_device(&whoami)).await.ok()["device_id"], "BRIDGE");
        assert_eq!(irc.get(&format!("{whoami}?org.matrix.msc3202.device_id=BRIDGE")).await.ok()["device_id"], "BRIDGE");
        irc.post(&with_device(&v3(["keys", "upload"])), json!({})).await.ok();
        // The service needs no interactive authentication, which it could not pass.
        irc.delete(&device, json!({})).await.ok();
        irc.get(&with_device(&whoami)).await.error(400, "M_UNKNOWN_DEVICE");
        // Other users cannot create devices this way.
        let alice = server.register("alice").await;
        alice.put(&device, json!({ "display_name": "Phone" })).await.error(404, "M_NOT_FOUND");
    }

    async fn it_dates_the_events_that_it_brings(engine: Engine) {
        let server = start_irc(engine).await;
        let irc = service(&server, "as_irc_secret");
        let room = irc.create_room(json!({ "preset": "public_chat" })).await;
        let alice = server.register("alice").await;
        alice.join(&room).await;
        let send = |txn: &str, ts: &str| v3(["rooms", &room, "send", "m.room.message", txn]) + "?ts=" + ts;
        let state = v3(["rooms", &room, "state", "m.room.topic", ""]) + "?ts=7000";
        let text = json!({ "msgtype": "m.text", "body": "old" });
        let date = async |answer: Value| {
            let event = alice.get(&v3(["rooms", &room, "event", answer["event_id"].as_str().expect("an ID")])).await.ok();
            event["origin_server_ts"].as_i64().expect("a date")
        };
        assert_eq!(date(irc.put(&send("1", "5000"), text.clone()).await.ok()).await, 5000);
        assert_eq!(date(irc.put(&state, json!({ "topic": "Old" })).await.ok()).await, 7000);
        irc.put(&send("2", "-1"), text.clone()).await.error(400, "M_INVALID_PARAM");
        irc.put(&send("3", "9007199254740993"), text.clone()).await.error(400, "M_INVALID_PARAM");
        // The server dates the transaction ID with the real time, whatever the date of the event.
        let first = irc.put(&send("4", "1"), text.clone()).await.ok();
        irc.put(&send("5", "4102444800000"), text.clone()).await.ok();
        let forget = async |age_ms: i64| {
            let before_ms = server.app().clock.now_ms() - age_ms;
            sabha::store::sweeps::forget_txn_ids(&server.app().db, before_ms).await.expect("swept")
        };
        assert_eq!(forget(60_000).await, 0, "none is older than a minute");
        assert_eq!(irc.put(&send("4", "1"), text.clone()).await.ok(), first);
        assert_eq!(forget(-60_000).await, 3, "all are younger than in a minute");
        // For ordinary users `ts` has no effect.
        assert!(date(alice.put(&send("1", "5000"), text).await.ok()).await > 1_500_000_000_000);
    }
}

#[tokio::test]
async fn names_without_an_underscore_may_be_exclusive_too() {
    let all = IRC.replace("@_irc_.*", "@bridged[-]");
    let server = start(TestServer::builder().registration(RegistrationMode::Open), &[&all]).await;
    let dummy =
        |name: &str| json!({ "username": name, "password": "pass word 1", "auth": { "type": "m.login.dummy" } });
    let anonymous = server.anonymous();
    anonymous.post(&v3(["register"]), dummy("bridged-eve")).await.error(400, "M_EXCLUSIVE");
    anonymous.get("/_matrix/client/v3/register/available?username=bridged-eve").await.error(400, "M_EXCLUSIVE");
    anonymous.post(&v3(["register"]), dummy("bridgedeve")).await.ok();
}

#[tokio::test]
async fn rate_limits_are_for_those_whose_file_does_not_lift_them() {
    let limits = RateLimits { other: Rate::new(0.001, 1), address_factor: 1000.0, ..RateLimits::default() };
    let server = start(TestServer::builder().rate_limits(limits), &[IRC, LIMITED]).await;
    let whoami = v3(["account", "whoami"]);
    let twice = async |token: &str, name: &str| {
        let service = service(&server, token);
        register(&service, name).await.ok();
        let path = as_user(&whoami, name);
        service.get(&path).await.ok();
        service.get(&path).await.status.as_u16()
    };
    assert_eq!(twice("as_irc_secret", "_irc_bob").await, 200);
    assert_eq!(twice("as_limited_secret", "limited_bob").await, 429);
    let sender = service(&server, "as_limited_secret");
    sender.get(&whoami).await.ok();
    sender.get(&whoami).await.ok();
}

#[tokio::test]
async fn a_restart_finds_the_sender_and_a_bad_file_stops_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("irc.yaml");
    std::fs::write(&path, IRC).expect("writable");
    let files = vec![path.clone()];
    let mut server = TestServer::builder().config(|config| config.appservices.files = files).start().await;
    server.restart().await;
    let users = server.app().accounts.list_users(None, 10).await.expect("read");
    assert_eq!(users.iter().map(|user| user.user_id.as_str()).collect::<Vec<_>>(), ["@_irc_bot:sabha.test"]);
    server.stop().await;
    std::fs::write(&path, IRC.replace("@_irc_.*", "@(")).expect("writable");
    let error = server.try_restart().await.err().expect("it does not start");
    assert!(matches!(error, StartError::Appservice(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("irc.yaml") && text.contains("`@(`") && !text.contains("secret"), "{text}");
}
