//! Attempts to get around a rule, which must fail.

use serde_json::json;

use crate::harness::{TestServer, v3};

both_engines! {
    /// Only the server may state who let a user into a restricted room.
    async fn nobody_lets_themselves_into_a_restricted_room(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let inner = alice.create_room(json!({ "room_version": "11" })).await;
        let allow = json!([{ "type": "m.room_membership", "room_id": inner }]);
        let rules = json!({ "join_rule": "restricted", "allow": allow });
        let rules = json!({ "type": "m.room.join_rules", "state_key": "", "content": rules });
        let room = alice.create_room(json!({ "room_version": "11", "initial_state": [rules] })).await;
        let path = v3(["rooms", &room, "state", "m.room.member", &bob.user_id]);
        let forged = json!({ "membership": "join", "join_authorised_via_users_server": alice.user_id });
        bob.put(&path, forged).await.error(403, "M_FORBIDDEN");
        alice.invite(&inner, &bob.user_id).await;
        bob.join(&inner).await;
        bob.put(&path, json!({ "membership": "join" })).await.ok();
    }
}

both_engines! {
    /// PostgreSQL stores no NUL: a request with one is refused early, and others still work.
    async fn a_nul_is_refused(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let message = json!({ "msgtype": "m.text", "body": "x" });
        let sent = alice.put(&v3(["rooms", &room, "send", "m.room.message", "a\0"]), message.clone()).await;
        assert_eq!(sent.status, 400, "{}", sent.json);
        let sent = alice.put(&v3(["rooms", &room, "send", "org.\0", "b"]), message.clone()).await;
        assert_eq!(sent.status, 400, "{}", sent.json);
        let sent = alice.put(&v3(["rooms", &room, "state", "org.example", "\0"]), message).await;
        assert_eq!(sent.status, 400, "{}", sent.json);
        alice.send_text(&room, "c", "fine").await;
    }
}

both_engines! {
    /// A parked sync of a device that is signed out ends with an error, not with news.
    async fn a_parked_sync_ends_when_its_device_is_signed_out(server: TestServer) {
        let alice = server.register("alice").await;
        let since = alice.sync(None).await["next_batch"].as_str().expect("a token").to_owned();
        let path = format!("/_matrix/client/v3/sync?since={since}&timeout=60000");
        let logout = v3(["logout"]);
        let (parked, signed_out) = tokio::join!(alice.get(&path), alice.post(&logout, json!({})));
        signed_out.ok();
        parked.error(401, "M_UNKNOWN_TOKEN");
    }
}

both_engines! {
    /// A user who has left the room may no longer delete its aliases.
    async fn an_ex_member_does_not_delete_aliases(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let levels = json!({ "users": { (alice.user_id.clone()): 100, (bob.user_id.clone()): 100 } });
        let room = alice
            .create_room(json!({ "room_version": "11", "room_alias_name": "tea", "power_level_content_override": levels }))
            .await;
        alice.invite(&room, &bob.user_id).await;
        bob.join(&room).await;
        bob.leave(&room).await;
        let alias = format!("#tea:{}", server.app().rooms.server_name());
        bob.delete(&v3(["directory", "room", &alias]), json!({})).await.error(403, "M_FORBIDDEN");
    }
}
