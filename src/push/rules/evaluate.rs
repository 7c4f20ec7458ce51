//! Evaluation of an event against push rules ([spec]).
//!
//! Promise: the answer depends on the event, the rules and the state of the room when the event was sent. Nothing that
//! happened later changes it, except a redaction that removes a name or power levels. The fields read from an event are
//! shared by all classes of rules. Next: [`super::compiled`], which matches them against the rules.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules

use std::{convert::Infallible, sync::Arc};

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
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    room::{
        Room, Rooms,
        event::StoredEvent,
        events::Redactions,
        read::{circumstances::Circumstances, timeline::PlainEvent},
    },
    store::{Error, EventNid, KeyNid, Position, RoomNid, vocabulary::User},
};

/// Approximate memory of power levels without users, and of each user among them.
const LEVELS_BYTES: usize = 400;
const LEVEL_BYTES: usize = 96;

/// Approximate memory of a display name besides its pattern.
const NAME_BYTES: usize = 120;

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

impl HasBytes for Levels {
    fn bytes(&self) -> u64 {
        let names: usize = self.levels.users.keys().map(|user_id| user_id.as_str().len()).sum();
        (LEVELS_BYTES + LEVEL_BYTES * self.levels.users.len() + names) as u64
    }
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

impl HasBytes for DisplayName {
    fn bytes(&self) -> u64 {
        (NAME_BYTES + self.glob.as_ref().map_or(0, Glob::bytes)) as u64
    }
}

/// The fields of an event that rules may read, with their size. `None` for a malformed event, which notifies nobody.
#[derive(Clone)]
struct Fields {
    value: Option<Arc<Value>>,
    bytes: u64,
}

impl HasBytes for Fields {
    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The caches of evaluations, for rooms where people are talking now.
pub(in crate::push) struct Evaluator {
    /// Events that whole rooms are reading. One of 64 KiB can take 7 MiB when it is made of tiny objects; an event that
    /// does not fit into its piece of the cache is not cached.
    events: Arc<ByteCache<EventNid, Fields>>,
    levels: Arc<ByteCache<RoomNid, Arc<Levels>>>,
    names: Arc<ByteCache<EventNid, Arc<DisplayName>>>,
}

impl Evaluator {
    pub(in crate::push) fn new(budget: &Budget) -> Self {
        Self {
            events: budget.cache(Part::EventFields),
            levels: budget.cache(Part::PowerLevels),
            names: budget.cache(Part::DisplayNames),
        }
    }

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
