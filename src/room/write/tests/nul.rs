//! State of other servers whose types and keys hold a NUL, which PostgreSQL stores in no text.

use serde_json::Value;

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
        let (db, rules) = (&world.rooms().db, &world.room().await.rules.clone());
        let mut expected = Vec::new();
        for (name, state_key) in WORDS {
            let event_type = db.event_type(name).await.expect("a type");
            let key = db.state_key(name, state_key).await.expect("a key");
            let received = |built: &mut Built| {
                let mut json: Value = serde_json::from_str(&built.pdu.json).expect("JSON");
                json["type"] = name.into();
                json["state_key"] = state_key.into();
                let pdu = Pdu::from_stored(rules, built.pdu.event_id.clone(), json.to_string()).expect("an event");
                built.pdu = Arc::new(pdu);
                built.event_type = event_type;
                built.key = Some(key);
                Outcome { flags: Flags::NONE, ..Outcome::of_local(built, None, None, None) }
            };
            expected.push((name, state_key, world.accept(topic("replaced"), received).await));
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
