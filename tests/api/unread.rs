//! Unread counts in `/sync` ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications

mod budget;
mod capped;
mod model;
mod rules;
mod stored;

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

fn next(answer: &Value) -> Option<&str> {
    answer["next_batch"].as_str()
}

/// Returns the parameters of a `/sync` with this filter.
fn filter(filter: &Value) -> String {
    let encoded = v3([&filter.to_string()]);
    format!("timeout=0&filter={}", encoded.rsplit('/').next().expect("one segment"))
}

fn with_threads() -> String {
    filter(&json!({ "room": { "timeline": { "unread_thread_notifications": true } } }))
}

fn counts(counts: &Value) -> Option<(u64, u64)> {
    Some((counts["notification_count"].as_u64()?, counts["highlight_count"].as_u64()?))
}

/// Returns notifications and highlights of a room in an answer, if the room is in it.
fn unread(answer: &Value, room: &str) -> Option<(u64, u64)> {
    counts(&answer["rooms"]["join"][room]["unread_notifications"])
}

fn unread_of_thread(answer: &Value, room: &str, root: &str) -> Option<(u64, u64)> {
    counts(&answer["rooms"]["join"][room]["unread_thread_notifications"][root])
}

async fn read(client: &Client, room: &str, kind: &str, event: &str, thread: Option<&str>) {
    let body = thread.map_or_else(|| json!({}), |thread| json!({ "thread_id": thread }));
    client.post(&v3(["rooms", room, "receipt", kind, event]), body).await.ok();
}

async fn rule(client: &Client, kind: &str, id: &str, body: Value) {
    client.put(&v3(["pushrules", "global", kind, id]), body).await.ok();
}

/// Adds as many and as long rules as are allowed. No text contains their first letters, which keeps the tests fast.
async fn slow_rules(client: &Client) {
    let pattern = "zz".to_owned() + &"?a".repeat(255);
    for number in 0..55 {
        rule(client, "content", &number.to_string(), json!({ "pattern": pattern, "actions": ["notify"] })).await;
    }
}

fn mention(user: &Client, body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body, "m.mentions": { "user_ids": [user.user_id] } })
}

fn in_thread(root: &str, mut content: Value) -> Value {
    content["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": root });
    content
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// Returns the ID of the client's member event in a room.
async fn member_event(client: &Client, room: &str) -> String {
    let state = client.get(&v3(["rooms", room, "state"])).await.ok();
    let own = |event: &&Value| event["type"] == "m.room.member" && event["state_key"] == *client.user_id;
    let member = state.as_array().expect("a list").iter().find(own).expect("the client is a member");
    member["event_id"].as_str().expect("a string").to_owned()
}

/// Creates Alice, Bob and a room in which both may do everything.
async fn scene(server: &TestServer) -> (Client, Client, String) {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let levels =
        json!({ "preset": "public_chat", "power_level_content_override": { "state_default": 0, "redact": 0 } });
    let room = bob.create_room(levels).await;
    alice.join(&room).await;
    (alice, bob, room)
}

