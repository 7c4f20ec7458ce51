//! State events.

use serde_json::json;

use crate::harness::{TestServer, v3};

both_engines! {
    async fn state_is_written_and_read_with_and_without_a_key(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let base = v3(["rooms", &room, "state", "org.example.kettle"]);
        for (write, read) in [("", "/"), ("/", "")] {
            let content = json!({ "by": write });
            let event_id = alice.put(&format!("{base}{write}"), content.clone()).await.ok()["event_id"].clone();
            assert_eq!(alice.get(&format!("{base}{read}")).await.ok(), content);
            let event = alice.get(&format!("{base}{read}?format=event")).await.ok();
            assert_eq!((&event["event_id"], &event["state_key"]), (&event_id, &json!("")));
        }
        alice.set_state(&room, "org.example.kettle", "a/b c", json!({ "hot": true })).await;
        let path = v3(["rooms", &room, "state", "org.example.kettle", "a/b c"]);
        assert_eq!(alice.get(&path).await.ok(), json!({ "hot": true }));
        alice.get(&v3(["rooms", &room, "state", "org.example.kettle", "none"])).await.error(404, "M_NOT_FOUND");
        alice.get(&format!("{base}?format=xml")).await.error(400, "M_INVALID_PARAM");
    }

    async fn state_that_is_already_so_makes_no_new_event(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let first = alice.set_state(&room, "m.room.name", "", json!({ "name": "Tea" })).await;
        assert_eq!(alice.set_state(&room, "m.room.name", "", json!({ "name": "Tea" })).await, first);
        assert_ne!(alice.set_state(&room, "m.room.name", "", json!({ "name": "Coffee" })).await, first);
        assert_ne!(alice.set_state(&room, "m.room.name", "", json!({ "name": "Tea" })).await, first);
    }

    async fn an_event_says_what_it_replaced(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let first = alice.set_state(&room, "m.room.name", "", json!({ "name": "Tea" })).await;
        alice.set_state(&room, "m.room.name", "", json!({ "name": "Coffee" })).await;
        let path = v3(["rooms", &room, "state", "m.room.name"]) + "?format=event";
        let unsigned = alice.get(&path).await.ok()["unsigned"].clone();
        assert_eq!(unsigned["replaces_state"], first.as_str());
        assert_eq!(unsigned["prev_content"], json!({ "name": "Tea" }));
    }

    async fn the_type_of_state_is_stored_as_it_was_sent(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let event_type = "org.matrix.msc3401.call.member";
        alice.set_state(&room, event_type, "x", json!({ "in": true })).await;
        let state = alice.get(&v3(["rooms", &room, "state"])).await.ok();
        let state = state.as_array().expect("a checked answer is one");
        assert!(state.iter().any(|event| event["type"] == event_type), "{state:?}");
        assert_eq!(alice.get(&v3(["rooms", &room, "state", event_type, "x"])).await.ok(), json!({ "in": true }));
    }

    async fn who_has_not_enough_power_changes_nothing(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat", "name": "Tea" })).await;
        bob.join(&room).await;
        let name = v3(["rooms", &room, "state", "m.room.name"]);
        bob.put(&name, json!({ "name": "Bob's" })).await.error(403, "M_FORBIDDEN");
        // Nobody may set state about another user, or the create event.
        alice.put(&v3(["rooms", &room, "state", "a.b", &bob.user_id]), json!({})).await.error(403, "M_FORBIDDEN");
        alice.put(&v3(["rooms", &room, "state", "m.room.create"]), json!({})).await.error(403, "M_FORBIDDEN");
        assert_eq!(bob.get(&name).await.ok(), json!({ "name": "Tea" }));
    }

    async fn a_new_display_name_is_shown_in_the_rooms_of_its_user(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let path = v3(["profile", &alice.user_id, "displayname"]);
        alice.put(&path, json!({ "displayname": "Alice A." })).await.ok();
        let member = alice.get(&v3(["rooms", &room, "state", "m.room.member", &alice.user_id])).await.ok();
        assert_eq!(member["displayname"], "Alice A.");
        let joined = alice.get(&v3(["rooms", &room, "joined_members"])).await.ok();
        assert_eq!(joined["joined"][&alice.user_id]["display_name"], "Alice A.");
    }
}
