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

/// Approximate memory of a sender without the type and the events, with its place in the cache.
const SENDER_BYTES: usize = 200;

/// Approximate memory of a named event whose texts are gone: its place stays taken while it is named.
const NAMED_BYTES: usize = size_of::<Pdu>() + size_of::<Weak<Pdu>>() + 2 * size_of::<usize>();

/// The events that allowed a sender to send an event of this type.
struct AllowedBy {
    event_type: String,
    /// Weak, so that no event stays in memory for this. No other event gets the place of one that is named here.
    events: Box<[Weak<Pdu>]>,
}

impl HasBytes for AllowedBy {
    fn bytes(&self) -> u64 {
        (SENDER_BYTES + self.event_type.len() + self.events.len() * NAMED_BYTES) as u64
    }
}

/// The plain events ([`auth::is_plain`]) that were allowed lately.
///
/// Promise: the verdict about an event is taken over only if its sender, its type and all events that decide are the same
/// objects. So a redaction of one of these, which keeps its short id, makes the rules be asked again.
pub(in crate::room) struct Allowed(Arc<ByteCache<(RoomNid, UserNid), Arc<AllowedBy>>>);

impl Allowed {
    pub(in crate::room) fn new(budget: &Budget) -> Self {
        Self(budget.cache(Part::AllowedSenders))
    }

    /// Returns whether these events allow an event like this one. False if the rules must be asked.
    pub(super) fn knows<'a>(&self, key: (RoomNid, UserNid), pdu: &Pdu, by: impl Iterator<Item = &'a Arc<Pdu>>) -> bool {
        auth::is_plain(&pdu.event_type, pdu.state_key.as_deref())
            && self.0.get(&key).is_some_and(|last| {
                last.event_type == pdu.event_type && last.events.iter().map(Weak::as_ptr).eq(by.map(Arc::as_ptr))
            })
    }

    /// Notes that these events allow this one.
    pub(super) fn note<'a>(&self, key: (RoomNid, UserNid), pdu: &Pdu, by: impl Iterator<Item = &'a Arc<Pdu>>) {
        if auth::is_plain(&pdu.event_type, pdu.state_key.as_deref()) {
            let allowed_by = AllowedBy { event_type: pdu.event_type.clone(), events: by.map(Arc::downgrade).collect() };
            self.0.insert(key, Arc::new(allowed_by));
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{EventId, RoomVersionId};
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

    fn pdu(event_type: &str) -> Arc<Pdu> {
        let rules = sabha_federation::rules(&RoomVersionId::V11).expect("it is supported");
        let event_id = EventId::parse("$event").expect("an event ID");
        let event = json!({
            "type": event_type, "room_id": "!room:sabha.test", "sender": "@alice:sabha.test", "origin_server_ts": 1,
            "content": {}, "prev_events": [], "auth_events": [], "depth": 1,
        });
        Arc::new(Pdu::from_stored(&rules, event_id, event.to_string()).expect("an event"))
    }

    const SENDER: (RoomNid, UserNid) = (RoomNid(1), UserNid(1));

    #[test]
    fn a_verdict_names_events_and_keeps_none_in_memory() {
        let allowed = Allowed::new(&Budget::new(16 << 20));
        let (message, member, levels) = (pdu("m.room.message"), pdu("m.room.member"), pdu("m.room.power_levels"));
        let knows = |by: &[&Arc<Pdu>]| allowed.knows(SENDER, &message, by.iter().copied());
        allowed.note(SENDER, &message, [&member, &levels].into_iter());
        assert!(knows(&[&member, &levels]));
        assert!(!knows(&[&member]));
        assert!(!knows(&[&member, &levels, &levels]));
        // Its redacted form is equal in all that a type and an ID say.
        assert!(!knows(&[&member, &pdu("m.room.power_levels")]));
        assert_eq!((Arc::strong_count(&message), Arc::strong_count(&levels)), (1, 1));
        drop(levels);
        for _ in 0..100 {
            assert!(
                !knows(&[&member, &pdu("m.room.power_levels")]),
                "a new event may not get the place of one that is gone"
            );
        }
    }

    #[test]
    fn verdicts_take_a_part_of_the_budget_however_many_senders_there_are() {
        let budget = Budget::new(16 << 20);
        let allowed = Allowed::new(&budget);
        let by = [pdu("m.room.create"), pdu("m.room.power_levels"), pdu("m.room.member")];
        let message = pdu(&"x".repeat(255));
        let is_known = |sender| allowed.knows((RoomNid(1), UserNid(sender)), &message, by.iter());
        for sender in 0..10_000 {
            allowed.note((RoomNid(1), UserNid(sender)), &message, by.iter());
        }
        assert!(allowed.0.weight() <= budget.share(Part::AllowedSenders));
        let known = (0..10_000).filter(|sender| is_known(*sender)).count();
        assert!((20..1_000).contains(&known), "{known}");
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
}
