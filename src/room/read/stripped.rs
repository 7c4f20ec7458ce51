//! The stripped state of invitations and knocks ([spec]), as it was stored with them
//! ([`write::stripped`](crate::room::write::stripped)). It is not kept in memory: a client gets it once.
//!
//! Promise: a client is shown the room as it was at the invitation or the knock, but nothing of an event that was redacted
//! since. The spec does not ask for that, and Synapse sends what it has stored. But nobody else here is shown that content
//! any more.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#stripped-state

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{OwnedUserId, UserId};
use sabha_federation::state_log::Lookup;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    room::{
        Room, Rooms,
        changed::{WithEvents, leave_damage},
        memberships::MemberEntry,
        write::stripped::redacted_content,
    },
    store::{Error, EventNid, Position, RoomNid, UserNid, members as rows},
};

pub(crate) use crate::{room::write::stripped::MOST_BYTES, store::changed_rooms::AT_ONCE};

/// The stripped state of an invitation or a knock, as it was stored.
#[derive(Debug)]
pub(crate) struct Stripped {
    /// The position of the membership.
    pos: Position,
    /// A JSON array.
    text: String,
    events: Vec<StrippedEvent>,
}

/// The part of a stripped event that says which event it is.
#[derive(Debug, Deserialize)]
struct StrippedEvent {
    #[serde(rename = "type")]
    event_type: String,
    state_key: String,
    sender: OwnedUserId,
}

impl Stripped {
    fn new(pos: Position, text: Option<String>) -> Result<Self, Error> {
        let text = text.unwrap_or_else(|| "[]".to_owned());
        let events = serde_json::from_str(&text).map_err(|error| Error::damaged("stripped state", error))?;
        Ok(Self { pos, text, events })
    }

    /// The sender of the membership of `user`.
    pub(crate) fn sender_of(&self, user: &UserId) -> Option<&UserId> {
        let is_membership =
            |event: &&StrippedEvent| event.event_type == "m.room.member" && event.state_key == user.as_str();
        self.events.iter().find(is_membership).map(|event| &*event.sender)
    }
}

impl Rooms {
    /// Reads the stripped states of at most [`AT_ONCE`] invitations and knocks of a local user, each with an error if it is
    /// damaged, and loads their rooms. A membership that a later commit has replaced is missing: the next answer has what
    /// came of it.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn stripped_states(
        &self,
        user: UserNid,
        members: &[MemberEntry],
    ) -> Result<HashMap<RoomNid, Result<Stripped, Error>>, Error> {
        let nids: Vec<RoomNid> = members.iter().map(|member| member.room).collect();
        let stored = rows::invite_states(&mut self.db.read().await?.conn(), user, &nids).await?;
        let with_id = stored.iter().filter_map(|stored| Some((stored.room, stored.row.room_id.as_deref()?)));
        self.load_many(with_id, WithEvents::None).await?;
        let wanted: HashMap<RoomNid, Position> = members.iter().map(|member| (member.room, member.pos)).collect();
        let is_same = |room: &RoomNid, pos: i64| wanted.get(room).is_some_and(|wanted| wanted.0 == pos);
        let states: HashMap<RoomNid, Result<Stripped, Error>> = stored
            .into_iter()
            .filter(|stored| is_same(&stored.room, stored.row.pos))
            .map(|stored| (stored.room, Stripped::new(Position(stored.row.pos), stored.row.invite_state)))
            .collect();
        self.prefetch_stripped(&states).await?;
        Ok(states)
    }

    /// Reads the events of stripped states into the cache, many at once. Events that this leaves out are read when their
    /// room is shown.
    async fn prefetch_stripped(&self, states: &HashMap<RoomNid, Result<Stripped, Error>>) -> Result<(), Error> {
        let readable = || states.iter().filter_map(|(room, state)| Some((*room, state.as_ref().ok()?)));
        let mut keys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for event in readable().flat_map(|(_, state)| &state.events) {
            keys.entry(&event.event_type).or_default().insert(&event.state_key);
        }
        for (event_type, state_keys) in keys {
            self.db.find_state_keys(event_type, state_keys).await?;
        }
        let in_memory = readable().filter_map(|(room, state)| Some((self.in_memory(room)?, state)));
        let rooms: Vec<(Arc<Room>, &Stripped)> = in_memory.collect();
        let mut events = Vec::new();
        for (room, state) in &rooms {
            let view = room.view();
            for event in &state.events {
                if let Some(key) = self.db.state_key_in_memory(&event.event_type, &event.state_key)
                    && let Lookup::Present(entry) = view.state.get_at(key.nid, state.pos)
                {
                    events.push((&**room, entry.event_nid));
                }
            }
        }
        leave_damage(self.events.prefetch(&events).await.map(drop))
    }

    /// The events of a stripped state as a JSON array, without the content of those that were redacted since. They are
    /// those of the room's state at the membership.
    ///
    /// # Errors
    /// [`Error::Damaged`] if an event cannot be read, and errors of the database.
    pub(crate) async fn show_stripped(&self, room: &Room, stripped: Stripped) -> Result<String, Error> {
        let (mut places, mut nids): (Vec<usize>, Vec<EventNid>) = (Vec::new(), Vec::new());
        for (place, event) in stripped.events.iter().enumerate() {
            let Some(key) = self.find_key(room, &event.event_type, &event.state_key).await? else { continue };
            if let Some(entry) = self.entry_at(room, key, stripped.pos).await? {
                places.push(place);
                nids.push(entry.event_nid);
            }
        }
        let events = places.into_iter().zip(self.events.list(room, &nids).await?);
        let mut redacted = events.filter(|(_, event)| event.redacted_because.is_some()).peekable();
        if redacted.peek().is_none() {
            return Ok(stripped.text);
        }
        let mut shown: Vec<Value> =
            serde_json::from_str(&stripped.text).map_err(|error| Error::damaged("stripped state", error))?;
        for (place, event) in redacted {
            if let Some(shown) = shown.get_mut(place) {
                shown["content"] = redacted_content(&event.pdu);
            }
        }
        Ok(Value::from(shown).to_string())
    }
}
