//! State of other servers whose types and keys hold a NUL, which PostgreSQL stores in no text.

use ruma::user_id;

use super::*;
use crate::room::tests::servers_on_both_engines;

/// Types and keys of state events. Some would be the same one if a NUL was removed, or replaced by what its stored form is.
const WORDS: [(&str, &str); 5] = [
    ("org.example\0", "a\0b"),
    ("org.example\0", "a\u{10FFFE}0b"),
    ("org.example\u{10FFFE}0", "a\0b"),
    ("org.example\0", "ab"),
    ("org.example\0", ""),
];

#[tokio::test]
async fn state_of_any_type_and_key_is_the_rooms_state_on_both_engines() {
    for server in servers_on_both_engines().await {
        let world = World::on(server).await;
        let carol = world.remote_user(user_id!("@carol:remote.test")).await;
        let mut expected = Vec::new();
        for (event_type, state_key) in WORDS {
            let names = (event_type.to_owned(), Some(state_key.to_owned()));
            let draft = EventDraft { event_type: names.0, state_key: names.1, ..topic("any") };
            let outcome =
                |built: &mut Built| Outcome { flags: Flags::NONE, ..Outcome::of_local(built, None, None, None) };
            expected.push((event_type, state_key, world.receive(&carol, draft, outcome).await));
        }
        for _ in 0..2 {
            let (rooms, room) = (world.rooms(), world.room().await);
            let current = async |event_type, state_key| {
                let event = rooms.current_state_event(&room, event_type, state_key).await.expect("read");
                event.map(|event| event.nid)
            };
            for &(event_type, state_key, nid) in &expected {
                assert_eq!(current(event_type, state_key).await, Some(nid), "{event_type:?} {state_key:?}");
            }
            assert_eq!(current("org.example", "a\0b").await, None);
            assert_eq!(current("org.example\u{10FFFE}0", "ab").await, None);
            drop(room);
            // And once more, as it is stored.
            world.evict().await;
        }
        let (answer, _) = world.server.sync(&world.alice, None).await;
        let answer = answer.to_string();
        assert!(
            answer.contains(r#""type":"org.example\u0000""#) && answer.contains(r#""state_key":"a\u0000b""#),
            "{answer}"
        );
    }
}
