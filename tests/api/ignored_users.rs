//! Ignored users ([spec]): the parts of their activity that a user no longer sees, and what they can still do.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#ignoring-users

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

async fn ignore(client: &Client, users: &[&Client]) {
    let users: serde_json::Map<String, Value> = users.iter().map(|user| (user.user_id.clone(), json!({}))).collect();
    let path = v3(["user", &client.user_id, "account_data", "m.ignored_user_list"]);
    client.put(&path, json!({ "ignored_users": users })).await.ok();
}

fn next(answer: &Value) -> Option<&str> {
    answer["next_batch"].as_str()
}

fn events(part: &Value) -> &[Value] {
    part["events"].as_array().map_or(&[], Vec::as_slice)
}

/// Returns the bodies of the messages in a list of events.
fn bodies(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

fn timeline<'a>(answer: &'a Value, room: &str) -> Vec<&'a str> {
    bodies(events(&answer["rooms"]["join"][room]["timeline"]))
}

/// Registers Alice, Bob and Eve and puts them into a room.
async fn scene(server: &TestServer) -> (Client, Client, Client, String) {
    let alice = server.register("alice").await;
    let (bob, eve) = (server.register("bob").await, server.register("eve").await);
    let levels = json!({ "preset": "public_chat", "power_level_content_override": { "state_default": 0 } });
    let room = alice.create_room(levels).await;
    bob.join(&room).await;
    eve.join(&room).await;
    (alice, bob, eve, room)
}

