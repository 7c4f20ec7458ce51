//! Evaluation of an event against an account's push rules ([spec]).
//!
//! Promise: the answer depends on the event, the rules and the state of the room when the event was sent. Nothing that
//! happened later changes it, except a redaction that removes a name or power levels. The fields read from an event are
//! shared by all users who look at it. Next: [`super::compiled`], which matches them against the rules.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules

use std::{convert::Infallible, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use ruma::{UInt, push::PushConditionPowerLevelsCtx};
use serde::Deserialize;
use serde_json::Value;

use super::{
    changes::MAX_GLOB_BYTES,
    compiled::{Asked, CompiledRules},
};
use crate::{
    glob::Glob,
    room::{Room, Rooms, circumstances::Circumstances, event::StoredEvent},
    store::{Error, EventNid, RoomNid, UserNid, vocabulary::User},
};

/// Approximate number of cached events, a few kB each: those that whole rooms are reading now.
const CACHED_EVENTS: usize = 1_000;

/// Approximate memory for cached events. One event of 64 KiB can take 7 MiB when it is made of tiny objects.
const CACHED_EVENT_BYTES: u64 = 16 * 1024 * 1024;

/// Number of cached contexts, one for each pair of user and room: of rooms where people are talking now.
const CACHED_CONTEXTS: usize = 5_000;

/// Steps of matching that reading one byte of an event costs. An event may be made of thousands of tiny objects.
const STEPS_OF_BYTE: usize = 4;

/// The verdict of the rules about one event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    pub notify: bool,
    /// Set only with `notify`.
    pub highlight: bool,
}

/// The state of the room at an event, as rules need it.
struct Context {
    held: Circumstances,
    /// Matches the user's display name of that time, in lower case.
    display_name: Option<Glob>,
    members: UInt,
    power_levels: PushConditionPowerLevelsCtx,
}

/// The fields of an event that rules may read, with their size. `None` for a malformed event, which notifies nobody.
#[derive(Clone)]
struct Fields {
    value: Option<Arc<Value>>,
    bytes: u64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<EventNid, Fields> for ByBytes {
    fn weight(&self, _: &EventNid, fields: &Fields) -> u64 {
        fields.bytes
    }
}

/// The caches of evaluations.
pub(in crate::push) struct Evaluator {
    events: Cache<EventNid, Fields, ByBytes>,
    contexts: Cache<(UserNid, RoomNid), Arc<Context>>,
}

impl Default for Evaluator {
    fn default() -> Self {
        Self {
            events: Cache::with_weighter(CACHED_EVENTS, CACHED_EVENT_BYTES, ByBytes),
            contexts: Cache::new(CACHED_CONTEXTS),
        }
    }
}

impl Evaluator {
    /// Evaluates `rules` for an event that was sent in the circumstances `held`. A malformed event notifies nobody,
    /// because its sender must not be able to break anybody's `/sync`. Adds the work of the event to `steps`, cached or
    /// not.
    pub(in crate::push) async fn verdict(
        &self,
        rooms: &Rooms,
        (room, user): (&Room, &User),
        rules: &CompiledRules,
        event: &StoredEvent,
        held: Circumstances,
        steps: &mut usize,
    ) -> Result<Verdict, Error> {
        *steps += event.pdu.content.get().len() * STEPS_OF_BYTE;
        let Some(value) = self.fields(event).value else { return Ok(Verdict::default()) };
        let context = self.context(rooms, room, user, held).await?;
        let asked = Asked {
            user_id: &user.user_id,
            display_name: context.display_name.as_ref(),
            members: context.members,
            power_levels: Some(&context.power_levels),
        };
        Ok(rules.verdict(&value, &asked, steps).await)
    }

    fn fields(&self, event: &StoredEvent) -> Fields {
        let Ok(fields) = self.events.get_or_insert_with(&event.nid, || Ok::<_, Infallible>(Fields::new(fields(event))));
        fields
    }

    async fn context(
        &self,
        rooms: &Rooms,
        room: &Room,
        user: &User,
        held: Circumstances,
    ) -> Result<Arc<Context>, Error> {
        // The position since which they hold makes no difference.
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
        let display_name = named(&display_name);
        let context = Arc::new(Context { held, display_name, members, power_levels: levels.into() });
        self.contexts.insert((user.nid, room.nid), Arc::clone(&context));
        Ok(context)
    }
}

/// The user's name in the room. A user without one is called by their ID ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#calculating-the-display-name-for-a-user
fn display_name(member: &StoredEvent) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        displayname: Option<String>,
    }
    member.content::<Content>()?.displayname.filter(|name| !name.trim().is_empty())
}

/// A pattern that finds the name in a body. `None` for names longer than patterns may be.
fn named(display_name: &str) -> Option<Glob> {
    let name = display_name.to_lowercase();
    if name.len() > MAX_GLOB_BYTES { None } else { Glob::literal(&name) }
}

impl Fields {
    fn new(value: Option<Value>) -> Self {
        let bytes = value.as_ref().map_or(0, bytes) + 64;
        Self { value: value.map(Arc::new), bytes }
    }
}

/// The fields of an event that rules may read. Without `unsigned`, which is not part of the sent event.
///
/// The result has the shape of the event, so its memory is proportional to the event's. A list of all properties with
/// their paths would repeat a long name for everything below it.
fn fields(event: &StoredEvent) -> Option<Value> {
    let pdu = &event.pdu;
    // Parsed alone, because inside the event it would be one level deeper than the parser's limit allows.
    let content: Value = serde_json::from_str(pdu.content.get()).ok()?;
    let mut fields = serde_json::Map::new();
    let mut put = |name: &str, text: &str| fields.insert(name.to_owned(), Value::String(text.to_owned()));
    put("type", &pdu.event_type);
    put("event_id", pdu.event_id.as_str());
    put("room_id", pdu.room_id.as_str());
    put("sender", pdu.sender.as_str());
    if let Some(state_key) = &pdu.state_key {
        put("state_key", state_key);
    }
    if let Some(redacts) = &pdu.redacts {
        put("redacts", redacts.as_str());
    }
    fields.insert("content".to_owned(), content);
    Some(Value::Object(fields))
}

/// Approximate memory that a value takes.
fn bytes(value: &Value) -> u64 {
    const VALUE: usize = 32;
    /// The first node of an object's tree, which has room for eleven entries.
    const TREE: usize = 640;
    /// One more entry in it, as nodes may be half empty.
    const NAME: usize = 84;
    let (mut bytes, mut rest) = (0, vec![value]);
    while let Some(value) = rest.pop() {
        bytes += VALUE;
        match value {
            Value::String(text) => bytes += text.len(),
            Value::Array(values) => rest.extend(values),
            Value::Object(values) => {
                bytes += TREE + values.keys().map(|name| NAME + name.len()).sum::<usize>();
                rest.extend(values.values());
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    bytes as u64
}

#[cfg(test)]
mod tests;
