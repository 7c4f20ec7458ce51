//! `POST /createRoom`: the contents of a new room, in every room version.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

/// The room versions that this server creates.
const VERSIONS: [&str; 7] = ["6", "7", "8", "9", "10", "11", "12"];

/// Returns the room's events, oldest first.
async fn events(client: &Client, room: &str) -> Vec<Value> {
    let path = v3(["rooms", room, "messages"]) + "?dir=f&limit=100";
    let page = client.get(&path).await.ok();
    page["chunk"].as_array().expect("a checked answer has it").clone()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["type"].as_str()).collect()
}

async fn content(client: &Client, room: &str, event_type: &str) -> Value {
    client.get(&v3(["rooms", room, "state", event_type])).await.ok()
}

/// Creates a room with a preset in each version, and compares join rule, history visibility and guest access with the
/// specification's table of presets.
async fn check_preset(client: &Client, preset: &str, (join_rule, history, guests): (&str, &str, &str)) {
    for version in VERSIONS {
        let room = client.create_room(json!({ "preset": preset, "room_version": version })).await;
        let shown = format!("{preset} in version {version}");
        assert_eq!(content(client, &room, "m.room.join_rules").await["join_rule"], join_rule, "{shown}");
        assert_eq!(content(client, &room, "m.room.history_visibility").await["history_visibility"], history, "{shown}");
        assert_eq!(content(client, &room, "m.room.guest_access").await["guest_access"], guests, "{shown}");
        let create = content(client, &room, "m.room.create").await;
        assert_eq!(create["room_version"], version, "{shown}");
        assert_eq!(create.get("creator").is_some(), version.parse::<u8>().is_ok_and(|number| number < 11), "{shown}");
        let levels = content(client, &room, "m.room.power_levels").await;
        let listed = levels["users"].get(client.user_id.as_str()).and_then(Value::as_i64);
        assert_eq!(listed, if version == "12" { None } else { Some(100) }, "{shown}");
        assert_eq!(!room.contains(':'), version == "12", "{shown}: {room}");
        // The creator may do everything in the room.
        client.set_state(&room, "m.room.tombstone", "", json!({ "body": "over", "replacement_room": "!x:y" })).await;
    }
}

