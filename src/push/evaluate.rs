//! Holding an event against an account's push rules ([spec]).
//!
//! Promise: the answer depends on the event, the rules and how things stood when the event was sent, and on nothing that
//! happened since. What is taken from an event for this is shared by all who look at it.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules

use std::sync::Arc;

use quick_cache::sync::Cache;
use ruma::{
    UInt,
    push::{FlattenedJson, PushConditionRoomCtx, Ruleset},
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    room::{Room, Rooms, circumstances::Circumstances, event::StoredEvent},
    store::{Error, EventNid, RoomNid, UserNid, vocabulary::User},
};

/// Events whose fields are kept: those that whole rooms are just looking at. A few kB each.
const CACHED_EVENTS: usize = 1_000;

/// For how many pairs of user and room it is kept how things stand: where people are just talking.
const CACHED_CONTEXTS: usize = 5_000;

/// What the rules say about one event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    pub notify: bool,
    /// Only set with `notify`.
    pub highlight: bool,
}

/// How things stood, as ruma wants to know it.
struct Context {
    held: Circumstances,
    ruma: PushConditionRoomCtx,
}

/// What is kept between evaluations.
pub(super) struct Evaluator {
    events: Cache<EventNid, Arc<FlattenedJson>>,
    contexts: Cache<(UserNid, RoomNid), Arc<Context>>,
}

impl Default for Evaluator {
    fn default() -> Self {
        Self { events: Cache::new(CACHED_EVENTS), contexts: Cache::new(CACHED_CONTEXTS) }
    }
}

impl Evaluator {
    /// What `ruleset` says about an event that was sent when things were as `held` says.
    pub(super) async fn verdict(
        &self,
        rooms: &Rooms,
        (room, user): (&Room, &User),
        ruleset: &Ruleset,
        event: &StoredEvent,
        held: Circumstances,
    ) -> Result<Verdict, Error> {
        let context = self.context(rooms, room, user, held).await?;
        let fields = self.fields(event)?;
        for rule in ruleset {
            if rule.applies(&fields, &context.ruma).await {
                let notify = rule.triggers_notification();
                return Ok(Verdict { notify, highlight: notify && rule.triggers_highlight() });
            }
        }
        Ok(Verdict::default())
    }

    fn fields(&self, event: &StoredEvent) -> Result<Arc<FlattenedJson>, Error> {
        self.events.get_or_insert_with(&event.nid, || fields(event).map(Arc::new))
    }

    async fn context(
        &self,
        rooms: &Rooms,
        room: &Room,
        user: &User,
        held: Circumstances,
    ) -> Result<Arc<Context>, Error> {
        // Since when it holds makes no difference.
        let same = |known: &Circumstances| Circumstances { from: held.from, ..*known } == held;
        if let Some(known) = self.contexts.get(&(user.nid, room.nid)).filter(|known| same(&known.held)) {
            return Ok(known);
        }
        let levels = rooms.power_levels_in(room, held.power_levels, held.from).await?;
        let display_name = match held.member {
            Some(nid) => display_name(&*rooms.events.get(room, nid).await?),
            None => None,
        };
        let display_name = display_name.unwrap_or_else(|| user.user_id.to_string());
        let members = UInt::try_from(held.joined).unwrap_or(UInt::MAX);
        let ruma = PushConditionRoomCtx::new(room.room_id.clone(), members, user.user_id.clone(), display_name)
            .with_power_levels(levels.into());
        let context = Arc::new(Context { held, ruma });
        self.contexts.insert((user.nid, room.nid), Arc::clone(&context));
        Ok(context)
    }
}

/// The user's name in the room. Who has none is called by their ID ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#calculating-the-display-name-for-a-user
fn display_name(member: &StoredEvent) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        displayname: Option<String>,
    }
    member.content::<Content>()?.displayname.filter(|name| !name.trim().is_empty())
}

/// What rules may ask about an event. Not `unsigned`: that is no part of what was sent.
fn fields(event: &StoredEvent) -> Result<FlattenedJson, Error> {
    #[derive(Serialize)]
    struct Fields<'a> {
        #[serde(rename = "type")]
        event_type: &'a str,
        event_id: &'a str,
        room_id: &'a str,
        sender: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        state_key: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        redacts: Option<&'a str>,
        content: &'a RawValue,
    }
    let pdu = &event.pdu;
    let fields = Fields {
        event_type: &pdu.event_type,
        event_id: pdu.event_id.as_str(),
        room_id: pdu.room_id.as_str(),
        sender: pdu.sender.as_str(),
        state_key: pdu.state_key.as_deref(),
        redacts: pdu.redacts.as_ref().map(|event_id| event_id.as_str()),
        content: &pdu.content,
    };
    // Ruma panics on JSON that cannot be read as a value; having read it once shows that it can.
    let value: Value = serde_json::to_string(&fields)
        .and_then(|json| serde_json::from_str(&json))
        .map_err(|error| Error::damaged("event", error))?;
    let raw = Raw::new(&value).map_err(|error| Error::damaged("event", error))?;
    Ok(FlattenedJson::from_raw(&raw))
}
