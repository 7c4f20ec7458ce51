//! Upgrading rooms ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

async fn upgrade(client: &Client, room: &str, version: &str) -> String {
    let answer = client.post(&v3(["rooms", room, "upgrade"]), json!({ "new_version": version })).await.ok();
    answer["replacement_room"].as_str().expect("a checked answer has it").to_owned()
}

async fn state(client: &Client, room: &str, event_type: &str) -> Value {
    client.get(&v3(["rooms", room, "state", event_type, ""])).await.ok()
}

fn rule(kind: &str, rule_id: &str) -> String {
    v3(["pushrules", "global", kind, rule_id])
}

both_engines! {
    async fn the_new_room_has_the_settings_the_aliases_and_the_place_of_the_old_one(mut server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let old = alice
            .create_room(json!({
                "preset": "public_chat", "visibility": "public", "room_version": "10", "room_alias_name": "tea",
                "name": "Tea", "topic": "Leaves", "power_level_content_override": { "kick": 77 },
                "creation_content": { "type": "org.example.kitchen" },
                "initial_state": [{ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }],
            }))
            .await;
        bob.join(&old).await;
        bob.put(&v3(["directory", "room", "#cup:sabha.test"]), json!({ "room_id": old })).await.ok();
        alice.set_state(&old, "m.room.guest_access", "", json!({ "guest_access": "can_join" })).await;
        let new = upgrade(&alice, &old, "11").await;
        assert_ne!(new, old);

        server.restart().await;
        let create = state(&alice, &new, "m.room.create").await;
        let last = alice.get(&(v3(["rooms", &old, "state", "m.room.tombstone", ""]) + "?format=event")).await.ok();
        let predecessor = json!({ "room_id": old, "event_id": last["event_id"] });
        let expected = json!({ "type": "org.example.kitchen", "room_version": "11", "predecessor": predecessor });
        assert_eq!(create, expected);
        for same in ["m.room.name", "m.room.topic", "m.room.encryption", "m.room.join_rules", "m.room.guest_access"] {
            assert_eq!(state(&alice, &new, same).await, state(&alice, &old, same).await, "{same}");
        }
        let levels = state(&alice, &new, "m.room.power_levels").await;
        assert_eq!((&levels["kick"], &levels["events_default"], &levels["invite"]), (&json!(77), &json!(0), &json!(0)));
        assert_eq!(levels["users"], json!({ "@alice:sabha.test": 100 }));
        for alias in ["#tea:sabha.test", "#cup:sabha.test"] {
            let found = bob.get(&v3(["directory", "room", alias])).await.ok();
            assert_eq!(found["room_id"], new.as_str(), "{alias}");
        }
        assert_eq!(state(&alice, &new, "m.room.canonical_alias").await, json!({ "alias": "#tea:sabha.test" }));
        let listed = bob.get(&v3(["publicRooms"])).await.ok();
        assert_eq!(listed["chunk"].as_array().expect("checked").len(), 1);
        assert_eq!(listed["chunk"][0]["room_id"], new.as_str());

        let tombstone = state(&bob, &old, "m.room.tombstone").await;
        assert_eq!(tombstone["replacement_room"], new.as_str());
        assert_eq!(state(&bob, &old, "m.room.canonical_alias").await, json!({}));
        let levels = state(&bob, &old, "m.room.power_levels").await;
        assert_eq!((&levels["events_default"], &levels["invite"]), (&json!(50), &json!(50)));
        let message = json!({ "msgtype": "m.text", "body": "hello" });
        bob.put(&v3(["rooms", &old, "send", "m.room.message", "t"]), message).await.error(403, "M_FORBIDDEN");
        bob.join(&new).await;
        bob.send_text(&new, "t", "hello").await;
    }

    async fn only_who_may_close_a_room_may_upgrade_it(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "10" })).await;
        let path = v3(["rooms", &room, "upgrade"]);
        let wanted = json!({ "new_version": "11" });
        bob.post(&path, wanted.clone()).await.error(403, "M_FORBIDDEN");
        bob.join(&room).await;
        bob.post(&path, wanted.clone()).await.error(403, "M_FORBIDDEN");
        alice.post(&path, json!({ "new_version": "none" })).await.error(400, "M_UNSUPPORTED_ROOM_VERSION");
        alice.post(&path, json!({})).await.error(400, "M_MISSING_PARAM");
        alice.post(&v3(["rooms", "!none:sabha.test", "upgrade"]), wanted.clone()).await.error(403, "M_FORBIDDEN");
        // None of these requests closed the room or left a new room behind.
        alice.get(&v3(["rooms", &room, "state", "m.room.tombstone", ""])).await.error(404, "M_NOT_FOUND");
        assert_eq!(alice.get(&v3(["joined_rooms"])).await.ok()["joined_rooms"], json!([room]));
        // A moderator who may send the tombstone may upgrade, and has no more power afterwards.
        let levels = json!({
            "users": { "@alice:sabha.test": 100, "@bob:sabha.test": 50 },
            "events": { "m.room.tombstone": 50, "m.room.power_levels": 100 },
        });
        alice.set_state(&room, "m.room.power_levels", "", levels.clone()).await;
        let new = upgrade(&bob, &room, "11").await;
        assert_eq!(state(&bob, &new, "m.room.power_levels").await, levels);
        assert_eq!(state(&bob, &room, "m.room.tombstone").await["replacement_room"], new.as_str());
        assert_eq!(state(&bob, &room, "m.room.power_levels").await, levels);
    }

    async fn creators_stand_above_all_levels_from_version_12_on_and_not_before(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await;
        let body = json!({ "new_version": "12", "additional_creators": [bob.user_id] });
        let answer = alice.post(&v3(["rooms", &room, "upgrade"]), body).await.ok();
        let twelve = answer["replacement_room"].as_str().expect("a checked answer has it");
        let create = state(&alice, twelve, "m.room.create").await;
        assert_eq!(create["additional_creators"], json!([bob.user_id]));
        assert_eq!(state(&alice, twelve, "m.room.power_levels").await["users"], json!({}));
        bob.join(twelve).await;
        let eleven = upgrade(&bob, twelve, "11").await;
        let users = &state(&bob, &eleven, "m.room.power_levels").await["users"];
        assert_eq!(*users, json!({ "@alice:sabha.test": 100, "@bob:sabha.test": 100 }));
        assert!(state(&bob, &eleven, "m.room.create").await.get("additional_creators").is_none());
    }

    /// Bans stay even if the user who upgrades has no right to ban.
    async fn who_was_banned_stays_banned(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let carol = server.register("carol").await;
        for (from, to) in [("9", "11"), ("11", "12"), ("12", "12"), ("12", "11")] {
            let levels = json!({ "ban": 99, "events": { "m.room.tombstone": 50 }, "users_default": 50 });
            let preset = json!({ "preset": "public_chat", "room_version": from, "power_level_content_override": levels });
            let old = alice.create_room(preset).await;
            bob.join(&old).await;
            let ban = json!({ "user_id": carol.user_id, "reason": "spam" });
            alice.post(&v3(["rooms", &old, "ban"]), ban).await.ok();
            let new = upgrade(&bob, &old, to).await;
            let member = bob.get(&v3(["rooms", &new, "state", "m.room.member", &carol.user_id])).await.ok();
            assert_eq!(member, json!({ "membership": "ban", "reason": "spam" }), "from {from} to {to}");
            carol.post(&v3(["join", &new]), json!({})).await.error(403, "M_FORBIDDEN");
            alice.join(&new).await;
        }
    }

    /// A new creator stands above all bans.
    async fn a_banned_user_may_become_a_creator(server: TestServer) {
        let (alice, carol) = (server.register("alice").await, server.register("carol").await);
        let old = alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await;
        alice.post(&v3(["rooms", &old, "ban"]), json!({ "user_id": carol.user_id })).await.ok();
        let body = json!({ "new_version": "12", "additional_creators": [carol.user_id] });
        let answer = alice.post(&v3(["rooms", &old, "upgrade"]), body).await.ok();
        carol.join(answer["replacement_room"].as_str().expect("a checked answer has it")).await;
    }

    async fn a_space_keeps_its_rooms(server: TestServer) {
        let alice = server.register("alice").await;
        let space = alice.create_room(json!({ "creation_content": { "type": "m.space" } })).await;
        let child = json!({ "via": ["sabha.test"] });
        alice.set_state(&space, "m.space.child", "!a:sabha.test", child.clone()).await;
        alice.set_state(&space, "m.space.child", "!b:sabha.test", child.clone()).await;
        alice.set_state(&space, "m.space.child", "!b:sabha.test", json!({})).await;
        let new = upgrade(&alice, &space, "11").await;
        let at = |room: &str| v3(["rooms", &new, "state", "m.space.child", room]);
        assert_eq!(alice.get(&at("!a:sabha.test")).await.ok(), child);
        alice.get(&at("!b:sabha.test")).await.error(404, "M_NOT_FOUND");
        assert_eq!(state(&alice, &new, "m.room.create").await["type"], "m.space");
    }

    async fn only_before_version_12_a_room_names_the_last_event_of_the_old_one(server: TestServer) {
        let alice = server.register("alice").await;
        for (from, to) in [("10", "9"), ("11", "12"), ("12", "12"), ("12", "11")] {
            let old = alice.create_room(json!({ "room_version": from })).await;
            let new = upgrade(&alice, &old, to).await;
            let predecessor = state(&alice, &new, "m.room.create").await["predecessor"].clone();
            assert_eq!(predecessor["room_id"], old.as_str());
            assert_eq!(predecessor.get("event_id").is_some(), to != "12", "from {from} to {to}");
            assert_eq!(state(&alice, &old, "m.room.tombstone").await["replacement_room"], new.as_str());
        }
    }

    async fn an_unknown_version_is_called_so_whatever_it_looks_like(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        for version in ["0", "org.example.none", "", "with space", &"9".repeat(40), "ä"] {
            let body = json!({ "room_version": version });
            alice.post(&v3(["createRoom"]), body).await.error(400, "M_UNSUPPORTED_ROOM_VERSION");
            let body = json!({ "new_version": version });
            alice.post(&v3(["rooms", &room, "upgrade"]), body).await.error(400, "M_UNSUPPORTED_ROOM_VERSION");
        }
        alice.post(&v3(["createRoom"]), json!({ "room_version": 11 })).await.error(400, "M_BAD_JSON");
        alice.post(&v3(["rooms", &room, "upgrade"]), json!({})).await.error(400, "M_MISSING_PARAM");
    }

    async fn tags_and_direct_chats_follow_everyone_into_the_new_room(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let old = alice.create_room(json!({ "preset": "public_chat", "room_version": "10" })).await;
        let tag = |user: &Client, room: &str, tag: &str| v3(["user", &user.user_id, "rooms", room, "tags", tag]);
        let tags = async |user: &Client, room: &str| {
            user.get(&v3(["user", &user.user_id, "rooms", room, "tags"])).await.ok()["tags"].clone()
        };
        let direct = |user: &Client| v3(["user", &user.user_id, "account_data", "m.direct"]);
        bob.join(&old).await;
        for user in [&alice, &bob] {
            user.put(&tag(user, &old, "m.favourite"), json!({ "order": 0.5 })).await.ok();
            user.put(&direct(user), json!({ "@friend:sabha.test": [old], "@other:sabha.test": [] })).await.ok();
        }
        let new = upgrade(&alice, &old, "11").await;
        bob.join(&new).await;
        for user in [&alice, &bob] {
            assert_eq!(tags(user, &new).await, json!({ "m.favourite": { "order": 0.5 } }));
            let rooms = json!({ "@friend:sabha.test": [old, new], "@other:sabha.test": [] });
            assert_eq!(user.get(&direct(user)).await.ok(), rooms);
        }
        // A room that only claims to replace another one gets nothing.
        let predecessor = json!({ "predecessor": { "room_id": new } });
        let body = json!({ "preset": "public_chat", "creation_content": predecessor });
        let pretender = server.register("eve").await.create_room(body).await;
        bob.join(&pretender).await;
        assert_eq!(tags(&bob, &pretender).await, json!({}));
        // Tags that the new room already has stay as they are.
        let newest = upgrade(&alice, &new, "12").await;
        bob.join(&newest).await;
        bob.put(&tag(&bob, &newest, "m.favourite"), json!({ "order": 0.1 })).await.ok();
        bob.leave(&newest).await;
        bob.join(&newest).await;
        assert_eq!(tags(&bob, &newest).await, json!({ "m.favourite": { "order": 0.1 } }));
    }

    async fn push_rules_follow_everyone_into_the_new_room(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        for by_hand in [false, true] {
            let old = alice.create_room(json!({ "preset": "public_chat", "room_version": "10" })).await;
            bob.join(&old).await;
            let mute = json!({
                "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": old }], "actions": [],
            });
            for user in [&alice, &bob] {
                user.put(&rule("room", &old), json!({ "actions": ["notify"] })).await.ok();
                user.put(&(rule("room", &old) + "/enabled"), json!({ "enabled": false })).await.ok();
                user.put(&rule("override", &old), mute.clone()).await.ok();
            }
            let since = alice.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
            let new = if by_hand {
                let predecessor = json!({ "predecessor": { "room_id": old } });
                alice.create_room(json!({ "preset": "public_chat", "creation_content": predecessor })).await
            } else {
                upgrade(&alice, &old, "11").await
            };
            bob.join(&new).await;
            for user in [&alice, &bob] {
                let copy = user.get(&rule("room", &new)).await.ok();
                assert_eq!((&copy["enabled"], &copy["actions"]), (&json!(false), &json!(["notify"])));
                let copy = user.get(&rule("override", &new)).await.ok();
                assert_eq!((&copy["conditions"][0]["pattern"], &copy["enabled"]), (&json!(new), &json!(true)));
                user.get(&rule("room", &old)).await.ok();
            }
            let news = alice.sync(Some(&since)).await;
            let events = news["account_data"]["events"].as_array().expect("the rules changed");
            assert!(events.iter().any(|event| event["type"] == "m.push_rules"), "{news}");
            // The user's own changes in the new room are kept.
            bob.put(&(rule("room", &new) + "/enabled"), json!({ "enabled": true })).await.ok();
            bob.leave(&new).await;
            bob.join(&new).await;
            assert_eq!(bob.get(&rule("room", &new)).await.ok()["enabled"], true);
        }
    }
}
