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
        // The join of the others counts for nobody but bob.
        alice.sync(None).await;
        bob.send(&room, "m.room.message", "1", mention(&alice, "look")).await;
        bob.send_text(&room, "2", "carol: look").await;
        let third = carol.send_text(&room, "3", "I do").await;
        bob.send_text(&room, "4", "Carol and alice").await;
        let badge = async |user: &Client| unread(&user.sync(None).await, &room);
        let before_carol = unread(&bob.sync(None).await, &room);
        assert_eq!((badge(&alice).await, badge(&carol).await), (Some((5, 2)), Some((1, 1))));
        // A redaction is a redaction for everyone.
        bob.put(&v3(["rooms", &room, "redact", &third, "5"]), json!({})).await.ok();
        assert_eq!((badge(&alice).await, badge(&carol).await), (Some((4, 2)), Some((3, 2))));
        assert_ne!(badge(&bob).await, before_carol, "carol's message was the only one after his own");
    }

    async fn redacted_names_and_power_levels_no_longer_count(server: TestServer) {
        let (alice, bob, room) = scene(&server).await;
        let profile = v3(["profile", &alice.user_id, "displayname"]);
        alice.put(&profile, json!({ "displayname": "Ali Baba" })).await.ok();
        bob.send_text(&room, "1", "Ali Baba!").await;
        bob.send_text(&room, "2", "hello").await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 1)));
        let members = alice.get(&v3(["rooms", &room, "state"])).await.ok();
        let named = |event: &&Value| event["type"] == "m.room.member" && event["state_key"] == *alice.user_id;
        let event_id = members.as_array().expect("a list").iter().find(named).expect("alice is a member")["event_id"].clone();
        let event_id = event_id.as_str().expect("a string");
        bob.put(&v3(["rooms", &room, "redact", event_id, "3"]), json!({})).await.ok();
        assert_eq!(unread(&alice.sync(None).await, &room), Some((2, 0)), "nobody knows any more what her name was");
    }
}