both_engines! {
    async fn messages_of_others_count_until_they_are_read(server: TestServer) {
        let mut server = server;
        let (alice, bob, room) = scene(&server).await;
        let start = alice.sync(None).await;
        assert_eq!(unread(&start, &room), Some((0, 0)));
        let first = bob.send_text(&room, "1", "one").await;
        bob.send(&room, "m.room.message", "2", mention(&alice, "you")).await;
        bob.send(&room, "m.room.message", "3", json!({ "msgtype": "m.notice", "body": "not you" })).await;
        bob.send(&room, "m.room.encrypted", "4", json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x" })).await;
        bob.set_state(&room, "m.room.topic", "", json!({ "topic": "quiet" })).await;
        let news = alice.sync(next(&start)).await;
        assert_eq!(unread(&news, &room), Some((3, 1)), "a message, a mention, something encrypted");
        assert_eq!(unread(&bob.sync(None).await, &room), Some((0, 0)), "bob wrote all of it");
        assert_eq!(unread(&alice.sync(None).await, &room), Some((3, 1)));
        assert_eq!(unread(&alice.sync_with(next(&news), "timeout=0&full_state=true").await, &room), Some((3, 1)));

        read(&alice, &room, "m.read", &first, None).await;
        assert_eq!(unread(&alice.sync(next(&news)).await, &room), Some((2, 1)));
        server.restart().await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 1)), "counted anew");
    }

    async fn reading_on_one_device_is_news_on_the_other(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let other = alice.login_again().await;
        let first = bob.send_text(&room, "1", "one").await;
        let second = bob.send_text(&room, "2", "two").await;
        let before = other.sync(None).await;
        assert_eq!(unread(&before, &room), Some((2, 0)));
        // The filter hides even the receipt.
        let blind = filter(&json!({ "room": { "ephemeral": { "types": [] } } })).replace("timeout=0", "timeout=30000");
        let parked = other.sync_with(next(&before), &blind);
        let (news, ()) = tokio::join!(parked, read(&alice, &room, "m.read.private", &first, None));
        assert_eq!(unread(&news, &room), Some((1, 0)));
        read(&alice, &room, "m.read", &first, None).await;
        read(&alice, &room, "m.read", &second, None).await;
        let done = other.sync(next(&news)).await;
        assert_eq!(unread(&done, &room), Some((0, 0)));
        assert_eq!(unread(&other.sync(next(&done)).await, &room), None, "nothing more happened");
        let bobs = bob.sync(None).await;
        assert_eq!(unread(&bobs, &room), Some((0, 0)));
    }

    async fn counting_starts_at_the_join_and_ends_with_the_stay(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let carol = server.register("carol").await;
        bob.send_text(&room, "1", "before carol").await;
        let party = bob.create_room(json!({ "invite": [carol.user_id] })).await;
        carol.join(&room).await;
        let start = carol.sync(None).await;
        assert_eq!(unread(&start, &room), Some((0, 0)));
        assert_eq!(start["rooms"]["invite"][&party].get("unread_notifications"), None);
        bob.send_text(&room, "2", "hello all").await;
        carol.put(&v3(["profile", &carol.user_id, "displayname"]), json!({ "displayname": "C" })).await.ok();
        assert_eq!(unread(&carol.sync(next(&start)).await, &room), Some((1, 0)), "a new name reads nothing");
        carol.leave(&room).await;
        let left = carol.sync(next(&start)).await;
        assert_eq!(left["rooms"]["leave"][&room].get("unread_notifications"), None);
        bob.send_text(&room, "3", "one is gone").await;
        carol.join(&room).await;
        assert_eq!(unread(&carol.sync(None).await, &room), Some((0, 0)), "a new stay, a new count");
        assert_eq!(unread(&alice.sync(None).await, &room), Some((3, 0)));
    }

    async fn threads_are_counted_by_themselves_for_those_who_ask(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let root = bob.send_text(&room, "1", "root").await;
        let in_it = bob.send(&room, "m.room.message", "2", in_thread(&root, text("in it"))).await;
        bob.send(&room, "m.room.message", "3", in_thread(&root, mention(&alice, "in it, too"))).await;
        let main = bob.send_text(&room, "4", "main").await;
        // An event that relates to one in the thread is in the thread.
        let mut reference = text("about it");
        reference["m.relates_to"] = json!({ "rel_type": "m.reference", "event_id": in_it });
        let last = bob.send(&room, "m.room.message", "5", reference).await;

        let threads = |since: Option<String>| {
            let alice = alice.clone();
            async move { alice.sync_with(since.as_deref(), &with_threads()).await }
        };
        let all = threads(None).await;
        assert_eq!(unread(&all, &room), Some((2, 0)));
        assert_eq!(unread_of_thread(&all, &room, &root), Some((3, 1)));
        assert_eq!(unread(&alice.sync(None).await, &room), Some((5, 1)), "all of it for those who do not ask");

        read(&alice, &room, "m.read", &main, Some("main")).await;
        let news = threads(next(&all).map(str::to_owned)).await;
        assert_eq!((unread(&news, &room), unread_of_thread(&news, &room, &root)), (Some((0, 0)), Some((3, 1))));
        read(&alice, &room, "m.read.private", &in_it, Some(&root)).await;
        let news = threads(next(&news).map(str::to_owned)).await;
        assert_eq!(unread_of_thread(&news, &room, &root), Some((2, 1)));
        // A user who answers in a thread has read it.
        bob.send_text(&room, "6", "main again").await;
        alice.send(&room, "m.room.message", "7", in_thread(&root, text("answer"))).await;
        let news = threads(next(&news).map(str::to_owned)).await;
        assert_eq!((unread(&news, &room), unread_of_thread(&news, &room, &root)), (Some((1, 0)), None));
        bob.send(&room, "m.room.message", "8", in_thread(&root, text("more"))).await;
        read(&alice, &room, "m.read", &last, None).await;
        let news = threads(next(&news).map(str::to_owned)).await;
        assert_eq!((unread(&news, &room), unread_of_thread(&news, &room, &root)), (Some((1, 0)), Some((1, 0))));
    }

    async fn what_is_redacted_no_longer_counts(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        bob.send_text(&room, "1", "one").await;
        let loud = bob.send(&room, "m.room.message", "2", mention(&alice, "two")).await;
        let before = alice.sync(None).await;
        assert_eq!(unread(&before, &room), Some((2, 1)));
        bob.put(&v3(["rooms", &room, "redact", &loud, "3"]), json!({})).await.ok();
        assert_eq!(unread(&alice.sync(next(&before)).await, &room), Some((1, 0)));
        // A redacted answer does not show that alice has read the room.
        let answer = alice.send_text(&room, "4", "answer").await;
        let answered = alice.sync(next(&before)).await;
        assert_eq!(unread(&answered, &room), Some((0, 0)));
        alice.put(&v3(["rooms", &room, "redact", &answer, "5"]), json!({})).await.ok();
        assert_eq!(unread(&alice.sync(next(&answered)).await, &room), Some((1, 0)));
    }

    async fn counts_do_not_depend_on_what_is_shown(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let start = alice.sync(None).await;
        for number in 0..70 {
            bob.send_text(&room, &number.to_string(), "hello").await;
        }
        for timeline in [json!({ "limit": 1 }), json!({ "limit": 0 }), json!({ "types": ["m.room.topic"] })] {
            let news = alice.sync_with(next(&start), &filter(&json!({ "room": { "timeline": timeline } }))).await;
            assert_eq!(unread(&news, &room), Some((70, 0)), "{timeline}");
            let quiet = alice.sync_with(next(&news), &filter(&json!({ "room": { "timeline": timeline } }))).await;
            assert_eq!(unread(&quiet, &room), None, "{timeline}");
        }
    }

    async fn the_ignored_do_not_count(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        bob.send_text(&room, "1", "one").await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((1, 0)));
        let list = v3(["user", &alice.user_id, "account_data", "m.ignored_user_list"]);
        alice.put(&list, json!({ "ignored_users": { &bob.user_id: {} } })).await.ok();
        bob.send_text(&room, "2", "two").await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((0, 0)));
        alice.put(&list, json!({ "ignored_users": {} })).await.ok();
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 0)));
    }
}
