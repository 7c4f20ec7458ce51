//! Threads: the conversations of a room, and the one that an event belongs to ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts

use std::{borrow::Cow, sync::Arc};

use ruma::EventId;
use serde::Deserialize;

use sabha_federation::Pdu;

use crate::{
    room::{Room, Rooms, event::StoredEvent},
    store::{Error, EventNid},
};

/// The number of relations that are followed to find out whether an event is in a thread, as the spec recommends.
const MAX_HOPS: usize = 3;

/// The name of the main timeline in receipts.
pub const MAIN: &str = "main";

/// The conversation that an event belongs to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The ID of the thread's root event. `None`: the main timeline.
    pub thread: Option<Arc<str>>,
    /// The events that were read to find it. Once one of them is redacted, the conversation may be another one.
    pub through: Vec<EventNid>,
}

#[derive(Deserialize)]
pub(in crate::room) struct RelatesTo<'a> {
    #[serde(borrow)]
    pub(in crate::room) rel_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(in crate::room) event_id: Option<Cow<'a, str>>,
}

/// The relation in an event's content, if it names a valid event ID.
pub(in crate::room) fn relation(pdu: &Pdu) -> Option<RelatesTo<'_>> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow, rename = "m.relates_to")]
        relates_to: RelatesTo<'a>,
    }
    // Most events relate to nothing, and are not parsed for this.
    if !pdu.content.get().contains("relates_to") {
        return None;
    }
    let relates_to = serde_json::from_str::<Content<'_>>(pdu.content.get()).ok()?.relates_to;
    let names_event = |event_id: &Cow<'_, str>| <&EventId>::try_from(&**event_id).is_ok();
    (relates_to.rel_type.is_some() && relates_to.event_id.as_ref().is_some_and(names_event)).then_some(relates_to)
}

/// Returns whether the event relates to another one. One that does not is in the main timeline.
pub(crate) fn is_related(pdu: &Pdu) -> bool {
    relation(pdu).is_some()
}

impl Rooms {
    /// The conversation that the event belongs to. Reads the database only for events that relate to an old one.
    pub async fn conversation(&self, room: &Room, event: &Pdu) -> Result<Conversation, Error> {
        let mut conversation = Conversation::default();
        let mut parent: Option<Arc<StoredEvent>> = None;
        for _ in 0..=MAX_HOPS {
            let Some(RelatesTo { rel_type, event_id: Some(event_id) }) =
                relation(parent.as_ref().map_or(event, |parent| &parent.pdu))
            else {
                return Ok(conversation);
            };
            if rel_type.as_deref() == Some("m.thread") {
                conversation.thread = Some(event_id.into());
                return Ok(conversation);
            }
            let Ok(event_id) = EventId::parse(&*event_id) else { return Ok(conversation) };
            let Some(next) = self.find_in_timeline(room, &event_id).await? else { return Ok(conversation) };
            conversation.through.push(next.nid);
            parent = Some(next);
        }
        Ok(conversation)
    }

    /// Returns whether a receipt for the event may name `thread`: [`MAIN`] or the ID of the thread's root event. The
    /// root is in both, and an event that relates to it may be meant for either. Also `true` if a redaction removed the
    /// relation.
    ///
    /// # Errors
    /// Database errors only.
    pub async fn may_be_in_thread(&self, room: &Room, event_id: &EventId, thread: &str) -> Result<bool, Error> {
        if event_id.as_str() == thread {
            return Ok(true);
        }
        let Some(event) = self.find_in_timeline(room, event_id).await? else { return Ok(true) };
        let conversation = self.conversation(room, &event.pdu).await?;
        if conversation.thread.as_deref().unwrap_or(MAIN) == thread || event.redacted_because.is_some() {
            return Ok(true);
        }
        for nid in conversation.through {
            let related = self.events.get(room, nid).await?;
            if related.event_id() == thread || related.redacted_because.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