both_engines! {
    async fn messages_of_the_ignored_are_hidden_and_their_state_is_not(server: TestServer) {
        let (alice, bob, eve, room) = scene(&server).await;
        let before = alice.sync(None).await;
        ignore(&alice, &[&eve]).await;
        let since = alice.sync(next(&before)).await;
        eve.send_text(&room, "1", "look at me").await;
        let answer = alice.sync(next(&since)).await;
        assert_eq!(answer["rooms"]["join"].get(&room), None, "nothing that alice wants to know of");

        eve.set_state(&room, "m.room.topic", "", json!({ "topic": "eve" })).await;
        bob.send_text(&room, "2", "hello").await;
        let answer = alice.sync(next(&since)).await;
        assert_eq!(timeline(&answer, &room), ["hello"]);
        let shown = &answer["rooms"]["join"][&room];
        let topic = events(&shown["timeline"]).iter().any(|event| event["content"]["topic"] == "eve");
        assert!(topic, "state is sent whoever set it: {shown}");
        assert_eq!(timeline(&alice.sync(None).await, &room), ["hello"], "a new stream leaves them out, too");
        assert_eq!(timeline(&bob.sync(None).await, &room), ["look at me", "hello"], "bob ignores nobody");
    }

    async fn a_changed_list_is_followed_at_once_and_what_was_missed_stays_missed(server: TestServer) {
        let mut server = server;
        let (alice, bob, eve, room) = scene(&server).await;
        let start = alice.sync(None).await;
        eve.send_text(&room, "1", "before").await;
        let heard = alice.sync(next(&start)).await;
        assert_eq!(timeline(&heard, &room), ["before"]);
        eve.send_text(&room, "2", "not yet synced").await;
        ignore(&alice, &[&eve]).await;
        let ignoring = alice.sync(next(&heard)).await;
        assert_eq!(timeline(&ignoring, &room), [""; 0], "the list counts when the answer is made");
        eve.send_text(&room, "3", "while ignored").await;

        server.restart().await;
        let ignoring = alice.sync(next(&ignoring)).await;
        assert_eq!(timeline(&ignoring, &room), [""; 0], "the list is read again after a restart");
        ignore(&alice, &[&bob]).await;
        eve.send_text(&room, "4", "after").await;
        bob.send_text(&room, "5", "hello").await;
        let answer = alice.sync(next(&ignoring)).await;
        assert_eq!(timeline(&answer, &room), ["after"]);
        assert_eq!(timeline(&alice.sync(None).await, &room), ["before", "not yet synced", "while ignored", "after"]);
    }

    async fn a_short_timeline_is_filled_with_what_is_not_ignored(server: TestServer) {
        let (alice, bob, eve, room) = scene(&server).await;
        let before = alice.sync(None).await;
        ignore(&alice, &[&eve]).await;
        bob.send_text(&room, "0", "one").await;
        bob.send_text(&room, "1", "two").await;
        for number in 2..30 {
            eve.send_text(&room, &number.to_string(), "noise").await;
        }
        let filter = v3([&json!({ "room": { "timeline": { "limit": 1 } } }).to_string()]);
        let filter = filter.rsplit('/').next().expect("one segment").to_owned();
        let answer = alice.sync_with(next(&before), &format!("timeout=0&filter={filter}")).await;
        assert_eq!(timeline(&answer, &room), ["two"]);
        assert_eq!(answer["rooms"]["join"][&room]["timeline"]["limited"], true);
    }

    async fn history_leaves_them_out(server: TestServer) {
        let (alice, bob, eve, room) = scene(&server).await;
        bob.send_text(&room, "1", "one").await;
        let noise = eve.send_text(&room, "2", "noise").await;
        let two = bob.send_text(&room, "3", "two").await;
        ignore(&alice, &[&eve]).await;
        for direction in ["f", "b"] {
            let answer = alice.get(&format!("{}?limit=50&dir={direction}", v3(["rooms", &room, "messages"]))).await.ok();
            let mut shown = bodies(answer["chunk"].as_array().expect("a page"));
            shown.sort_unstable();
            assert_eq!(shown, ["one", "two"], "{direction}");
        }
        let context = alice.get(&v3(["rooms", &room, "context", &two])).await.ok();
        assert_eq!(bodies(context["events_before"].as_array().expect("a list")), ["one"]);
        alice.get(&v3(["rooms", &room, "context", &noise])).await.error(404, "M_NOT_FOUND");
        alice.get(&v3(["rooms", &room, "event", &noise])).await.error(404, "M_NOT_FOUND");
        bob.get(&v3(["rooms", &room, "event", &noise])).await.ok();
    }

    async fn invitations_of_the_ignored_are_not_shown(server: TestServer) {
        let (alice, bob, eve, _) = scene(&server).await;
        let before = alice.sync(None).await;
        ignore(&alice, &[&eve]).await;
        let trap = eve.create_room(json!({ "invite": [alice.user_id] })).await;
        let party = bob.create_room(json!({ "invite": [alice.user_id] })).await;
        for answer in [alice.sync(next(&before)).await, alice.sync(None).await] {
            let invites = answer["rooms"]["invite"].as_object().expect("bob's invitation");
            assert!(invites.contains_key(&party) && !invites.contains_key(&trap), "{invites:?}");
        }
        alice.join(&trap).await;
    }

    async fn receipts_typing_and_presence_of_the_ignored_are_not_shown(server: TestServer) {
        let (alice, bob, eve, room) = scene(&server).await;
        let message = bob.send_text(&room, "1", "hello").await;
        ignore(&alice, &[&eve]).await;
        let before = alice.sync(None).await;
        for reader in [&bob, &eve] {
            reader.post(&v3(["rooms", &room, "receipt", "m.read", &message]), json!({})).await.ok();
            let typing = v3(["rooms", &room, "typing", &reader.user_id]);
            reader.put(&typing, json!({ "typing": true, "timeout": 30_000 })).await.ok();
            let presence = v3(["presence", &reader.user_id, "status"]);
            reader.put(&presence, json!({ "presence": "online", "status_msg": "here" })).await.ok();
        }
        for answer in [alice.sync(next(&before)).await, alice.sync(None).await] {
            let text = answer["rooms"]["join"][&room]["ephemeral"].to_string() + &answer["presence"].to_string();
            assert_eq!(text.matches(&bob.user_id).count(), 3, "a receipt, typing and presence: {text}");
            assert!(!text.contains(&eve.user_id), "{text}");
        }
    }
}

#[tokio::test]
async fn who_is_on_their_own_list_hears_themselves() {
    let server = TestServer::start().await;
    let (alice, _, _, room) = scene(&server).await;
    ignore(&alice, &[&alice]).await;
    alice.send_text(&room, "1", "echo").await;
    assert_eq!(timeline(&alice.sync(None).await, &room), ["echo"]);
    let path = v3(["user", &alice.user_id, "account_data", "m.ignored_user_list"]);
    alice.put(&path, json!({ "ignored_users": 7 })).await.ok();
    alice.sync(None).await;
}
