//! The last verdict about each sender's plain events: a message is allowed if the one before was, by the same events.

use std::sync::{Arc, Weak};

use sabha_federation::{Pdu, auth};

use crate::{
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    store::{RoomNid, UserNid},
};

/// Approximate memory of a verdict besides its texts and events.
const VERDICT_BYTES: usize = 200;

/// Approximate memory of an event that may be gone: its record without its texts.
const EVENT_BYTES: usize = size_of::<Pdu>() + 32;

/// The events that allowed a sender to send an event of this type. They are not kept in memory for that; but no other
/// event gets the address of one of them.
struct Verdict {
    event_type: String,
    by: Box<[Weak<Pdu>]>,
}

impl HasBytes for Verdict {
    fn bytes(&self) -> u64 {
        (VERDICT_BYTES + self.event_type.len() + self.by.len() * EVENT_BYTES) as u64
    }
}

/// The plain events ([`auth::is_plain`]) that were allowed lately.
///
/// Promise: the verdict about an event is taken over only if its sender, its type and all events that decide are the same
/// objects. So a redaction of one of these, which keeps its short id, makes the rules be asked again.
pub(in crate::room) struct Allowed(Arc<ByteCache<(RoomNid, UserNid), Arc<Verdict>>>);

impl Allowed {
    pub(in crate::room) fn new(budget: &Budget) -> Self {
        Self(budget.cache(Part::AllowedSenders))
    }

    /// Returns whether these events allow an event like this one. False if the rules must be asked.
    pub(super) fn knows<'a>(&self, key: (RoomNid, UserNid), pdu: &Pdu, by: impl Iterator<Item = &'a Arc<Pdu>>) -> bool {
        auth::is_plain(&pdu.event_type, pdu.state_key.as_deref())
            && self.0.get(&key).is_some_and(|last| {
                last.event_type == pdu.event_type && last.by.iter().map(Weak::as_ptr).eq(by.map(Arc::as_ptr))
            })
    }

    /// Notes that these events allow this one.
    pub(super) fn note<'a>(&self, key: (RoomNid, UserNid), pdu: &Pdu, by: impl Iterator<Item = &'a Arc<Pdu>>) {
        if auth::is_plain(&pdu.event_type, pdu.state_key.as_deref()) {
            let verdict = Verdict { event_type: pdu.event_type.clone(), by: by.map(Arc::downgrade).collect() };
            self.0.insert(key, Arc::new(verdict));
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, event_id};
    use sabha_federation::EventDraft;
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;
    use crate::{
        account::LocalDevice,
        room::{
            tests::{new_room, server},
            write::create::Preset,
        },
    };

    fn draft(event_type: &str, state_key: Option<&str>, content: &Value) -> EventDraft {
        let content = to_raw_value(content).expect("JSON");
        EventDraft {
            event_type: event_type.to_owned(),
            state_key: state_key.map(str::to_owned),
            content,
            redacts: None,
        }
    }

    #[tokio::test]
    async fn a_verdict_lasts_until_an_event_that_decides_changes() {
        let server = server().await;
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let rooms = &server.app.rooms;
        let new = new_room(RoomVersionId::V11, Preset::Public);
        let room_id = rooms.create(&alice, new).await.expect("created");
        rooms.join(&bob, &room_id, None).await.expect("joined");
        let allows = async |sender: &LocalDevice, event_type: &str| {
            let room = rooms.find(&room_id).await.expect("read").expect("it was created");
            let mut writer = rooms.enter(&room).await.expect("entered");
            writer.append(&sender.user, draft(event_type, None, &json!({ "body": "" }))).await.is_ok()
        };
        for needed in [0, 50, 0] {
            let content = json!({ "users": { alice.user_id(): 100 }, "events": { "m.room.message": needed } });
            let levels = draft("m.room.power_levels", Some(""), &content);
            rooms.send_state(&alice, &room_id, levels).await.expect("allowed");
            for _ in 0..2 {
                assert!(allows(&alice, "m.room.message").await, "{needed}");
                assert_eq!(allows(&bob, "m.room.message").await, needed == 0);
            }
            assert!(allows(&bob, "org.example.other").await, "a verdict is about one type");
            assert_eq!(allows(&bob, "m.room.message").await, needed == 0);
        }
        rooms.leave(&bob, &room_id, None).await.expect("left");
        assert!(!allows(&bob, "m.room.message").await);
    }

    #[test]
    fn a_verdict_keeps_no_event_in_memory() {
        let rules = RoomVersionId::V11.rules().expect("a known version");
        let pdu = |number: usize| {
            let json = json!({ "room_id": "!r:localhost", "sender": "@a:localhost", "type": "m.room.message",
                "content": { "number": number }, "depth": 1, "origin_server_ts": 1, "prev_events": [], "auth_events": [],
                "hashes": { "sha256": "" }, "signatures": {} });
            let pdu = Pdu::from_stored(&rules, event_id!("$e").to_owned(), json.to_string());
            Arc::new(pdu.expect("an event"))
        };
        let (allowed, key, sent) = (Allowed::new(&Budget::new(16 << 20)), (RoomNid(1), UserNid(1)), pdu(0));
        let by = vec![pdu(1), pdu(2)];
        allowed.note(key, &sent, by.iter());
        assert!(allowed.knows(key, &sent, by.iter()));
        assert!(by.iter().all(|event| Arc::strong_count(event) == 1));
        drop(by);
        // Another event may be made where the first ones were, and is not taken for them.
        for number in 0..100 {
            assert!(!allowed.knows(key, &sent, [pdu(number), pdu(number)].iter()));
        }
        let mut bytes = 0;
        for user in 0..10_000 {
            allowed.note((RoomNid(1), UserNid(user)), &sent, [pdu(1)].iter());
            bytes = allowed.0.weight().max(bytes);
        }
        assert!(bytes <= Budget::new(16 << 20).share(Part::AllowedSenders), "{bytes}");
    }
}
