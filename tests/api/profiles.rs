//! A new name or avatar reaches every room, even if other things happen at the same time.

use sabha::server::build::{self, Surroundings};
use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

fn field(client: &Client, field: &str) -> String {
    v3(["profile", &client.user_id, field])
}

async fn rename(client: &Client, name: &str) {
    client.put(&field(client, "displayname"), json!({ "displayname": name })).await.ok();
}

async fn member(client: &Client, room: &str) -> Value {
    client.get(&v3(["rooms", room, "state", "m.room.member", &client.user_id])).await.ok()
}

both_engines! {
    async fn a_new_name_is_in_the_rooms_when_it_is_answered(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let since = bob.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
        rename(&alice, "Alice A.").await;
        let news = bob.sync(Some(&since)).await;
        let events = news["rooms"]["join"][&room]["timeline"]["events"].as_array().expect("the name is news");
        assert_eq!(events[0]["content"]["displayname"], "Alice A.");
        assert_eq!(events[0]["unsigned"]["prev_content"]["displayname"], "alice");
        // The same name again changes nothing.
        let since = news["next_batch"].as_str().expect("checked").to_owned();
        rename(&alice, "Alice A.").await;
        server.app().jobs.settled().await;
        assert!(bob.sync(Some(&since)).await.get("rooms").is_none());
    }

    async fn a_name_set_beside_joins_and_new_rooms_is_in_all_of_them(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        for round in 0..10 {
            let room = alice.create_room(json!({ "preset": "public_chat" })).await;
            let name = format!("Bob {round}");
            let ((), (), made) = tokio::join!(
                rename(&bob, &name),
                bob.join(&room),
                bob.create_room(json!({ "preset": "public_chat" })),
            );
            server.app().jobs.settled().await;
            for room in [&room, &made] {
                assert_eq!(member(&bob, room).await["displayname"], name.as_str(), "round {round}");
            }
        }
    }

    async fn a_name_and_an_avatar_set_at_once_are_both_in_all_rooms(server: TestServer) {
        let alice = server.register("alice").await;
        let mut rooms = Vec::new();
        for _ in 0..5 {
            rooms.push(alice.create_room(json!({})).await);
        }
        for round in 0..5 {
            let (name, avatar) = (format!("Alice {round}"), format!("mxc://sabha.test/{round}"));
            let path = field(&alice, "avatar_url");
            let (answer, ()) = tokio::join!(alice.put(&path, json!({ "avatar_url": avatar })), rename(&alice, &name));
            answer.ok();
            server.app().jobs.settled().await;
            for room in &rooms {
                let member = member(&alice, room).await;
                assert_eq!((&member["displayname"], &member["avatar_url"]), (&json!(name), &json!(avatar)));
            }
        }
    }

    async fn a_change_that_was_not_finished_is_finished_by_the_next_start(mut server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        server.stop().await;
        // The services alone run no jobs.
        let app = build::app(server.config_mut().clone(), Surroundings::default()).await.expect("it starts");
        let user = app.db.find_user(alice.user_id.as_str().try_into().expect("a user ID")).await.expect("read");
        let user = user.expect("she is registered").nid;
        app.accounts.set_profile_field(user, "displayname", Some("Alice A.".into())).await.expect("set");
        app.db.close().await;
        drop(app);

        server.restart().await;
        server.app().jobs.settled().await;
        assert_eq!(member(&alice, &room).await["displayname"], "Alice A.");
        // The next start has nothing left to do.
        server.restart().await;
        let before = server.app().db.counters().rows_written();
        server.app().jobs.settled().await;
        assert_eq!(server.app().db.counters().rows_written(), before);
    }

    async fn what_is_not_in_member_events_is_no_news_for_rooms(server: TestServer) {
        let alice = server.register("alice").await;
        alice.create_room(json!({})).await;
        let since = alice.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
        alice.put(&field(&alice, "m.tz"), json!({ "m.tz": "Europe/Berlin" })).await.ok();
        server.app().jobs.settled().await;
        assert!(alice.sync(Some(&since)).await.get("rooms").is_none());
    }
}
