//! A new count has the latest hundred events; one that is kept goes on to more.

use super::*;

const SENT: u64 = 130;

/// The number of events in a new count.
const COLD: u64 = sabha::push::unread::COLD_EVENTS as u64;

async fn flood(alice: &Client, bob: &Client, room: &str, first: u64) {
    for number in first..first + SENT {
        let content = if number == 3 { mention(alice, "you") } else { text("hello") };
        bob.send(room, "m.room.message", &number.to_string(), content).await;
    }
}

both_engines! {
    async fn a_new_count_has_the_latest_hundred_events_and_one_that_is_kept_goes_on(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let start = alice.sync(None).await;
        flood(&alice, &bob, &room, 0).await;
        let news = alice.sync(next(&start)).await;
        assert_eq!(unread(&news, &room), Some((SENT, 1)), "all of them are new to this count");
        flood(&alice, &bob, &room, SENT).await;
        let more = alice.sync(next(&news)).await;
        assert_eq!(unread(&more, &room), Some((2 * SENT, 1)));
        let first = bob.send_text(&room, "last", "hello").await;
        // Other rules are a new count.
        rule(&alice, "content", "cake", json!({ "pattern": "cake", "actions": ["notify"] })).await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((COLD, 0)));
        // The client that follows is told with the next news.
        bob.send_text(&room, "one more", "hello").await;
        assert_eq!(unread(&alice.sync(next(&more)).await, &room), Some((COLD + 1, 0)));
        read(&alice, &room, "m.read", &first, None).await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((1, 0)));
    }

    async fn users_of_one_class_share_the_verdicts_and_have_counts_of_their_own(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let carol = server.register("carol").await;
        carol.join(&room).await;
        bob.send(&room, "m.room.message", "1", mention(&alice, "look")).await;
        bob.send_text(&room, "2", "carol: look").await;
        let third = carol.send_text(&room, "3", "I do").await;
        bob.send_text(&room, "4", "Carol and alice").await;
        let badge = async |user: &Client| unread(&user.sync(None).await, &room);
        assert_eq!((badge(&alice).await, badge(&carol).await), (Some((4, 2)), Some((1, 1))));
        // A redaction is one for everybody: carol has read nothing then.
        bob.put(&v3(["rooms", &room, "redact", &third, "5"]), json!({})).await.ok();
        assert_eq!((badge(&alice).await, badge(&carol).await), (Some((3, 2)), Some((3, 2))));
    }

    async fn a_redacted_name_is_not_found_any_more(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let profile = v3(["profile", &alice.user_id, "displayname"]);
        alice.put(&profile, json!({ "displayname": "Ali Baba" })).await.ok();
        bob.send_text(&room, "1", "Ali Baba!").await;
        bob.send_text(&room, "2", "hello").await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 1)));
        let event_id = member_event(&alice, &room).await;
        bob.put(&v3(["rooms", &room, "redact", &event_id, "3"]), json!({})).await.ok();
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 0)));
    }

    async fn redacted_power_levels_give_no_right_to_call_everyone(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let carol = server.register("carol").await;
        carol.join(&room).await;
        let path = v3(["rooms", &room, "state", "m.room.power_levels"]);
        let mut levels = alice.get(&path).await.ok();
        levels["notifications"] = json!({ "room": 0 });
        let set = bob.put(&path, levels).await.ok();
        let event_id = set["event_id"].as_str().expect("a string");
        let everyone = || json!({ "msgtype": "m.text", "body": "all", "m.mentions": { "room": true } });
        carol.send(&room, "m.room.message", "1", everyone()).await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((1, 1)));
        bob.put(&v3(["rooms", &room, "redact", event_id, "2"]), json!({})).await.ok();
        carol.send(&room, "m.room.message", "3", everyone()).await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 0)));
    }
}
