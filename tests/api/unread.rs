//! Unread counts in `/sync` ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications

mod budget;
mod capped;
mod model;
mod stored;

use http::Method;
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

    async fn a_body_of_many_words_is_held_against_rules(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        rule(&alice, "content", "b", json!({ "pattern": "b", "actions": ["notify", { "set_tweak": "highlight" }] })).await;
        alice.sync(None).await;
        bob.send_text(&room, "1", &"ab ".repeat(2500)).await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((1, 0)));
        bob.send_text(&room, "2", &("ab ".repeat(2500) + "b")).await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 1)));
    }

    async fn what_rules_are_too_slow_for_does_not_count(server: TestServer) {
        let mut server = server;
        let (alice, bob, room) = scene(&server).await;
        slow_rules(&alice).await;
        bob.send(&room, "m.room.message", "mention", mention(&alice, "you")).await;
        let start = alice.sync(None).await;
        assert_eq!(unread(&start, &room), Some((1, 1)));
        let sent = 20;
        for number in 0..sent {
            bob.send_text(&room, &number.to_string(), &"a".repeat(60_000)).await;
        }
        let (counted, highlighted) = unread(&alice.sync(next(&start)).await, &room).expect("there is news");
        assert!((5..sent).contains(&counted), "{counted} of {sent} count, with all the rules and the longest texts");
        assert_eq!(highlighted, 0, "what is older than what does not count does not count either");
        assert_eq!(unread(&alice.sync(None).await, &room), Some((counted, 0)), "asked again");
        server.restart().await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((counted, 0)), "counted anew");
    }

    async fn an_event_that_is_nested_too_deep_for_rules_notifies_nobody(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        bob.send_text(&room, "before", "hello").await;
        // Depths around the limit of the server: some of these events may be refused.
        for depth in 120..130 {
            let nested = "{\"a\":".repeat(depth - 1) + "{}" + &"}".repeat(depth - 1);
            let path = v3(["rooms", &room, "send", "m.room.message", &depth.to_string()]);
            bob.request(Method::PUT, &path, Some(nested)).await;
        }
        // The filter hides these events, because they are too deep for the client of this test as well.
        let blind = filter(&json!({ "room": { "timeline": { "types": ["org.example.nothing"] } } }));
        let counted = unread(&alice.sync_with(None, &blind).await, &room);
        assert!(counted.is_some_and(|(notifications, _)| notifications > 0), "{counted:?}: the first message still counts");
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

    async fn changed_rules_count_for_what_is_unread(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        bob.send_text(&room, "1", "there is cake").await;
        bob.send_text(&room, "2", "hello").await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 0)));
        let highlight = json!(["notify", { "set_tweak": "highlight" }]);
        rule(&alice, "content", "cake", json!({ "pattern": "cake", "actions": highlight })).await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 1)));
        rule(&alice, "room", &room, json!({ "actions": [] })).await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((1, 1)), "words come before rooms");
        let master = v3(["pushrules", "global", "override", ".m.rule.master", "enabled"]);
        alice.put(&master, json!({ "enabled": true })).await.ok();
        assert_eq!(unread(&alice.sync(None).await, &room), Some((0, 0)));
        alice.put(&master, json!({ "enabled": false })).await.ok();
        alice.delete(&v3(["pushrules", "global", "room", &room]), json!({})).await.ok();
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 1)));
    }

    async fn rules_see_the_room_as_it_was(server: TestServer) {
        let mut server = server;
        let (alice, bob, room) = scene(&server).await;
        let three = json!([{ "kind": "room_member_count", "is": "3" }]);
        let loud = json!(["notify", { "set_tweak": "highlight" }]);
        rule(&alice, "override", "three", json!({ "conditions": three, "actions": loud })).await;
        bob.send_text(&room, "1", "two of us").await;
        let carol = server.register("carol").await;
        carol.join(&room).await;
        carol.send_text(&room, "2", "three of us").await;
        carol.leave(&room).await;
        bob.send_text(&room, "3", "two again").await;
        // Carol's join counts too, and as one of three members; her departure does not count.
        assert_eq!(unread(&alice.sync(None).await, &room), Some((4, 2)));

        let name = json!([{ "kind": "contains_display_name" }]);
        rule(&alice, "override", "name", json!({ "conditions": name, "actions": loud })).await;
        bob.send_text(&room, "4", "hello Ali").await;
        let profile = v3(["profile", &alice.user_id, "displayname"]);
        alice.put(&profile, json!({ "displayname": "Ali" })).await.ok();
        bob.send_text(&room, "5", "hello Ali").await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((6, 3)));

        let everyone = || json!({ "msgtype": "m.text", "body": "all", "m.mentions": { "room": true } });
        bob.send(&room, "m.room.message", "6", everyone()).await;
        let dave = server.register("dave").await;
        dave.join(&room).await;
        dave.send(&room, "m.room.message", "7", everyone()).await;
        let sum = unread(&alice.sync(None).await, &room);
        // Dave's join makes them three again. He may not notify the whole room, but his message has three members.
        assert_eq!(sum, Some((9, 6)));
        server.restart().await;
        assert_eq!(unread(&alice.sync(None).await, &room), sum);
    }

    /// Scripts and bridges write names into the body, without `m.mentions`.
    async fn names_in_a_body_are_heard_where_nothing_says_who_is_mentioned(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let profile = v3(["profile", &alice.user_id, "displayname"]);
        alice.put(&profile, json!({ "displayname": "Ali Baba" })).await.ok();
        let mut expected = (0, 0);
        for (number, (content, highlights)) in [
            (text("nobody"), false),
            (text("alice: the build is broken"), true),
            (text("Ali Baba, the build is broken"), true),
            (text("@room the build is broken"), true),
            (json!({ "msgtype": "m.text", "body": "alice said so", "m.mentions": {} }), false),
            (json!({ "msgtype": "m.text", "body": "@room", "m.mentions": { "user_ids": [bob.user_id] } }), false),
            (mention(&alice, "you"), true),
        ]
        .into_iter()
        .enumerate()
        {
            bob.send(&room, "m.room.message", &number.to_string(), content.clone()).await;
            expected = (expected.0 + 1, expected.1 + u64::from(highlights));
            assert_eq!(unread(&alice.sync(None).await, &room), Some(expected), "{content}");
        }
        // Users can switch these rules off.
        let enabled = v3(["pushrules", "global", "content", ".m.rule.contains_user_name"]) + "/enabled";
        alice.put(&enabled, json!({ "enabled": false })).await.ok();
        bob.send_text(&room, "off", "alice again").await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((expected.0 + 1, expected.1 - 1)));
    }

    async fn who_may_not_call_everyone_does_not(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        for (user, expected) in [(&bob, (1, 1)), (&alice, (1, 0))] {
            let content = json!({ "msgtype": "m.text", "body": "all", "m.mentions": { "room": true } });
            let reader = if user.user_id == bob.user_id { &alice } else { &bob };
            user.send(&room, "m.room.message", "call", content).await;
            assert_eq!(unread(&reader.sync(None).await, &room), Some(expected));
        }
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
