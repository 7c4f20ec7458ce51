//! Accounts: registering, passwords, deactivation, profiles.

use std::time::Duration;

use sabha::{clock::Clock, config::RegistrationMode};
use serde_json::{Value, json};

use crate::{
    harness::{Client, Engine, PASSWORD, TestServer, v3},
    invitations::may_not_invite,
};

fn dummy(name: &str) -> Value {
    json!({ "username": name, "password": PASSWORD, "auth": { "type": "m.login.dummy" } })
}

fn password_of(client: &Client, password: &str) -> Value {
    json!({
        "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": client.user_id },
    })
}

both_engines! {
    async fn registering_asks_for_a_stage_and_then_signs_in(server: TestServer) {
        let anonymous = server.anonymous();
        let ask = anonymous.post(&v3(["register"]), json!({ "username": "Alice", "password": PASSWORD })).await;
        assert_eq!(ask.status.as_u16(), 401);
        assert_eq!(ask.json["flows"], json!([{ "stages": ["m.login.dummy"] }]));

        let body = json!({
            "username": "Alice", "password": PASSWORD, "device_id": "PHONE", "initial_device_display_name": "Phone",
            "auth": { "type": "m.login.dummy", "session": ask.json["session"] },
        });
        let alice = anonymous.signed_in(&anonymous.post(&v3(["register"]), body).await.ok());
        assert_eq!((alice.user_id.as_str(), alice.device_id.as_str()), ("@alice:sabha.test", "PHONE"));

        let whoami = alice.get(&v3(["account", "whoami"])).await.ok();
        assert_eq!(whoami["user_id"], "@alice:sabha.test");
        assert_eq!(whoami["device_id"], "PHONE");
        assert_eq!(alice.get(&v3(["devices", "PHONE"])).await.ok()["display_name"], "Phone");
        let profile = alice.get(&v3(["profile", &alice.user_id])).await.ok();
        assert_eq!(profile, json!({ "displayname": "alice" }));
    }

    async fn a_session_of_interactive_auth_that_is_not_ours_is_refused(server: TestServer) {
        let body = json!({
            "username": "alice", "password": PASSWORD, "auth": { "type": "m.login.dummy", "session": "made up" },
        });
        let answer = server.anonymous().post(&v3(["register"]), body).await;
        assert_eq!(answer.status.as_u16(), 401);
        assert_ne!(answer.json["session"], "made up");
        assert!(!server.app().accounts.has_any_account().await.expect("the database works"));
    }

    async fn names_that_are_taken_or_impossible_are_refused(server: TestServer) {
        server.register("alice").await;
        let anonymous = server.anonymous();
        let available = |name: &str| format!("/_matrix/client/v3/register/available?username={name}");
        for (name, errcode) in [("alice", "M_USER_IN_USE"), ("ALICE", "M_USER_IN_USE"), ("a%20b", "M_INVALID_USERNAME")] {
            anonymous.get(&available(name)).await.error(400, errcode);
        }
        assert_eq!(anonymous.get(&available("bob")).await.ok()["available"], true);
        anonymous.post(&v3(["register"]), dummy("alice")).await.error(400, "M_USER_IN_USE");
        anonymous.post(&v3(["register"]), dummy("_bridge")).await.error(400, "M_INVALID_USERNAME");
        anonymous.post(&v3(["register"]), dummy(&"a".repeat(256))).await.error(400, "M_INVALID_USERNAME");
    }

    async fn of_many_who_want_one_name_exactly_one_gets_it(server: TestServer) {
        let ask = || {
            let anonymous = server.anonymous();
            tokio::spawn(async move { anonymous.post(&v3(["register"]), dummy("alice")).await.status.as_u16() })
        };
        let asking: Vec<_> = (0..8).map(|_| ask()).collect();
        let mut answers = Vec::new();
        for one in asking {
            answers.push(one.await.expect("it does not panic"));
        }
        answers.sort_unstable();
        assert_eq!(answers, [200, 400, 400, 400, 400, 400, 400, 400]);
    }

    async fn weak_passwords_and_guests_are_refused(server: TestServer) {
        let anonymous = server.anonymous();
        let with = |password: &str| {
            json!({ "username": "alice", "password": password, "auth": { "type": "m.login.dummy" } })
        };
        anonymous.post(&v3(["register"]), with("short")).await.error(400, "M_WEAK_PASSWORD");
        anonymous.post(&v3(["register"]), with(&"x".repeat(513))).await.error(400, "M_WEAK_PASSWORD");
        anonymous
            .post("/_matrix/client/v3/register?kind=guest", json!({}))
            .await
            .error(403, "M_GUEST_ACCESS_FORBIDDEN");
    }

    async fn without_a_login_only_the_account_is_made(server: TestServer) {
        let mut body = dummy("alice");
        body["inhibit_login"] = json!(true);
        let answer = server.anonymous().post(&v3(["register"]), body).await.ok();
        assert_eq!(answer["user_id"], "@alice:sabha.test");
        assert_eq!(answer.get("access_token"), None);
        let alice = server.login("alice").await;
        let devices = alice.get(&v3(["devices"])).await.ok();
        assert_eq!(devices["devices"].as_array().map(Vec::len), Some(1));
    }

    async fn a_closed_server_registers_nobody(engine: Engine) {
        let server = TestServer::builder().engine(engine).registration(RegistrationMode::Closed).start().await;
        let anonymous = server.anonymous();
        anonymous.post(&v3(["register"]), dummy("alice")).await.error(403, "M_FORBIDDEN");
        anonymous.get("/_matrix/client/v3/register/available?username=alice").await.error(403, "M_FORBIDDEN");
    }

    async fn a_registration_token_makes_as_many_accounts_as_it_allows(engine: Engine) {
        let server = TestServer::builder().engine(engine).registration(RegistrationMode::Token).start().await;
        let accounts = &server.app().accounts;
        let token = accounts.new_registration_token(Some(1), None).await.expect("the database works");
        let anonymous = server.anonymous();
        let validity = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
        let with = |name: &str, token: &str| {
            json!({
                "username": name, "password": PASSWORD,
                "auth": { "type": "m.login.registration_token", "token": token },
            })
        };

        let ask = anonymous.post(&v3(["register"]), json!({})).await;
        assert_eq!(ask.json["flows"], json!([{ "stages": ["m.login.registration_token"] }]));
        assert_eq!(anonymous.post(&v3(["register"]), dummy("mallory")).await.status.as_u16(), 401);
        anonymous.post(&v3(["register"]), with("mallory", "wrong")).await.error(401, "M_UNAUTHORIZED");

        assert_eq!(anonymous.get(&validity).await.ok()["valid"], true);
        anonymous.post(&v3(["register"]), with("alice", &token)).await.ok();
        assert_eq!(anonymous.get(&validity).await.ok()["valid"], false);
        anonymous.post(&v3(["register"]), with("bob", &token)).await.error(401, "M_UNAUTHORIZED");
        let tokens = accounts.list_registration_tokens(None, 10).await.expect("the database works");
        assert_eq!(tokens.iter().map(|token| token.used).collect::<Vec<_>>(), [1]);
        assert!(accounts.revoke_registration_token(&token).await.expect("the database works"));
    }

    async fn one_use_of_a_registration_token_is_given_to_one_of_many(engine: Engine) {
        let server = TestServer::builder().engine(engine).registration(RegistrationMode::Token).start().await;
        let token = server.app().accounts.new_registration_token(Some(1), None).await.expect("the database works");
        let ask = |number: usize| {
            let anonymous = server.anonymous();
            let body = json!({
                "username": format!("user{number}"), "password": PASSWORD,
                "auth": { "type": "m.login.registration_token", "token": token },
            });
            tokio::spawn(async move { anonymous.post(&v3(["register"]), body).await.status.as_u16() })
        };
        let asking: Vec<_> = (0..6).map(ask).collect();
        let mut made = 0;
        for one in asking {
            made += usize::from(one.await.expect("it does not panic") == 200);
        }
        assert_eq!(made, 1);
        let users = server.app().accounts.list_users(None, 10).await.expect("the database works");
        assert_eq!(users.len(), 1);
    }

    async fn a_new_password_signs_the_other_devices_out(server: TestServer) {
        let alice = server.register("alice").await;
        let other = alice.login_again().await;
        let change = |auth: Value| json!({ "new_password": "another good one", "auth": auth });
        let path = v3(["account", "password"]);

        server.anonymous().post(&path, change(Value::Null)).await.error(401, "M_MISSING_TOKEN");
        alice.post(&path, change(password_of(&alice, "wrong password"))).await.error(401, "M_FORBIDDEN");
        let bob = server.register("bob").await;
        alice.post(&path, change(password_of(&bob, PASSWORD))).await.error(403, "M_FORBIDDEN");
        assert_eq!(alice.post(&path, change(json!({ "type": "m.login.dummy" }))).await.status.as_u16(), 401);

        alice.post(&path, change(password_of(&alice, PASSWORD))).await.ok();
        alice.get(&v3(["account", "whoami"])).await.ok();
        other.get(&v3(["account", "whoami"])).await.error(401, "M_UNKNOWN_TOKEN");
        alice.login("alice", "another good one").await;
        let old = json!({
            "type": "m.login.password", "password": PASSWORD, "identifier": { "type": "m.id.user", "user": "alice" },
        });
        server.anonymous().post(&v3(["login"]), old).await.error(403, "M_FORBIDDEN");
    }

    async fn a_new_password_may_keep_the_other_devices(server: TestServer) {
        let alice = server.register("alice").await;
        let other = alice.login_again().await;
        let body = json!({
            "new_password": "another good one", "logout_devices": false, "auth": password_of(&alice, PASSWORD),
        });
        alice.post(&v3(["account", "password"]), body).await.ok();
        other.get(&v3(["account", "whoami"])).await.ok();
    }

    async fn a_deactivated_account_is_gone_for_ever(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let path = v3(["account", "deactivate"]);
        assert_eq!(alice.post(&path, json!({})).await.status.as_u16(), 401);
        alice.post(&path, json!({ "auth": password_of(&alice, PASSWORD), "erase": true })).await.ok();

        alice.get(&v3(["account", "whoami"])).await.error(401, "M_UNKNOWN_TOKEN");
        bob.get(&v3(["profile", &alice.user_id])).await.error(404, "M_NOT_FOUND");
        let login = json!({
            "type": "m.login.password", "password": PASSWORD, "identifier": { "type": "m.id.user", "user": "alice" },
        });
        // The answer is that of any wrong password, so nobody learns that the account existed.
        server.anonymous().post(&v3(["login"]), login).await.error(403, "M_FORBIDDEN");
        server.anonymous().post(&v3(["register"]), dummy("alice")).await.error(400, "M_USER_IN_USE");
    }

    async fn a_deactivated_account_cannot_be_invited(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = bob.create_room(json!({})).await;
        bob.invite(&room, &alice.user_id).await;
        let end = json!({ "auth": password_of(&alice, PASSWORD), "erase": false });
        alice.post(&v3(["account", "deactivate"]), end).await.ok();
        let member = v3(["rooms", &room, "state", "m.room.member", &alice.user_id]);
        assert_eq!(bob.get(&member).await.ok()["membership"], "leave");

        may_not_invite(&bob, &room, &alice.user_id).await;
        assert_eq!(bob.get(&member).await.ok()["membership"], "leave");
        assert_eq!(bob.get(&v3(["joined_rooms"])).await.ok()["joined_rooms"], json!([room]), "no room was made");
        // Everything else that concerns a user of that name is allowed.
        bob.post(&v3(["rooms", &room, "ban"]), json!({ "user_id": alice.user_id })).await.ok();
    }

    async fn the_setup_secret_makes_one_administrator_within_the_hour(engine: Engine) {
        let clock = Clock::manual(1_700_000_000_000);
        let server = TestServer::builder().engine(engine).clock(clock.clone()).start().await;
        let accounts = &server.app().accounts;
        let password = || PASSWORD.to_owned().into();
        let late = accounts.create_setup_secret().await.expect("the database works");
        clock.advance(Duration::from_secs(3600));
        assert!(accounts.use_setup_secret(&late, "root", password()).await.is_err());

        let secret = accounts.create_setup_secret().await.expect("the database works");
        assert!(accounts.use_setup_secret("made up", "root", password()).await.is_err());
        let root = accounts.use_setup_secret(&secret, "root", password()).await.expect("the secret is right");
        let account = accounts.find_account(&root).await.expect("the database works").expect("it was made");
        assert!(account.admin);
        assert!(accounts.use_setup_secret(&secret, "second", password()).await.is_err());
        let again = accounts.create_setup_secret().await.expect("the database works");
        assert!(accounts.use_setup_secret(&again, "second", password()).await.is_err());
    }

    async fn everyone_sets_their_own_profile_and_reads_the_others(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let field = |name: &str| v3(["profile", &alice.user_id, name]);
        alice.put(&field("displayname"), json!({ "displayname": "Alice A." })).await.ok();
        alice.put(&field("avatar_url"), json!({ "avatar_url": "mxc://sabha.test/cat" })).await.ok();
        alice.put(&field("m.tz"), json!({ "m.tz": "Europe/Berlin" })).await.ok();
        alice.put(&field("org.example.pets"), json!({ "org.example.pets": ["cat", 2] })).await.ok();

        assert_eq!(bob.get(&field("displayname")).await.ok(), json!({ "displayname": "Alice A." }));
        let expected = json!({
            "displayname": "Alice A.", "avatar_url": "mxc://sabha.test/cat", "m.tz": "Europe/Berlin",
            "org.example.pets": ["cat", 2],
        });
        assert_eq!(bob.get(&v3(["profile", &alice.user_id])).await.ok(), expected);

        alice.delete(&field("org.example.pets"), json!({})).await.ok();
        bob.get(&field("org.example.pets")).await.error(404, "M_NOT_FOUND");
        alice.put(&field("avatar_url"), json!({ "avatar_url": null })).await.ok();
        bob.get(&field("avatar_url")).await.error(404, "M_NOT_FOUND");

        bob.put(&field("displayname"), json!({ "displayname": "Mallory" })).await.error(403, "M_FORBIDDEN");
        alice.put(&field("displayname"), json!({ "other": "x" })).await.error(400, "M_MISSING_PARAM");
        alice.put(&field("avatar_url"), json!({ "avatar_url": "https://x.org" })).await.error(400, "M_INVALID_PARAM");
        bob.get(&v3(["profile", "@nobody:sabha.test"])).await.error(404, "M_NOT_FOUND");
    }

    async fn a_profile_is_bounded(server: TestServer) {
        let alice = server.register("alice").await;
        let field = |name: &str| v3(["profile", &alice.user_id, name]);
        let long = "x".repeat(256);
        alice.put(&field(&long), json!({ long.as_str(): 1 })).await.error(400, "M_KEY_TOO_LARGE");
        let large = "x".repeat(40_000);
        alice.put(&field("org.example.one"), json!({ "org.example.one": large })).await.ok();
        alice.put(&field("org.example.two"), json!({ "org.example.two": large })).await.error(400, "M_PROFILE_TOO_LARGE");
        alice.put(&field("org.example.one"), json!({ "org.example.one": "small" })).await.ok();
        alice.put(&field("org.example.two"), json!({ "org.example.two": large })).await.ok();
        // These fit exactly, together with the display name and the two large fields.
        for number in 3..256 {
            let name = format!("n{number}");
            alice.put(&field(&name), json!({ name.as_str(): 1 })).await.ok();
        }
        alice.put(&field("more"), json!({ "more": 1 })).await.error(400, "M_PROFILE_TOO_LARGE");
        alice.put(&field("n3"), json!({ "n3": 2 })).await.ok();
    }

    async fn capabilities_say_what_can_be_done(server: TestServer) {
        let alice = server.register("alice").await;
        let answer = alice.get(&v3(["capabilities"])).await.ok();
        let capabilities = &answer["capabilities"];
        assert_eq!(capabilities["m.room_versions"]["default"], "12");
        assert_eq!(capabilities["m.room_versions"]["available"]["6"], "stable");
        assert_eq!(capabilities["m.get_login_token"]["enabled"], true);
        assert_eq!(capabilities["m.change_password"]["enabled"], true);
        assert_eq!(capabilities["m.3pid_changes"]["enabled"], false);
        assert_eq!(alice.get(&v3(["account", "3pid"])).await.ok().get("threepids").unwrap_or(&json!([])), &json!([]));
    }
}
