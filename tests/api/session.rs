//! Sessions and devices: logging in, refreshing, logging out.

use std::time::Duration;

use sabha::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{Client, Engine, PASSWORD, TestServer, v3};

async fn whoami(client: &Client) -> u16 {
    client.get(&v3(["account", "whoami"])).await.status.as_u16()
}

fn with_token(client: &Client, token: &Value) -> Client {
    let mut client = client.clone();
    client.token = token.as_str().map(str::to_owned);
    client
}

fn login(user: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "password": password, "identifier": { "type": "m.id.user", "user": user } })
}

both_engines! {
    async fn one_logs_in_with_a_localpart_a_full_id_or_the_old_field(server: TestServer) {
        server.register("alice").await;
        let anonymous = server.anonymous();
        let flows = anonymous.get(&v3(["login"])).await.ok();
        assert_eq!(flows["flows"][0]["type"], "m.login.password");
        for user in ["alice", "Alice", "@alice:sabha.test"] {
            let answer = anonymous.post(&v3(["login"]), login(user, PASSWORD)).await.ok();
            assert_eq!(answer["user_id"], "@alice:sabha.test");
            assert!(answer["access_token"].as_str().is_some_and(|token| token.starts_with("sbt_")));
        }
        let old = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
        anonymous.post(&v3(["login"]), old).await.ok();
    }

    async fn a_wrong_password_and_an_unknown_user_get_the_same_answer(server: TestServer) {
        server.register("alice").await;
        let anonymous = server.anonymous();
        let wrong = anonymous.post(&v3(["login"]), login("alice", "wrong password")).await.error(403, "M_FORBIDDEN");
        let unknown = anonymous.post(&v3(["login"]), login("nobody", PASSWORD)).await.error(403, "M_FORBIDDEN");
        let foreign = anonymous.post(&v3(["login"]), login("@alice:else.where", PASSWORD)).await.error(403, "M_FORBIDDEN");
        assert_eq!(wrong, unknown);
        assert_eq!(wrong, foreign);
    }

    async fn a_login_that_makes_no_sense_is_refused(server: TestServer) {
        let anonymous = server.anonymous();
        anonymous.post(&v3(["login"]), json!({})).await.error(400, "M_MISSING_PARAM");
        anonymous.post(&v3(["login"]), json!({ "type": "org.example.other" })).await.error(400, "M_UNKNOWN");
        let nobody = json!({ "type": "m.login.password", "password": PASSWORD });
        anonymous.post(&v3(["login"]), nobody).await.error(400, "M_MISSING_PARAM");
    }

    async fn a_device_that_logs_in_again_loses_its_old_token(server: TestServer) {
        let alice = server.register("alice").await;
        let mut body = login("alice", PASSWORD);
        body["device_id"] = json!(alice.device_id);
        let again = alice.signed_in(&alice.post(&v3(["login"]), body).await.ok());
        assert_eq!(again.device_id, alice.device_id);
        assert_eq!((whoami(&alice).await, whoami(&again).await), (401, 200));
        let devices = again.get(&v3(["devices"])).await.ok();
        assert_eq!(devices["devices"].as_array().map(Vec::len), Some(1));
    }

    async fn logging_out_ends_one_session_and_logging_out_everywhere_all(server: TestServer) {
        let alice = server.register("alice").await;
        let (second, third) = (alice.login_again().await, alice.login_again().await);
        second.post(&v3(["logout"]), json!({})).await.ok();
        let gone = second.get(&v3(["account", "whoami"])).await.error(401, "M_UNKNOWN_TOKEN");
        assert_ne!(gone["soft_logout"], true);
        assert_eq!((whoami(&alice).await, whoami(&third).await), (200, 200));
        alice.get(&v3(["devices", &second.device_id])).await.error(404, "M_NOT_FOUND");

        alice.post(&v3(["logout", "all"]), json!({})).await.ok();
        assert_eq!((whoami(&alice).await, whoami(&third).await), (401, 401));
    }

    async fn sessions_survive_a_restart_and_a_logout_does_too(mut server: TestServer) {
        let alice = server.register("alice").await;
        let other = alice.login_again().await;
        other.post(&v3(["logout"]), json!({})).await.ok();
        server.restart().await;
        assert_eq!((whoami(&alice).await, whoami(&other).await), (200, 401));
    }

    async fn deleting_a_device_takes_the_callers_password(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let other = alice.login_again().await;
        let path = v3(["devices", &other.device_id]);
        let auth = |user: &str, password: &str, session: &Value| {
            let mut auth = login(user, password);
            auth["session"] = session.clone();
            json!({ "auth": auth })
        };

        let ask = alice.delete(&path, json!({})).await;
        assert_eq!(ask.status.as_u16(), 401);
        assert_eq!(ask.json["flows"], json!([{ "stages": ["m.login.password"] }]));
        let session = &ask.json["session"];
        alice.delete(&path, auth("alice", "wrong password", session)).await.error(401, "M_FORBIDDEN");
        // Authentication as another user is refused, even with that user's right password.
        alice.delete(&path, auth("bob", PASSWORD, session)).await.error(403, "M_FORBIDDEN");
        // The session belongs to Alice and to this device.
        assert_eq!(bob.delete(&path, auth("bob", PASSWORD, session)).await.status.as_u16(), 401);
        let another = v3(["devices", &alice.device_id]);
        assert_eq!(alice.delete(&another, auth("alice", PASSWORD, session)).await.status.as_u16(), 401);
        assert_eq!(alice.delete(&path, json!({ "auth": { "session": session } })).await.status.as_u16(), 401);
        assert_eq!(whoami(&other).await, 200);

        alice.delete(&path, auth("alice", PASSWORD, session)).await.ok();
        assert_eq!((whoami(&alice).await, whoami(&other).await), (200, 401));
        // The session is used up.
        assert_eq!(alice.delete(&path, json!({ "auth": { "session": session } })).await.status.as_u16(), 401);
    }

    async fn several_devices_are_deleted_at_once(server: TestServer) {
        let alice = server.register("alice").await;
        let (second, third) = (alice.login_again().await, alice.login_again().await);
        let body = json!({ "devices": [second.device_id, third.device_id, "NONE"], "auth": login("alice", PASSWORD) });
        alice.post(&v3(["delete_devices"]), body).await.ok();
        assert_eq!((whoami(&alice).await, whoami(&second).await, whoami(&third).await), (200, 401, 401));
    }

    async fn a_list_of_devices_to_delete_is_bounded(server: TestServer) {
        let alice = server.register("alice").await;
        let other = alice.login_again().await;
        let delete = async |devices: Vec<String>| alice.post(&v3(["delete_devices"]), json!({ "devices": devices })).await;
        delete(vec!["D".repeat(1 << 19)]).await.error(413, "M_TOO_LARGE");
        delete(vec!["D".repeat(1 << 12)]).await.error(400, "M_INVALID_PARAM");
        delete(vec!["D".to_owned(); 1_001]).await.error(400, "M_INVALID_PARAM");
        // A list of 1,000 devices is allowed, and one authentication is enough for all of them.
        let mut many: Vec<String> = (0..999).map(|number| format!("D{number}")).collect();
        many.push(other.device_id.clone());
        let ask = delete(many.clone()).await;
        assert_eq!((ask.status.as_u16(), &ask.json["completed"]), (401, &json!([])));
        let auth = |password: &str| json!({
            "type": "m.login.password", "password": password, "session": ask.json["session"],
            "identifier": { "type": "m.id.user", "user": alice.user_id },
        });
        let repeat = async |devices: &[String], password: &str| {
            alice.post(&v3(["delete_devices"]), json!({ "devices": devices, "auth": auth(password) })).await
        };
        // A failed stage is answered like the first request, with the error and the completed stages.
        let failed = repeat(&many, "wrong").await;
        assert_eq!((failed.status.as_u16(), &failed.json["errcode"]), (401, &json!("M_FORBIDDEN")));
        assert_eq!((&failed.json["completed"], &failed.json["session"]), (&json!([]), &ask.json["session"]));
        // A list with one device less is another operation.
        let elsewhere = repeat(&many[1..], PASSWORD).await;
        assert_eq!(elsewhere.status.as_u16(), 401);
        assert_ne!(elsewhere.json["session"], ask.json["session"]);
        repeat(&many, PASSWORD).await.ok();
        assert_eq!(whoami(&other).await, 401);
        assert_eq!(whoami(&alice).await, 200);
    }

    async fn a_password_may_come_with_the_old_field_for_the_user(server: TestServer) {
        let alice = server.register("alice").await;
        for user in ["alice", "@alice:sabha.test"] {
            for batch in [true, false] {
                let other = alice.login_again().await;
                let path = v3(["devices", &other.device_id]);
                let ask = async |auth: Option<Value>| {
                    let mut body = if batch { json!({ "devices": [other.device_id] }) } else { json!({}) };
                    if let Some(auth) = auth {
                        body["auth"] = auth;
                    }
                    if batch { alice.post(&v3(["delete_devices"]), body).await } else { alice.delete(&path, body).await }
                };
                let asked = ask(None).await;
                let auth = |user: &str, password: &str| Some(json!({
                    "type": "m.login.password", "session": asked.json["session"], "user": user, "password": password,
                }));
                ask(auth("@bob:sabha.test", PASSWORD)).await.error(403, "M_FORBIDDEN");
                assert_eq!(ask(auth(user, "wrong")).await.status.as_u16(), 401);
                assert_eq!(whoami(&other).await, 200);
                ask(auth(user, PASSWORD)).await.ok();
                assert_eq!(whoami(&other).await, 401);
            }
        }
    }

    async fn an_account_has_no_more_devices_than_the_limit(engine: Engine) {
        let server =
            TestServer::builder().engine(engine).config(|config| config.limits.devices_per_user = 2).start().await;
        let alice = server.register("alice").await;
        let second = alice.login_again().await;
        let login = json!({
            "type": "m.login.password", "password": PASSWORD,
            "identifier": { "type": "m.id.user", "user": alice.user_id },
        });
        let anonymous = server.anonymous();
        anonymous.post(&v3(["login"]), login.clone()).await.error(403, "M_FORBIDDEN");
        // An existing device may log in again.
        let mut again = login.clone();
        again["device_id"] = json!(second.device_id);
        anonymous.post(&v3(["login"]), again).await.ok();
        alice.post(&v3(["logout"]), json!({})).await.ok();
        anonymous.post(&v3(["login"]), login).await.ok();
    }

    async fn a_device_is_named_by_its_owner(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let path = v3(["devices", &alice.device_id]);
        alice.put(&path, json!({ "display_name": "Laptop" })).await.ok();
        assert_eq!(alice.get(&path).await.ok()["display_name"], "Laptop");
        alice.put(&path, json!({ "display_name": "x".repeat(513) })).await.error(400, "M_INVALID_PARAM");
        bob.get(&path).await.error(404, "M_NOT_FOUND");
        bob.put(&path, json!({ "display_name": "Mine" })).await.error(404, "M_NOT_FOUND");
    }

    /// matrix-nio fails without these fields.
    async fn what_is_not_known_of_a_device_is_null(server: TestServer) {
        let mut server = server;
        let alice = server.register("alice").await;
        let second = alice.login_again().await;
        let names = ["device_id", "display_name", "last_seen_ip", "last_seen_ts"];
        let check = |device: &Value| {
            assert!(names.iter().all(|name| device.get(name).is_some()), "{device}");
            assert_eq!(device["display_name"], Value::Null);
        };
        // A device without any request was never seen.
        let path = v3(["devices", &second.device_id]);
        for _ in 0..2 {
            let device = alice.get(&path).await.ok();
            check(&device);
            assert_eq!((&device["last_seen_ip"], &device["last_seen_ts"]), (&Value::Null, &Value::Null));
            let all = alice.get(&v3(["devices"])).await.ok();
            all["devices"].as_array().expect("a list").iter().for_each(check);
            server.restart().await;
        }
    }

    async fn a_login_token_works_once_and_for_two_minutes(engine: Engine) {
        let clock = Clock::manual(1_700_000_000_000);
        let server = TestServer::builder().engine(engine).clock(clock.clone()).start().await;
        let alice = server.register("alice").await;
        let path = "/_matrix/client/v1/login/get_token";
        assert_eq!(alice.post(path, json!({})).await.status.as_u16(), 401);
        let new = async || alice.post(path, json!({ "auth": login("alice", PASSWORD) })).await.ok()["login_token"].clone();
        let with = |token: &Value| json!({ "type": "m.login.token", "token": token });

        let token = new().await;
        let answer = server.anonymous().post(&v3(["login"]), with(&token)).await.ok();
        assert_eq!(answer["user_id"], "@alice:sabha.test");
        server.anonymous().post(&v3(["login"]), with(&token)).await.error(403, "M_FORBIDDEN");

        let late = new().await;
        clock.advance(Duration::from_secs(120));
        server.anonymous().post(&v3(["login"]), with(&late)).await.error(403, "M_FORBIDDEN");
    }

    async fn an_access_token_expires_and_is_refreshed(engine: Engine) {
        let clock = Clock::manual(1_700_000_000_000);
        let server = TestServer::builder().engine(engine).clock(clock.clone()).start().await;
        server.register("alice").await;
        let mut body = login("alice", PASSWORD);
        body["refresh_token"] = json!(true);
        let first = server.anonymous().post(&v3(["login"]), body).await.ok();
        assert_eq!(first["expires_in_ms"], 3_600_000);
        let alice = server.anonymous().signed_in(&first);
        assert_eq!(whoami(&alice).await, 200);

        clock.advance(Duration::from_secs(3600));
        let expired = alice.get(&v3(["account", "whoami"])).await.error(401, "M_UNKNOWN_TOKEN");
        assert_eq!(expired["soft_logout"], true);

        let refresh = async |answer: &Value| {
            let body = json!({ "refresh_token": answer["refresh_token"] });
            server.anonymous().post(&v3(["refresh"]), body).await
        };
        // The first answer is lost; the exchange is repeated.
        let lost = refresh(&first).await.ok();
        let second = refresh(&first).await.ok();
        assert_eq!(whoami(&with_token(&alice, &lost["access_token"])).await, 401);
        refresh(&lost).await.error(401, "M_UNKNOWN_TOKEN");

        // Using the new access token ends the old refresh token.
        assert_eq!(whoami(&with_token(&alice, &second["access_token"])).await, 200);
        refresh(&first).await.error(401, "M_UNKNOWN_TOKEN");

        // And so does using the new refresh token.
        let third = refresh(&second).await.ok();
        let fourth = refresh(&third).await.ok();
        refresh(&second).await.error(401, "M_UNKNOWN_TOKEN");
        let alice = with_token(&alice, &fourth["access_token"]);
        assert_eq!(whoami(&alice).await, 200);
        assert_eq!(whoami(&with_token(&alice, &second["access_token"])).await, 401);

        alice.post(&v3(["logout"]), json!({})).await.ok();
        refresh(&fourth).await.error(401, "M_UNKNOWN_TOKEN");
    }

    async fn where_a_device_was_last_seen_is_known_at_once_and_after_a_restart(engine: Engine) {
        let clock = Clock::manual(1_700_000_000_000);
        let mut server = TestServer::builder().engine(engine).clock(clock.clone()).start().await;
        let alice = server.register("alice").await;
        clock.advance(Duration::from_secs(5));
        let seen = async || alice.get(&v3(["devices"])).await.ok()["devices"][0].clone();
        assert_eq!(seen().await["last_seen_ts"], 1_700_000_005_000_i64);
        server.app().accounts.flush_last_seen().await.expect("the database works");
        server.restart().await;
        let devices = server.app().accounts.list_users(None, 1).await.expect("the database works");
        let user = server.app().db.find_user(&devices[0].user_id).await.expect("the database works").expect("it exists");
        let stored = server.app().accounts.list_devices(user.nid).await.expect("the database works");
        assert_eq!(stored[0].last_seen_ts.map(|at| i64::from(at.0)), Some(1_700_000_005_000));
        assert_eq!(stored[0].last_seen_ip.as_deref(), Some("127.0.0.1"));
    }
}
