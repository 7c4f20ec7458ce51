//! A room's summary in an answer: its member counts, and the members that name it if it has no name.

use sabha_federation::state_log::{Membership, StateEntry};
use serde_json::json;

use super::{Look, membership::RoomLook};
use crate::{
    room::event::StoredEvent,
    store::{Error, KeyNid},
};

/// The number of members that name a room without a name ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary
const HEROES: usize = 5;

/// The summary of a room.
pub(super) struct Summary {
    joined: usize,
    invited: usize,
    /// `None` if the room has a name.
    heroes: Option<Vec<Hero>>,
}

struct Hero {
    user_id: String,
    key: KeyNid,
}

impl Summary {
    /// Returns the room's summary, or `None` if nothing in it has changed.
    pub(super) async fn load(look: &Look<'_>, room: &RoomLook) -> Result<Option<Self>, Error> {
        if !has_changed(look, room).await? {
            return Ok(None);
        }
        let rooms = &look.app.rooms;
        let (joined, invited) = rooms.member_counts(&room.room, room.upto).await?;
        let named = |kind: &'static str| rooms.state_event(&room.room, kind, "", room.upto);
        let is_named = is_set(named("m.room.name").await?.as_deref(), "name")
            || is_set(named("m.room.canonical_alias").await?.as_deref(), "alias");
        let heroes = if is_named { None } else { Some(heroes(look, room).await?) };
        Ok(Some(Self { joined, invited, heroes }))
    }

    /// The keys of the member events without which a client cannot show the heroes.
    pub(super) fn hero_keys(&self) -> Vec<KeyNid> {
        self.heroes.iter().flatten().map(|hero| hero.key).collect()
    }

    pub(super) fn json(&self) -> String {
        let mut summary = json!({ "m.joined_member_count": self.joined, "m.invited_member_count": self.invited });
        if let Some(heroes) = &self.heroes {
            summary["m.heroes"] = heroes.iter().map(|hero| hero.user_id.as_str()).collect();
        }
        summary.to_string()
    }
}

/// Returns whether a membership or a name has changed since the client's last request.
async fn has_changed(look: &Look<'_>, room: &RoomLook) -> Result<bool, Error> {
    let Some(since) = room.since.filter(|_| !look.request.full_state) else { return Ok(true) };
    if room.room.last_pos() <= since {
        return Ok(false);
    }
    let rooms = &look.app.rooms;
    let name = rooms.find_key(&room.room, "m.room.name", "").await?;
    let alias = rooms.find_key(&room.room, "m.room.canonical_alias", "").await?;
    let names = |key: KeyNid| [name, alias].contains(&Some(key));
    let changes = rooms.state_changes(&room.room, since, room.upto).await?;
    Ok(changes.iter().any(|(key, entry)| names(*key) || entry.is_some_and(|entry| entry.membership.is_some())))
}

fn is_set(event: Option<&StoredEvent>, field: &str) -> bool {
    let content = event.and_then(|event| event.content::<serde_json::Map<String, serde_json::Value>>());
    content.and_then(|content| content.get(field)?.as_str().map(|text| !text.is_empty())).unwrap_or(false)
}

/// The first members besides the user: those who are joined or invited, or else those who have left.
async fn heroes(look: &Look<'_>, room: &RoomLook) -> Result<Vec<Hero>, Error> {
    let rooms = &look.app.rooms;
    let own = rooms.find_key(&room.room, "m.room.member", look.caller.user_id().as_str()).await?;
    let hero = |event: &StoredEvent| Some(Hero { user_id: event.pdu.state_key.clone()?, key: event.key? });
    if let Some(nids) = room.room.heroes(room.upto) {
        let events = rooms.events.list(&room.room, &nids).await?;
        let others = events.iter().filter(|event| event.key != own).filter_map(|event| hero(event));
        let heroes: Vec<Hero> = others.take(HEROES).collect();
        if !heroes.is_empty() {
            return Ok(heroes);
        }
    }
    let state = rooms.state_at(&room.room, room.upto).await?;
    let members = |wanted: fn(Membership) -> bool| {
        let mut found: Vec<&(KeyNid, StateEntry)> =
            state.iter().filter(|(key, entry)| Some(*key) != own && entry.membership.is_some_and(wanted)).collect();
        found.sort_unstable_by_key(|(_, entry)| entry.pos);
        found.into_iter().take(HEROES).map(|(_, entry)| entry.event_nid).collect::<Vec<_>>()
    };
    let mut nids = members(|membership| matches!(membership, Membership::Join | Membership::Invite));
    if nids.is_empty() {
        nids = members(|membership| matches!(membership, Membership::Leave | Membership::Ban));
    }
    let events = rooms.events.list(&room.room, &nids).await?;
    Ok(events.iter().filter_map(|event| hero(event)).collect())
}
