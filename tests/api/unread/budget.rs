//! Many rooms in one answer: the work of counting is bounded, and rooms beyond it are counted later.

use super::*;

/// Number of rooms. With [`SENT`] texts in each, four of them fit into the steps of one answer.
const ROOMS: usize = 6;

/// Number of texts in each room. They have 8 KiB each, and are fewer than the steps of one room reach.
const SENT: u64 = 10;

async fn rooms(alice: &Client, bob: &Client) -> Vec<String> {
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        let room = bob.create_room(json!({ "preset": "public_chat" })).await;
        alice.join(&room).await;
        rooms.push(room);
    }
    rooms
}

async fn flood(bob: &Client, rooms: &[String]) {
    for room in rooms {
        for txn in 0..SENT {
            bob.send_text(room, &format!("flood{txn}"), &"a".repeat(8 << 10)).await;
        }
    }
}

fn all<'a>(answer: &'a Value, rooms: &'a [String]) -> impl Iterator<Item = (&'a String, (u64, u64))> {
    rooms.iter().map(|room| (room, unread(answer, room).expect("the room is there")))
}

both_engines! {
    async fn rooms_beyond_the_steps_of_an_answer_are_counted_by_the_next(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let rooms = rooms(&alice, &bob).await;
        slow_rules(&alice).await;
        flood(&bob, &rooms).await;
        let first = alice.sync(None).await;
        let short: Vec<_> = all(&first, &rooms).filter(|(_, counts)| *counts != (SENT, 0)).collect();
        assert!((1..=2).contains(&short.len()), "{short:?}: four rooms fit, and not six");
        assert!(short.iter().all(|(_, counts)| counts.0 < SENT), "{short:?}: the latest count");

        // The rest is counted with the next event of the room, or in an initial sync.
        let (room, _) = short[0];
        bob.send_text(room, "one more", "hello").await;
        let news = alice.sync(next(&first)).await;
        assert_eq!(unread(&news, room), Some((SENT + 1, 0)));
        for (other, counts) in all(&alice.sync(None).await, &rooms) {
            assert_eq!(counts, (SENT + u64::from(other == room), 0));
        }
    }

    async fn what_was_counted_stays_until_there_are_steps_for_what_is_new(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let rooms = rooms(&alice, &bob).await;
        slow_rules(&alice).await;
        for room in &rooms {
            bob.send(room, "m.room.message", "mention", mention(&alice, "you")).await;
        }
        let start = alice.sync(None).await;
        assert!(all(&start, &rooms).all(|(_, counts)| counts == (1, 1)));
        flood(&bob, &rooms).await;
        let news = alice.sync(next(&start)).await;
        let (short, whole): (Vec<_>, Vec<_>) = all(&news, &rooms).partition(|(_, counts)| *counts == (1, 1));
        assert!((1..=2).contains(&short.len()), "{short:?}");
        assert!(whole.iter().all(|(_, counts)| *counts == (SENT + 1, 1)), "{whole:?}");

        // Changed counts are told even if the answer shows nothing else of the room.
        let blind = filter(&json!({ "room": { "timeline": { "types": ["org.example.nothing"] } } }));
        for (room, _) in short.iter().chain(&whole) {
            bob.send(room, "org.example.silent", "silent", json!({})).await;
        }
        let later = alice.sync_with(next(&news), &blind).await;
        assert!(short.iter().all(|(room, _)| unread(&later, room) == Some((SENT + 1, 1))), "{later}");
        assert!(whole.iter().all(|(room, _)| unread(&later, room).is_none()), "{later}");
    }
}
