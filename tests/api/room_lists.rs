//! A room as lists show it: read from columns, which equal the events of the room's state whatever happens.

use std::{collections::BTreeSet, sync::Arc};

use http::Method;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ruma::RoomId;
use sabha::room::{Room, listing::Listing};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Client, TestServer, v3};

/// The state events that lists show, with the field.
const SHOWN: [(&str, &str); 9] = [
    ("m.room.name", "name"),
    ("m.room.topic", "topic"),
    ("m.room.avatar", "url"),
    ("m.room.canonical_alias", "alias"),
    ("m.room.encryption", "algorithm"),
    ("m.room.create", "type"),
    ("m.room.join_rules", "join_rule"),
    ("m.room.history_visibility", "history_visibility"),
    ("m.room.guest_access", "guest_access"),
];

const ROUNDS: usize = 25;

/// Requests that are sent at the same time, so that their rows meet in one commit.
const AT_ONCE: usize = 4;

const USERS: usize = 9;

type Request = (Client, Method, String, Value);

fn value(rng: &mut StdRng, field: &str) -> Value {
    let texts: &[&str] = match field {
        "alias" => &["#tea:sabha.test", "#chai:sabha.test", ""],
        "join_rule" => &["public", "invite", "knock"],
        "history_visibility" => &["world_readable", "shared", "invited", "joined"],
        "guest_access" => &["can_join", "forbidden"],
        "url" => &["mxc://sabha.test/a", "mxc://sabha.test/b"],
        _ => &["Tea", "Tee", "茶", "", "T\0ea"],
    };
    match rng.random_range(0..12) {
        0 => json!(7),
        1 => json!(null),
        2 => json!("茶".repeat(900)),
        3 => json!({ "a": "b" }),
        _ => json!(texts[rng.random_range(0..texts.len())]),
    }
}

/// A random request. Many are refused, which is fine.
fn random(rng: &mut StdRng, txn: usize, room: &str, users: &[Client], state: &[Value]) -> Request {
    let (alice, txn) = (users[0].clone(), txn.to_string());
    let user = users[rng.random_range(1..users.len())].clone();
    let about = |deed: &str| (v3(["rooms", room, deed]), json!({ "user_id": user.user_id }));
    match rng.random_range(0..20) {
        0..=6 => {
            let (kind, field) = SHOWN[rng.random_range(0..SHOWN.len())];
            let content = if rng.random_range(0..8) == 0 { json!({}) } else { json!({ field: value(rng, field) }) };
            (alice, Method::PUT, v3(["rooms", room, "state", kind, ""]), content)
        }
        7 | 8 => {
            let shown: Vec<_> =
                state.iter().filter(|event| SHOWN.iter().any(|(kind, _)| event["type"] == *kind)).collect();
            let event = shown[rng.random_range(0..shown.len())]["event_id"].as_str().expect("it has an ID").to_owned();
            (alice, Method::PUT, v3(["rooms", room, "redact", &event, &txn]), json!({}))
        }
        9..=11 => {
            let content = json!({ "msgtype": "m.text", "body": txn });
            (user, Method::PUT, v3(["rooms", room, "send", "m.room.message", &txn]), content)
        }
        12..=14 => (user, Method::POST, v3(["join", room]), json!({})),
        15 => (user, Method::POST, v3(["rooms", room, "leave"]), json!({})),
        16 => {
            let (path, body) = about(["invite", "kick", "ban", "unban"][rng.random_range(0..4)]);
            (alice, Method::POST, path, body)
        }
        17 => {
            let (path, body) = about("invite");
            (alice, Method::POST, path, body)
        }
        _ => {
            let path = v3(["rooms", room, "state", "m.room.member", &user.user_id]);
            (user, Method::PUT, path, json!({ "membership": "join", "displayname": txn }))
        }
    }
}

async fn state(client: &Client, room: &str) -> Vec<Value> {
    client.get(&v3(["rooms", room, "state"])).await.ok().as_array().expect("a list").clone()
}

