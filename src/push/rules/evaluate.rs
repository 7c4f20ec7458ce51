//! Evaluation of an event against push rules ([spec]).
//!
//! Promise: the answer depends on the event, the rules and the state of the room when the event was sent. Nothing that
//! happened later changes it, except a redaction that removes a name or power levels. The fields read from an event are
//! shared by all classes of rules. Next: [`super::compiled`], which matches them against the rules.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules

use std::{convert::Infallible, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use ruma::{UInt, push::PushConditionPowerLevelsCtx};
use sabha_federation::Pdu;
use serde::Deserialize;
use serde_json::Value;

use super::{
    changes::MAX_GLOB_BYTES,
    compiled::{Asked, CompiledRules},
    judgement::Judgement,
};
use crate::{
    glob::Glob,
    room::{
        Room, Rooms,
        event::StoredEvent,
        events::Redactions,
        read::{circumstances::Circumstances, timeline::PlainEvent},
    },
    store::{Error, EventNid, KeyNid, Position, RoomNid, vocabulary::User},
};

/// Approximate number of cached events, a few kB each: those that whole rooms are reading now.
const CACHED_EVENTS: usize = 1_000;

/// Approximate memory for cached events. One event of 64 KiB can take 7 MiB when it is made of tiny objects.
const CACHED_EVENT_BYTES: u64 = 16 * 1024 * 1024;

/// Number of rooms with cached power levels: those where people are talking now.
const CACHED_LEVELS: usize = 5_000;

/// Number of cached display names, one for each user in each room where people are talking now.
const CACHED_NAMES: usize = 20_000;

/// Steps of matching that reading one byte of an event costs. An event may be made of thousands of tiny objects.
const STEPS_OF_BYTE: usize = 4;

/// The verdict of the rules about one event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    pub notify: bool,
    /// Set only with `notify`.
    pub highlight: bool,
}

/// The power levels of one state event, as rules need them.
struct Levels {
    event: Option<EventNid>,
    /// The redactions before the event was read. A later one may have changed it.
    redactions: Redactions,
    levels: PushConditionPowerLevelsCtx,
}

/// The display name in one member event, as rules need it.
pub(in crate::push) struct DisplayName {
    redactions: Redactions,
    /// Matches the name in lower case. `None` for names longer than patterns may be.
    glob: Option<Glob>,
}

impl DisplayName {
    pub(in crate::push) fn glob(&self) -> Option<&Glob> {
        self.glob.as_ref()
    }
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
    levels: Cache<RoomNid, Arc<Levels>>,
    names: Cache<EventNid, Arc<DisplayName>>,
}

impl Default for Evaluator {
    fn default() -> Self {
        Self {
            events: Cache::with_weighter(CACHED_EVENTS, CACHED_EVENT_BYTES, ByBytes),
            levels: Cache::new(CACHED_LEVELS),
            names: Cache::new(CACHED_NAMES),
        }
    }
}

impl Evaluator {
    /// Evaluates `rules` for an event that was sent in the circumstances `held`. A malformed event notifies nobody,
    /// because its sender must not be able to break anybody's `/sync`. Adds the work of the event to `steps`, cached or
    /// not.
    pub(in crate::push) async fn judge(
        &self,
        rooms: &Rooms,
        room: &Room,
        rules: &CompiledRules,
        event: &PlainEvent,
        held: Circumstances,
        steps: &mut usize,
    ) -> Result<Judgement, Error> {
        *steps += event.pdu.content.get().len() * STEPS_OF_BYTE;
        let Some(value) = self.fields(event).value else { return Ok(Judgement::default()) };
        let levels = self.levels(rooms, room, held).await?;
        let members = UInt::try_from(held.joined).unwrap_or(UInt::MAX);
        let asked = Asked { members, power_levels: Some(&levels.levels) };
        Ok(rules.judge(&value, &asked, steps).await)
    }

    fn fields(&self, event: &PlainEvent) -> Fields {
        let fields = || Ok::<_, Infallible>(Fields::new(fields(&event.pdu)));
        let Ok(fields) = self.events.get_or_insert_with(&event.nid, fields);
        fields
    }

    async fn levels(&self, rooms: &Rooms, room: &Room, held: Circumstances) -> Result<Arc<Levels>, Error> {
        let redactions = rooms.events.redactions();
        let fits = |known: &Arc<Levels>| known.event == held.power_levels && known.redactions == redactions;
        if let Some(known) = self.levels.get(&room.nid).filter(fits) {
            return Ok(known);
        }
        let levels = rooms.power_levels_in(room, held.power_levels, held.from).await?.into();
        let levels = Arc::new(Levels { event: held.power_levels, redactions, levels });
        self.levels.insert(room.nid, Arc::clone(&levels));
        Ok(levels)
    }

    /// The display name in a member event, if it is cached.
    pub(in crate::push) fn display_name_in_memory(&self, rooms: &Rooms, member: EventNid) -> Option<Arc<DisplayName>> {
        self.known_name(member, rooms.events.redactions())
    }

    fn known_name(&self, member: EventNid, redactions: Redactions) -> Option<Arc<DisplayName>> {
        self.names.get(&member).filter(|known| known.redactions == redactions)
    }

    /// The user's display name in the room as of `upto`, by the key of their membership in the room's state.
    pub(in crate::push) async fn display_name(
        &self,
        rooms: &Rooms,
        room: &Room,
        (user, member_key): (&User, Option<KeyNid>),
        upto: Position,
    ) -> Result<Arc<DisplayName>, Error> {
        let redactions = rooms.events.redactions();
        let member = match member_key {
            Some(key) => rooms.entry_at(room, key, upto).await?,
            None => None,
        };
        let Some(nid) = member.map(|entry| entry.event_nid) else {
            return Ok(Arc::new(DisplayName { redactions, glob: named(user.user_id.as_str()) }));
        };
        if let Some(known) = self.known_name(nid, redactions) {
            return Ok(known);
        }
        let name = display_name(&*rooms.events.get(room, nid).await?);
        let glob = named(name.as_deref().unwrap_or(user.user_id.as_str()));
        let name = Arc::new(DisplayName { redactions, glob });
        self.names.insert(nid, Arc::clone(&name));
        Ok(name)
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
fn fields(pdu: &Pdu) -> Option<Value> {
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
