//! Aliases and the public directory.

use serde_json::{Value, json};

use crate::harness::{TestServer, v3};

fn room_ids(listed: &Value) -> Vec<&str> {
    let chunk = listed["chunk"].as_array().expect("a checked answer has it");
    chunk.iter().filter_map(|room| room["room_id"].as_str()).collect()
}

both_engines! {
    async fn the_life_of_an_alias(mut server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let path = v3(["directory", "room", "#tea:sabha.test"]);
        let point = json!({ "room_id": room });
        bob.get(&path).await.error(404, "M_NOT_FOUND");
        bob.put(&path, point.clone()).await.error(403, "M_FORBIDDEN");
        alice.put(&path, point.clone()).await.ok();
        alice.put(&path, point.clone()).await.error(409, "M_UNKNOWN");
        server.restart().await;
        let found = server.anonymous().get(&path).await.ok();
        assert_eq!(found, json!({ "room_id": room, "servers": ["sabha.test"] }));
        let aliases = alice.get(&v3(["rooms", &room, "aliases"])).await.ok();
        assert_eq!(aliases, json!({ "aliases": ["#tea:sabha.test"] }));
        bob.get(&v3(["rooms", &room, "aliases"])).await.error(403, "M_FORBIDDEN");
        bob.delete(&path, json!({})).await.error(403, "M_FORBIDDEN");
        alice.delete(&path, json!({})).await.ok();
        alice.delete(&path, json!({})).await.error(404, "M_NOT_FOUND");
        bob.get(&path).await.error(404, "M_NOT_FOUND");
        let foreign = v3(["directory", "room", "#tea:elsewhere.test"]);
        alice.put(&foreign, point.clone()).await.error(400, "M_INVALID_PARAM");
        alice.put(&v3(["directory", "room", "tea"]), point).await.error(400, "M_INVALID_PARAM");
        alice.get(&foreign).await.error(404, "M_NOT_FOUND");
    }

    async fn a_canonical_alias_must_point_to_its_room(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({ "room_alias_name": "tea" })).await;
        alice.create_room(json!({ "room_alias_name": "coffee" })).await;
        let path = v3(["rooms", &room, "state", "m.room.canonical_alias"]);
        let set = async |content: Value| alice.put(&path, content).await;
        set(json!({ "alias": "#coffee:sabha.test" })).await.error(400, "M_BAD_ALIAS");
        set(json!({ "alt_aliases": ["#none:sabha.test"] })).await.error(400, "M_BAD_ALIAS");
        set(json!({ "alias": "tea" })).await.error(400, "M_INVALID_PARAM");
        for wrong in [
            json!({ "alias": 7 }),
            json!({ "alias": ["#tea:sabha.test"] }),
            json!({ "alt_aliases": "#tea:sabha.test" }),
            json!({ "alt_aliases": [{}] }),
            json!({ "alt_aliases": null }),
        ] {
            set(wrong.clone()).await.error(400, "M_INVALID_PARAM");
            let state = json!([{ "type": "m.room.canonical_alias", "content": wrong }]);
            alice.post(&v3(["createRoom"]), json!({ "initial_state": state })).await.error(400, "M_INVALID_PARAM");
        }
        set(json!({ "alias": null })).await.ok();
        alice.put(&v3(["directory", "room", "#chai:sabha.test"]), json!({ "room_id": room })).await.ok();
        set(json!({ "alias": "#tea:sabha.test", "alt_aliases": ["#chai:sabha.test"] })).await.ok();
    }

    async fn a_deleted_alias_is_no_longer_the_rooms_main_one(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "tea" })).await;
        bob.join(&room).await;
        let directory = |alias: &str| v3(["directory", "room", alias]);
        let state = v3(["rooms", &room, "state", "m.room.canonical_alias"]);
        for (owner, alias) in [(&alice, "#chai:sabha.test"), (&bob, "#bobs:sabha.test")] {
            owner.put(&directory(alias), json!({ "room_id": room })).await.ok();
        }
        let all = json!({ "alias": "#tea:sabha.test", "alt_aliases": ["#chai:sabha.test", "#bobs:sabha.test"] });
        alice.put(&state, all.clone()).await.ok();
        // Bob may delete his alias, but not change the room's canonical alias event.
        bob.delete(&directory("#bobs:sabha.test"), json!({})).await.ok();
        assert_eq!(alice.get(&state).await.ok(), all);
        alice.delete(&directory("#tea:sabha.test"), json!({})).await.ok();
        assert_eq!(alice.get(&state).await.ok(), json!({ "alt_aliases": ["#chai:sabha.test", "#bobs:sabha.test"] }));
        alice.put(&state, json!({ "alt_aliases": ["#chai:sabha.test"] })).await.ok();
        alice.delete(&directory("#chai:sabha.test"), json!({})).await.ok();
        assert_eq!(alice.get(&state).await.ok(), json!({}));
    }

    async fn the_directory_lists_what_was_published(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let quiet = alice.create_room(json!({ "visibility": "public", "name": "Quiet" })).await;
        let tea = alice
            .create_room(json!({ "visibility": "public", "name": "Tea", "topic": "Leaves", "room_alias_name": "tea" }))
            .await;
        let hidden = alice.create_room(json!({})).await;
        bob.join(&tea).await;
        let all = v3(["publicRooms"]);
        let listed = server.anonymous().get(&all).await.ok();
        assert_eq!(room_ids(&listed), [tea.as_str(), &quiet]);
        let first = &listed["chunk"][0];
        assert_eq!(first["name"], "Tea");
        assert_eq!(first["topic"], "Leaves");
        assert_eq!(first["canonical_alias"], "#tea:sabha.test");
        assert_eq!(first["num_joined_members"], 2);
        assert_eq!(first["world_readable"], false);
        assert_eq!(first["guest_can_join"], false);
        // Pages of one room each.
        let page = bob.get(&(all.clone() + "?limit=1")).await.ok();
        assert_eq!(room_ids(&page), [tea.as_str()]);
        let next = page["next_batch"].as_str().expect("there is more");
        let page = bob.get(&format!("{all}?limit=1&since={next}")).await.ok();
        assert_eq!(room_ids(&page), [quiet.as_str()]);
        assert!(page.get("next_batch").is_none());
        bob.get(&(all.clone() + "?since=x")).await.error(400, "M_INVALID_PARAM");
        // Search by content.
        let search = async |filter: Value| bob.post(&all, json!({ "filter": filter })).await.ok();
        assert_eq!(room_ids(&search(json!({ "generic_search_term": "LEAV" })).await), [tea.as_str()]);
        assert!(room_ids(&search(json!({ "generic_search_term": "coffee" })).await).is_empty());
        assert_eq!(room_ids(&search(json!({ "room_types": [null] })).await).len(), 2);
        assert!(room_ids(&search(json!({ "room_types": ["m.space"] })).await).is_empty());
        // Adding a room to the directory and removing it.
        let visibility = v3(["directory", "list", "room", &hidden]);
        bob.put(&visibility, json!({ "visibility": "public" })).await.error(403, "M_FORBIDDEN");
        alice.put(&visibility, json!({ "visibility": "public" })).await.ok();
        assert_eq!(room_ids(&bob.get(&all).await.ok()).len(), 3);
        alice.put(&visibility, json!({ "visibility": "private" })).await.ok();
        assert_eq!(room_ids(&bob.get(&all).await.ok()).len(), 2);
        let nowhere = v3(["directory", "list", "room", "!none:sabha.test"]);
        alice.get(&nowhere).await.error(404, "M_NOT_FOUND");
        alice.put(&nowhere, json!({ "visibility": "public" })).await.error(404, "M_NOT_FOUND");
    }
}