async fn find(server: &TestServer, room: &str) -> Arc<Room> {
    let room_id = RoomId::parse(room).expect("a room ID");
    server.app().rooms.find(&room_id).await.expect("read").expect("it is there")
}

/// The text that a list may show.
fn shown(state: &[Value], kind: &str, field: &str) -> Option<String> {
    let event = state.iter().find(|event| event["type"] == kind && event["state_key"] == "")?;
    let text = event["content"][field].as_str()?;
    let text = text[..text.floor_char_boundary(1_024)].replace('\0', "");
    (!text.is_empty()).then_some(text)
}

fn count(state: &[Value], membership: &str) -> i64 {
    let members = state.iter().filter(|event| event["type"] == "m.room.member");
    members.filter(|event| event["content"]["membership"] == membership).count() as i64
}

async fn compare(server: &TestServer, alice: &Client, room: &str) {
    let state = state(alice, room).await;
    let found = find(server, room).await;
    let listings = server.app().rooms.listings(&[found.nid]).await.expect("read");
    let [listing] = &listings[..] else { panic!("one room has {} listings", listings.len()) };
    let Listing { name, topic, avatar, alias, encryption, room_type, join_rule, history, guests, .. } = listing.clone();
    let listed = [name, topic, avatar, alias, encryption, room_type, join_rule, history, guests];
    for ((kind, field), listed) in SHOWN.into_iter().zip(listed) {
        assert_eq!(listed, shown(&state, kind, field), "{kind}");
    }
    let create = state.iter().find(|event| event["type"] == "m.room.create").expect("it was created");
    assert_eq!(listing.federates, create["content"]["m.federate"].as_bool().unwrap_or(true));
    assert_eq!((listing.joined, listing.invited), (count(&state, "join"), count(&state, "invite")));
    assert_eq!(listing.room_id, room);
    let upto = server.app().db.committer().published();
    let recent = found.latest(upto, 50).unwrap_or_default();
    let mut bumps = recent.iter().filter(|(_, event)| event.pdu.event_type == "m.room.message");
    if let Some((pos, _)) = bumps.next_back() {
        assert_eq!(listing.bump_pos, *pos);
    }

    let page = server.anonymous().get(&v3(["publicRooms"])).await.ok();
    let entry = &page["chunk"][0];
    assert_eq!(entry["num_joined_members"], listing.joined);
    assert_eq!(entry["name"].as_str(), listing.name.as_deref());
    assert_eq!(entry["topic"].as_str(), listing.topic.as_deref());
    assert_eq!(entry["avatar_url"].as_str(), listing.avatar.as_deref());
    assert_eq!(entry["world_readable"], listing.history.as_deref() == Some("world_readable"));
    assert_eq!(entry["guest_can_join"], listing.guests.as_deref() == Some("can_join"));
}

/// The IDs of all events that the client sees, oldest first.
async fn timeline(client: &Client, room: &str) -> Vec<String> {
    let mut events = Vec::new();
    let mut from = String::new();
    loop {
        let page = client.get(&(v3(["rooms", room, "messages"]) + "?dir=f&limit=100" + &from)).await.ok();
        let chunk = page["chunk"].as_array().expect("a list").clone();
        events.extend(chunk.iter().map(|event| event["event_id"].as_str().expect("it has an ID").to_owned()));
        match page["end"].as_str() {
            Some(end) if !chunk.is_empty() => from = format!("&from={end}"),
            _ => return events,
        }
    }
}

