//! Invitations and knocks that wait for an answer: what is shown of them, and how many there may be.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Client, Engine, TestServer, v3};

/// More rooms than one statement reads.
const ROOMS: usize = 45;

/// The number of invitations of a user on these servers.
const LIMIT: usize = 8;

/// The number of those that one inviter may have.
const PART: usize = LIMIT / 4;

async fn server_with_limit(engine: Engine) -> TestServer {
    let limit = u32::try_from(LIMIT).expect("it is small");
    TestServer::builder().engine(engine).config(|config| config.limits.pending_invites_per_user = limit).start().await
}

/// Creates a room on which users may knock.
async fn door(client: &Client, name: &str) -> String {
    let knock = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
    client.create_room(json!({ "preset": "private_chat", "initial_state": knock, "name": name })).await
}

/// Registers users who together take all places for invitations of a user.
async fn flood(server: &TestServer, user_id: &str) -> Vec<Client> {
    let mut flooders = Vec::new();
    for number in 0..LIMIT / PART {
        let flooder = server.register(&format!("flooder{number}")).await;
        for _ in 0..PART {
            flooder.create_room(json!({ "invite": [user_id] })).await;
        }
        flooders.push(flooder);
    }
    flooders
}

async fn ignore(client: &Client, user_id: &str) {
    let list = v3(["user", &client.user_id, "account_data", "m.ignored_user_list"]);
    client.put(&list, json!({ "ignored_users": { user_id: {} } })).await.ok();
}

fn invitations(answer: &Value) -> usize {
    answer["rooms"]["invite"].as_object().map_or(0, serde_json::Map::len)
}

/// The names of the rooms in a section of an answer, by room.
fn names(answer: &Value, section: &str, field: &str) -> BTreeMap<String, String> {
    let rooms = answer["rooms"][section].as_object().into_iter().flatten();
    let name = |events: &Value| {
        let mut events = events.as_array().expect("a checked answer has it").iter();
        let name = events.find(|event| event["type"] == "m.room.name").expect("each room has a name");
        name["content"]["name"].as_str().expect("text").to_owned()
    };
    rooms.map(|(room, shown)| (room.clone(), name(&shown[field]["events"]))).collect()
}

/// Tries to invite a user in every way there is. All are refused, without the reason: strangers are not told whether an
/// account is deactivated, or how many invitations wait for it.
pub(crate) async fn may_not_invite(client: &Client, room: &str, user_id: &str) {
    let invite = client.post(&v3(["rooms", room, "invite"]), json!({ "user_id": user_id })).await;
    let member = v3(["rooms", room, "state", "m.room.member", user_id]);
    let state = client.put(&member, json!({ "membership": "invite" })).await;
    let create = client.post(&v3(["createRoom"]), json!({ "invite": [user_id] })).await;
    for refused in [invite, state, create] {
        assert_eq!(refused.error(403, "M_FORBIDDEN")["error"], "This user cannot be invited.");
    }
}

