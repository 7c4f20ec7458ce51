//! The last verdict about each sender's plain events: a message is allowed if the one before was, by the same events.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sabha_federation::{Pdu, auth};

use crate::store::{RoomNid, UserNid};

/// The number of senders whose last verdict is kept: those of some hundred busy rooms. Each holds three events in memory, two of
/// them shared by the room.
const KEPT: usize = 2_048;

/// The events that allowed a sender to send an event of this type.
struct Verdict {
    event_type: String,
    by: Box<[Arc<Pdu>]>,
}

/// The plain events ([`auth::is_plain`]) that were allowed lately.
///
/// Promise: the verdict about an event is taken over only if its sender, its type and all events that decide are the same
/// objects. So a redaction of one of these, which keeps its short id, makes the rules be asked again.
pub(in crate::room) struct Allowed(Cache<(RoomNid, UserNid), Arc<Verdict>>);

impl Default for Allowed {
    fn default() -> Self {
        Self(Cache::new(KEPT))
    }
}

impl Allowed {
    /// Returns whether these events allow an event like this one. False if the rules must be asked.
    pub(super) fn knows<'a>(&self, key: (RoomNid, UserNid), pdu: &Pdu, by: impl Iterator<Item = &'a Arc<Pdu>>) -> bool {
        auth::is_plain(&pdu.event_type, pdu.state_key.as_deref())
            && self.0.get(&key).is_some_and(|last| {
                last.event_type == pdu.event_type && last.by.iter().map(Arc::as_ptr).eq(by.map(Arc::as_ptr))
            })
    }

    /// Notes that these events allow this one.
    pub(super) fn note<'a>(&self, key: (RoomNid, UserNid), pdu: &Pdu, by: impl Iterator<Item = &'a Arc<Pdu>>) {
        if auth::is_plain(&pdu.event_type, pdu.state_key.as_deref()) {
            let verdict = Verdict { event_type: pdu.event_type.clone(), by: by.cloned().collect() };
            self.0.insert(key, Arc::new(verdict));
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;
    use sabha_federation::EventDraft;
    use serde_json::{Value, json, value::to_raw_value};

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
}
