//! Push rules decide which events count.

use http::Method;

use super::*;

both_engines! {
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
}