both_engines! {
    async fn each_preset_makes_the_room_that_the_specification_names(server: TestServer) {
        let alice = server.register("alice").await;
        check_preset(&alice, "private_chat", ("invite", "shared", "can_join")).await;
        check_preset(&alice, "trusted_private_chat", ("invite", "shared", "can_join")).await;
        check_preset(&alice, "public_chat", ("public", "shared", "forbidden")).await;
    }

    async fn the_first_events_come_in_the_order_of_the_specification(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        for version in VERSIONS {
            let room = alice
                .create_room(json!({
                    "room_version": version, "name": "Tea", "topic": "Leaves", "invite": [bob.user_id],
                    "room_alias_name": format!("tea{version}"), "is_direct": true,
                    "initial_state": [{ "type": "org.example.kettle", "content": { "hot": true } }],
                }))
                .await;
            let events = events(&alice, &room).await;
            assert_eq!(
                types(&events),
                [
                    "m.room.create", "m.room.member", "m.room.power_levels", "m.room.canonical_alias",
                    "m.room.join_rules", "m.room.history_visibility", "m.room.guest_access", "org.example.kettle",
                    "m.room.name", "m.room.topic", "m.room.member",
                ],
                "{version}"
            );
            let invite = events.last().expect("there are eleven");
            assert_eq!(invite["state_key"], bob.user_id.as_str());
            assert_eq!(invite["content"]["is_direct"], true);
        }
    }

    async fn visibility_chooses_the_preset_where_none_is_given(server: TestServer) {
        let alice = server.register("alice").await;
        for (visibility, join_rule) in [("public", "public"), ("private", "invite")] {
            let room = alice.create_room(json!({ "visibility": visibility })).await;
            assert_eq!(content(&alice, &room, "m.room.join_rules").await["join_rule"], join_rule);
            let listed = alice.get(&v3(["directory", "list", "room", &room])).await.ok();
            assert_eq!(listed["visibility"], visibility);
        }
    }

    async fn invited_friends_of_a_trusted_room_are_as_powerful_as_its_creator(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        for version in VERSIONS {
            let body = json!({ "preset": "trusted_private_chat", "room_version": version, "invite": [bob.user_id] });
            let room = alice.create_room(body).await;
            bob.join(&room).await;
            bob.set_state(&room, "m.room.tombstone", "", json!({ "body": "over", "replacement_room": "!x:y" })).await;
        }
    }

    async fn creation_content_and_power_levels_are_taken_over(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice
            .create_room(json!({
                "creation_content": { "type": "m.space", "m.federate": false, "creator": "@eve:elsewhere" },
                "power_level_content_override": { "events_default": 50 },
            }))
            .await;
        let create = content(&alice, &room, "m.room.create").await;
        assert_eq!(create["type"], "m.space");
        assert_eq!(create["m.federate"], false);
        assert_ne!(create["creator"], "@eve:elsewhere");
        assert_eq!(content(&alice, &room, "m.room.power_levels").await["events_default"], 50);
    }

    async fn what_cannot_be_a_room_is_refused_and_leaves_nothing(server: TestServer) {
        let alice = server.register("alice").await;
        let refused = async |body: Value, status: u16, errcode: &str| {
            alice.post(&v3(["createRoom"]), body).await.error(status, errcode);
        };
        refused(json!({ "room_version": "5" }), 400, "M_UNSUPPORTED_ROOM_VERSION").await;
        refused(json!({ "room_version": "org.example.none" }), 400, "M_UNSUPPORTED_ROOM_VERSION").await;
        refused(json!({ "preset": "mine" }), 400, "M_INVALID_PARAM").await;
        refused(json!({ "visibility": "hidden" }), 400, "M_INVALID_PARAM").await;
        refused(json!({ "room_alias_name": "a:b" }), 400, "M_INVALID_PARAM").await;
        refused(json!({ "room_alias_name": "a b" }), 400, "M_INVALID_PARAM").await;
        refused(json!({ "invite": ["@bob:elsewhere.test"] }), 403, "M_FORBIDDEN").await;
        let by_mail = json!({ "id_server": "id.test", "id_access_token": "x", "medium": "email", "address": "a@b.c" });
        refused(json!({ "invite_3pid": [by_mail] }), 400, "M_THREEPID_DENIED").await;
        let no_power = json!({ "users": { alice.user_id.as_str(): 0 } });
        let body = json!({ "room_version": "11", "name": "Tea", "power_level_content_override": no_power });
        refused(body, 400, "M_INVALID_ROOM_STATE").await;
        let nobody = json!({ "additional_creators": ["not a user"] });
        refused(json!({ "room_version": "12", "creation_content": nobody }), 400, "M_INVALID_ROOM_STATE").await;
        refused(json!({ "name": "x".repeat(70_000) }), 413, "M_TOO_LARGE").await;
        let body = json!({ "initial_state": [{ "type": "a.b", "content": { "half": 0.5 } }], "room_alias_name": "free" });
        refused(body, 400, "M_BAD_JSON").await;
        let many: Vec<_> = (0..201).map(|number| format!("@u{number}:sabha.test")).collect();
        refused(json!({ "invite": many }), 400, "M_INVALID_PARAM").await;

        alice.create_room(json!({ "room_alias_name": "free" })).await;
        refused(json!({ "room_alias_name": "free" }), 400, "M_ROOM_IN_USE").await;
        let joined = alice.get(&v3(["joined_rooms"])).await.ok();
        assert_eq!(joined["joined_rooms"].as_array().map(Vec::len), Some(1));
    }
}

both_engines! {
    /// Only the creator and `invite` decide who is a member of a new room.
    async fn initial_state_makes_nobody_a_member(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let member = |user: &str, content: Value| json!({ "type": "m.room.member", "state_key": user, "content": content });
        let authorised = json!({ "membership": "join", "join_authorised_via_users_server": alice.user_id });
        for event in [
            member(&bob.user_id, json!({ "membership": "invite" })),
            member(&bob.user_id, json!({ "membership": "ban" })),
            member(&bob.user_id, json!({ "membership": "join" })),
            member("@bob:else.where", json!({ "membership": "invite" })),
            member(&alice.user_id, json!({ "membership": "leave" })),
            member(&alice.user_id, authorised),
            member("", json!({ "membership": "join" })),
        ] {
            let asked = alice.post(&v3(["createRoom"]), json!({ "initial_state": [event] })).await;
            asked.error(400, "M_INVALID_ROOM_STATE");
        }
        let own = member(&alice.user_id, json!({ "membership": "join", "displayname": "Alice, here" }));
        let room = alice.create_room(json!({ "initial_state": [own] })).await;
        let shown = alice.get(&v3(["rooms", &room, "state", "m.room.member", &alice.user_id])).await.ok();
        assert_eq!(shown["displayname"], "Alice, here");
    }

    async fn a_new_room_claims_no_alias_of_another(server: TestServer) {
        let alice = server.register("alice").await;
        alice.create_room(json!({ "room_alias_name": "tea" })).await;
        let canonical = |alias: &str| json!([{ "type": "m.room.canonical_alias", "content": { "alias": alias } }]);
        let tea = canonical("#tea:sabha.test");
        alice.post(&v3(["createRoom"]), json!({ "initial_state": tea })).await.error(400, "M_BAD_ALIAS");
        let wrong = json!({ "initial_state": canonical("no alias") });
        alice.post(&v3(["createRoom"]), wrong).await.error(400, "M_INVALID_PARAM");
        alice.create_room(json!({ "room_alias_name": "cake", "initial_state": canonical("#cake:sabha.test") })).await;
    }
}
