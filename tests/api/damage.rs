//! A room that is damaged in the database: everything else works, and its members lose nothing of the room.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use crate::harness::{
    Client, Engine, TestServer,
    follower::{Follower, Way, events},
    v3,
};

/// Ways to damage the room `{room}`, and to repair it.
const DAMAGES: [(&str, &str, &str); 4] = [
    (
        "an unknown room version",
        "UPDATE room SET version = 'x' || version WHERE room_nid = {room}",
        "UPDATE room SET version = substr(version, 2) WHERE room_nid = {room}",
    ),
    (
        "a room without its head",
        "UPDATE room_head SET room_nid = -room_nid WHERE room_nid = {room}",
        "UPDATE room_head SET room_nid = -room_nid WHERE room_nid = -{room}",
    ),
    (
        "an event that is not JSON",
        "UPDATE event_json SET json = 'x' || json WHERE event_nid = (SELECT MAX(event_nid) FROM event WHERE room_nid = {room})",
        "UPDATE event_json SET json = substr(json, 2) WHERE event_nid = (SELECT MAX(event_nid) FROM event WHERE room_nid = {room})",
    ),
    (
        "an unknown membership",
        "UPDATE member SET membership = membership + 90 WHERE room_nid = {room}",
        "UPDATE member SET membership = membership - 90 WHERE room_nid = {room}",
    ),
];

/// Changes the database directly, while the server is stopped.
async fn change(server: &mut TestServer, engine: Engine, room: i64, sql: &str) {
    server.stop().await;
    let sql = AssertSqlSafe(sql.replace("{room}", &room.to_string()));
    let url = server.config_mut().database_url();
    match engine {
        Engine::Sqlite => {
            let mut conn = SqliteConnection::connect(url.expose()).await.expect("it is closed now");
            conn.execute(sql).await.expect("changed");
            conn.close().await.expect("closed");
        }
        Engine::Postgres => {
            let mut conn = PgConnection::connect(url.expose()).await.expect("it runs");
            conn.execute(sql).await.expect("changed");
        }
    }
    server.restart().await;
}

async fn nid(server: &TestServer, room: &str) -> i64 {
    let room_id = ruma::RoomId::parse(room).expect("a room ID");
    server.app().rooms.find(&room_id).await.expect("read").expect("it is there").nid.0
}

fn bodies(room: &Value) -> Vec<&str> {
    events(&room["timeline"]).iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

async fn joined(client: &Client) -> Vec<String> {
    let answer = client.get(&v3(["joined_rooms"])).await.ok();
    let rooms = answer["joined_rooms"].as_array().expect("a list");
    rooms.iter().filter_map(|room| room.as_str().map(str::to_owned)).collect()
}

both_engines! {
    async fn a_damaged_room_is_left_out_and_comes_back_whole(engine: Engine) {
        let mut server = TestServer::builder().engine(engine).start().await;
        for (index, (what, damage, repair)) in DAMAGES.into_iter().enumerate() {
            let alice = server.register(&format!("alice{index}")).await;
            let bob = server.register(&format!("bob{index}")).await;
            let carol = server.register(&format!("carol{index}")).await;
            let mut rooms = Vec::new();
            for name in ["bad", "good"] {
                let room = json!({ "preset": "public_chat", "name": name, "visibility": "public" });
                let room = alice.create_room(room).await;
                bob.join(&room).await;
                rooms.push(room);
            }
            let [bad, good] = [&rooms[0], &rooms[1]];
            let bad_nid = nid(&server, bad).await;
            let mut followers = Vec::new();
            for lazy in [false, true] {
                let mut follower = Follower::new(bob.login_again().await, Way { lazy, ..Way::default() });
                follower.sync().await;
                followers.push(follower);
            }
            carol.join(bad).await;
            alice.send_text(bad, "1", "before").await;

            change(&mut server, engine, bad_nid, damage).await;
            alice.send_text(good, "2", "meanwhile").await;
            for follower in &mut followers {
                let answer = follower.sync().await;
                assert_eq!(bodies(&answer["rooms"]["join"][good]), ["meanwhile"], "{what}: {answer}");
                for section in ["join", "leave", "invite"] {
                    assert!(answer["rooms"][section].get(bad).is_none(), "{what}: {answer}");
                }
                let quiet = follower.sync().await;
                assert!(quiet.get("rooms").is_none(), "{what}: {quiet}");
            }
            let mut newcomer = Follower::new(bob.login_again().await, Way::default());
            let first = newcomer.sync().await;
            assert!(first["rooms"]["join"].get(good).is_some() && first["rooms"]["join"].get(bad).is_none(), "{what}: {first}");
            assert!(joined(&bob).await.contains(good), "{what}");
            let listed = bob.get(&v3(["publicRooms"])).await.ok();
            assert!(listed.to_string().contains(good.as_str()), "{what}: {listed}");

            // A restart does not make the server forget which rooms it left out.
            server.restart().await;
            followers.push(newcomer);
            for follower in &mut followers {
                follower.sync().await;
            }
            change(&mut server, engine, bad_nid, repair).await;
            for follower in &mut followers {
                let answer = follower.sync().await;
                let back = &answer["rooms"]["join"][bad];
                assert_eq!(bodies(back).last(), Some(&"before"), "{what}: {answer}");
                let changed = answer["device_lists"]["changed"].as_array().cloned().unwrap_or_default();
                assert!(changed.contains(&json!(carol.user_id)), "{what}: {answer}");
                follower.compare().await;
                assert_eq!(follower.rooms[bad].keys().filter(|(kind, _)| kind == "m.room.member").count(), 3, "{what}");
                assert!(follower.sync().await.get("rooms").is_none(), "{what}: it is told once");
            }
            assert!(joined(&bob).await.contains(bad), "{what}");
        }
    }

    async fn an_account_with_a_damaged_room_can_be_deactivated(engine: Engine) {
        let mut server = TestServer::builder().engine(engine).start().await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let (bad, good) = (alice.create_room(json!({ "preset": "public_chat" })).await, alice.create_room(json!({ "preset": "public_chat" })).await);
        for room in [&bad, &good] {
            bob.join(room).await;
        }
        let (_, damage, _) = DAMAGES[0];
        let bad = nid(&server, &bad).await;
        change(&mut server, engine, bad, damage).await;
        let auth = json!({
            "type": "m.login.password", "password": crate::harness::PASSWORD,
            "identifier": { "type": "m.id.user", "user": bob.user_id },
        });
        bob.post(&v3(["account", "deactivate"]), json!({ "auth": auth })).await.ok();
        let members = alice.get(&v3(["rooms", &good, "joined_members"])).await.ok();
        assert!(members["joined"].get(&bob.user_id).is_none(), "{members}");
    }
}