both_engines! {
    async fn many_invitations_and_knocks_are_shown_with_their_rooms(server: TestServer) {
        let mut server = server;
        let (alice, bob, eve) = (server.register("alice").await, server.register("bob").await, server.register("eve").await);
        ignore(&bob, &eve.user_id).await;
        let start = bob.sync(None).await;
        let since = start["next_batch"].as_str().expect("checked");
        let (mut invited, mut knocked) = (BTreeMap::new(), BTreeMap::new());
        for number in 0..ROOMS {
            let name = format!("room {number}");
            let room = door(&alice, &name).await;
            if number % 5 == 0 {
                bob.post(&v3(["knock", &room]), json!({})).await.ok();
                knocked.insert(room, name);
            } else {
                alice.invite(&room, &bob.user_id).await;
                invited.insert(room, name);
            }
        }
        assert!(invited.len() > 32);
        // From somebody whom bob ignores, and one that he has answered.
        eve.invite(&door(&eve, "ignored").await, &bob.user_id).await;
        let answered = door(&alice, "answered").await;
        alice.invite(&answered, &bob.user_id).await;
        bob.leave(&answered).await;
        // Checks what memory has, and then what was stored.
        for again in [false, true] {
            if again {
                server.restart().await;
            }
            for since in [None, Some(since)] {
                let answer = bob.sync(since).await;
                assert_eq!(names(&answer, "invite", "invite_state"), invited, "again: {again}, since: {since:?}");
                assert_eq!(names(&answer, "knock", "knock_state"), knocked, "again: {again}, since: {since:?}");
                let next = bob.sync(answer["next_batch"].as_str()).await;
                assert_eq!(next.get("rooms"), None, "they are told once: {next}");
            }
        }
        let first = invited.keys().next().expect("there are some").clone();
        let waiting = bob.sync(None).await;
        bob.join(&first).await;
        invited.remove(&first);
        let answer = bob.sync(waiting["next_batch"].as_str()).await;
        assert!(answer["rooms"]["join"].get(&first).is_some(), "{answer}");
        assert_eq!(names(&bob.sync(None).await, "invite", "invite_state"), invited);
    }

    async fn one_inviter_has_a_part_of_the_invitations_that_may_wait(engine: Engine) {
        let server = server_with_limit(engine).await;
        let (alice, bob, carol) =
            (server.register("alice").await, server.register("bob").await, server.register("carol").await);
        let mut rooms = Vec::new();
        for _ in 0..=PART {
            rooms.push(alice.create_room(json!({})).await);
        }
        for room in &rooms[..PART] {
            alice.invite(room, &bob.user_id).await;
        }
        may_not_invite(&alice, &rooms[PART], &bob.user_id).await;
        assert_eq!(alice.get(&v3(["joined_rooms"])).await.ok()["joined_rooms"].as_array().map(Vec::len), Some(PART + 1));
        // One that is repeated takes no more room, and other users are not concerned.
        alice.invite(&rooms[0], &bob.user_id).await;
        alice.invite(&rooms[PART], &carol.user_id).await;
        for _ in 0..PART {
            carol.create_room(json!({ "invite": [bob.user_id] })).await;
        }

        // Each answer makes room.
        bob.leave(&rooms[0]).await;
        alice.invite(&rooms[PART], &bob.user_id).await;
        may_not_invite(&alice, &rooms[0], &bob.user_id).await;
        bob.join(&rooms[1]).await;
        alice.invite(&rooms[0], &bob.user_id).await;
        assert_eq!(invitations(&bob.sync(None).await), 2 * PART);
    }

    async fn nobody_can_bury_a_user_under_invitations_or_keep_others_out(engine: Engine) {
        let server = server_with_limit(engine).await;
        let (bob, carol) = (server.register("bob").await, server.register("carol").await);
        flood(&server, &bob.user_id).await;
        // All places are taken, but carol gets one.
        let of_carol = carol.create_room(json!({ "invite": [bob.user_id] })).await;
        let second = carol.create_room(json!({})).await;
        may_not_invite(&carol, &second, &bob.user_id).await;
        let answer = bob.sync(None).await;
        assert_eq!(invitations(&answer), LIMIT + 1);
        assert!(answer["rooms"]["invite"].get(&of_carol).is_some());
    }

    async fn invitations_from_the_ignored_take_no_places(engine: Engine) {
        let server = server_with_limit(engine).await;
        let (alice, bob, carol) =
            (server.register("alice").await, server.register("bob").await, server.register("carol").await);
        let flooders = flood(&server, &bob.user_id).await;
        let (mut of_carol, mut of_alice) = (Vec::new(), Vec::new());
        for _ in 0..=PART {
            of_carol.push(carol.create_room(json!({})).await);
            of_alice.push(alice.create_room(json!({})).await);
        }
        carol.invite(&of_carol[0], &bob.user_id).await;
        may_not_invite(&carol, &of_carol[1], &bob.user_id).await;

        ignore(&bob, &flooders[0].user_id).await;
        carol.invite(&of_carol[1], &bob.user_id).await;
        may_not_invite(&carol, &of_carol[PART], &bob.user_id).await;
        // All places are taken again.
        alice.invite(&of_alice[0], &bob.user_id).await;
        may_not_invite(&alice, &of_alice[1], &bob.user_id).await;
        let more = flooders[0].create_room(json!({})).await;
        may_not_invite(&flooders[0], &more, &bob.user_id).await;
        assert_eq!(invitations(&bob.sync(None).await), LIMIT + 1);
    }

    async fn knocks_are_limited_too_and_can_be_answered_however_many_invitations_wait(engine: Engine) {
        let server = server_with_limit(engine).await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let mut doors = Vec::new();
        for _ in 0..=LIMIT {
            doors.push(door(&alice, "door").await);
        }
        for room in &doors[..LIMIT] {
            bob.post(&v3(["knock", room]), json!({})).await.ok();
        }
        let refused = bob.post(&v3(["knock", &doors[LIMIT]]), json!({})).await.error(403, "M_FORBIDDEN");
        assert_eq!(refused["error"], "Too many of your knocks wait for an answer.");
        let member = v3(["rooms", &doors[LIMIT], "state", "m.room.member", &bob.user_id]);
        bob.put(&member, json!({ "membership": "knock" })).await.error(403, "M_FORBIDDEN");
        flood(&server, &bob.user_id).await;
        alice.create_room(json!({ "invite": [bob.user_id] })).await;
        may_not_invite(&alice, &doors[LIMIT], &bob.user_id).await;
        alice.invite(&doors[0], &bob.user_id).await;
        bob.post(&v3(["knock", &doors[LIMIT]]), json!({})).await.ok();
        let answer = bob.sync(None).await;
        for (section, waiting) in [("invite", LIMIT + 2), ("knock", LIMIT)] {
            assert_eq!(answer["rooms"][section].as_object().map(serde_json::Map::len), Some(waiting), "{section}");
        }
    }
}
