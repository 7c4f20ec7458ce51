//! `/sync` and `/keys/changes` agree on users whose device lists changed and on users whose lists may be forgotten.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer};

fn token(answer: &Value) -> String {
    answer["next_batch"].as_str().expect("a token").to_owned()
}

async fn changes(client: &Client, from: &str, to: &str) -> (Value, Value) {
    let answer = client.get(&format!("/_matrix/client/v3/keys/changes?from={from}&to={to}")).await.ok();
    (answer["changed"].clone(), answer["left"].clone())
}

both_engines! {
    async fn who_no_longer_shares_a_room_has_left(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let alone = token(&alice.sync(None).await);

        bob.join(&room).await;
        let answer = alice.sync(Some(&alone)).await;
        let together = token(&answer);
        assert_eq!(answer["device_lists"], json!({ "changed": [bob.user_id], "left": [] }));
        assert_eq!(changes(&alice, &alone, &together).await, (json!([bob.user_id]), json!([])));

        bob.leave(&room).await;
        let answer = alice.sync(Some(&together)).await;
        let parted = token(&answer);
        assert_eq!(answer["device_lists"], json!({ "changed": [], "left": [bob.user_id] }));
        assert_eq!(changes(&alice, &together, &parted).await, (json!([]), json!([bob.user_id])));
        assert_eq!(changes(&alice, &alone, &parted).await, (json!([]), json!([])), "he came and went");

        // The other way round: a user who leaves forgets everyone with whom they shared only this room.
        bob.join(&room).await;
        let before = token(&alice.sync(None).await);
        alice.leave(&room).await;
        let answer = alice.sync(Some(&before)).await;
        assert_eq!(answer["device_lists"], json!({ "changed": [], "left": [bob.user_id] }));
        assert_eq!(changes(&alice, &before, &token(&answer)).await, (json!([]), json!([bob.user_id])));
    }

    /// A filter of rooms hides rooms, but not the users to encrypt for.
    async fn a_filter_of_rooms_hides_no_device_lists(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let since = token(&alice.sync(None).await);
        bob.join(&room).await;
        let filter = "filter=%7B%22room%22%3A%7B%22rooms%22%3A%5B%5D%7D%7D&timeout=0";
        let answer = alice.sync_with(Some(&since), filter).await;
        assert!(answer["rooms"]["join"].get(&room).is_none(), "{answer}");
        assert_eq!(answer["device_lists"]["changed"], json!([bob.user_id]));
    }

    /// A token of another database starts the client afresh, as in `/sync`.
    async fn a_token_of_another_database_makes_everyone_new(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let now = token(&alice.sync(None).await);
        let foreign = "s1_0_abcdef0123";
        assert!(alice.sync(Some(foreign)).await["rooms"]["join"].get(&room).is_some());
        let (changed, left) = changes(&alice, foreign, &now).await;
        assert!(changed.as_array().is_some_and(|changed| changed.contains(&json!(bob.user_id))), "{changed}");
        assert_eq!(left, json!([]));
        assert_eq!(changes(&alice, &now, "s999999_0_abcdef0123").await, (json!([]), json!([])));
    }
}