/// The names under which a room without a name is shown to `client`.
async fn check_heroes(client: &Client, room: &str) {
    let state = state(client, room).await;
    let members: Vec<&Value> = state
        .iter()
        .filter(|event| event["type"] == "m.room.member" && event["state_key"] != client.user_id)
        .filter(|event| event["content"]["membership"] == "join" || event["content"]["membership"] == "invite")
        .collect();
    let ids = timeline(client, room).await;
    let in_order = ids.iter().filter_map(|id| members.iter().find(|event| event["event_id"] == **id));
    let heroes: Vec<&Value> = in_order.map(|event| &event["state_key"]).take(5).collect();
    let answer = client.sync(None).await;
    let summary = &answer["rooms"]["join"][room]["summary"];
    if !heroes.is_empty() {
        assert_eq!(summary["m.heroes"], json!(heroes), "{answer}");
    }
    assert_eq!(summary["m.joined_member_count"], count(&state, "join"));
}

both_engines! {
    async fn columns_equal_the_events_of_the_state(mut server: TestServer) {
        let mut users = Vec::new();
        for index in 0..USERS {
            users.push(server.register(&format!("user{index}")).await);
        }
        let alice = users[0].clone();
        for (seed, version) in [(1, "10"), (2, "12")] {
            let mut rng = StdRng::seed_from_u64(seed);
            let room = alice.create_room(json!({
                "preset": "public_chat", "visibility": "public", "name": "Tea", "room_version": version,
                "creation_content": { "type": "m.space", "m.federate": false },
            })).await;
            for alias in ["#tea:sabha.test", "#chai:sabha.test"] {
                alice.put(&v3(["directory", "room", alias]), json!({ "room_id": room })).await;
            }
            for user in &users[1..] {
                user.join(&room).await;
            }
            for round in 0..ROUNDS {
                let now = state(&alice, &room).await;
                let mut requests = JoinSet::new();
                for index in 0..AT_ONCE {
                    let txn = round * AT_ONCE + index;
                    let (client, method, path, body) = random(&mut rng, txn, &room, &users, &now);
                    requests.spawn(async move { client.request(method, &path, Some(body.to_string())).await });
                }
                for response in requests.join_all().await {
                    assert!(!response.status.is_server_error(), "{}", response.text);
                }
                compare(&server, &alice, &room).await;
            }
            alice.set_state(&room, "m.room.name", "", json!({ "name": "" })).await;
            alice.set_state(&room, "m.room.canonical_alias", "", json!({})).await;
            check_heroes(&alice, &room).await;
            server.restart().await;
            check_heroes(&alice, &room).await;
            compare(&server, &alice, &room).await;
            alice.put(&v3(["directory", "list", "room", &room]), json!({ "visibility": "private" })).await.ok();
        }
    }

    async fn the_directory_of_many_rooms_loads_none_of_them(mut server: TestServer) {
        let alice = server.register("alice").await;
        let mut rooms = BTreeSet::new();
        let mut nids = Vec::new();
        for number in 0..70 {
            let room = json!({ "preset": "public_chat", "visibility": "public", "name": format!("Room {number}") });
            let room = alice.create_room(room).await;
            nids.push(find(&server, &room).await.nid);
            rooms.insert(room);
        }
        server.restart().await;
        // The statements of the start itself come before the first answer.
        server.anonymous().get(&v3(["publicRooms"])).await.ok();
        let before = server.app().db.counters().statements();
        let page = server.anonymous().get(&v3(["publicRooms"])).await.ok();
        // The directory, and three times up to 32 rooms. The start may still read a little beside it.
        let statements = server.app().db.counters().statements() - before;
        assert!((4..20).contains(&statements), "{statements} statements");
        let listed: BTreeSet<String> = page["chunk"].as_array().expect("a list").iter()
            .map(|entry| entry["room_id"].as_str().expect("it has an ID").to_owned()).collect();
        assert_eq!(listed, rooms);
        assert!(nids.iter().all(|nid| server.app().rooms.in_memory(*nid).is_none()));
        // A search looks at the same columns.
        let filter = json!({ "filter": { "generic_search_term": "room 69" } });
        let found = alice.post(&v3(["publicRooms"]), filter).await.ok();
        assert_eq!(found["chunk"].as_array().map(Vec::len), Some(1), "{found}");
        assert!(nids.iter().all(|nid| server.app().rooms.in_memory(*nid).is_none()));
    }
}
