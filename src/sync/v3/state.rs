//! The state of a room in an answer, and its summary.
//!
//! Promise: state before the timeline, plus the state events of the timeline, is the state after it; and the state a client
//! had at `since`, plus what it is sent, is the state it would have been sent whole.

use std::{collections::BTreeSet, sync::Arc};

use ruma::api::client::filter::LazyLoadOptions;
use serde_json::json;

use super::{Look, joined::Timeline, membership::RoomLook};
use crate::{
    room::{
        event::StoredEvent,
        state_log::{Membership, StateEntry},
    },
    store::{Error, KeyNid, Position},
    sync::filter::{accepts_all, accepts_event, accepts_room},
};

/// How many members name a room that has no name ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary
const HEROES: usize = 5;

/// The state events for the answer.
pub(super) async fn load(
    look: &Look<'_>,
    room: &RoomLook,
    timeline: &Timeline,
) -> Result<Vec<Arc<StoredEvent>>, Error> {
    let filter = &look.request.filter.room.state;
    if !accepts_room(filter.rooms.as_deref(), &filter.not_rooms, &room.room.room_id) {
        return Ok(Vec::new());
    }
    if room.only_departure {
        return Ok(Vec::new());
    }
    // Changes that the filter of the timeline hides are told here, or they would be told nowhere.
    let hides = !accepts_all(&look.request.filter.room.timeline);
    let at = if look.request.state_after || hides { room.upto } else { timeline.start };
    let full = room.since.is_none() || look.request.full_state;
    let mut entries = entries(look, room, at, full).await?;
    if !look.request.state_after {
        // What the timeline shows is not told twice.
        let shown: BTreeSet<_> = timeline.events.iter().map(|(_, event)| event.nid).collect();
        entries.retain(|(_, entry)| !shown.contains(&entry.event_nid));
    }
    if let LazyLoadOptions::Enabled { include_redundant_members } = filter.lazy_load_options {
        lazy(look, room, timeline, at, &mut entries, full, include_redundant_members).await?;
    }
    let nids: Vec<_> = entries.iter().map(|(_, entry)| entry.event_nid).collect();
    let mut events = look.app.rooms.events.list(&room.room, &nids).await?;
    events.retain(|event| accepts_event(filter, event));
    Ok(events)
}

/// The state at `at`, or what of it has changed since the client last asked.
async fn entries(
    look: &Look<'_>,
    room: &RoomLook,
    at: Position,
    full: bool,
) -> Result<Vec<(KeyNid, StateEntry)>, Error> {
    let rooms = &look.app.rooms;
    match room.since {
        Some(since) if !full => {
            if since >= at {
                return Ok(Vec::new());
            }
            let changes = rooms.state_changes(&room.room, since, at).await?;
            Ok(changes.into_iter().filter_map(|(key, entry)| entry.map(|entry| (key, entry))).collect())
        }
        _ => rooms.state_at(&room.room, at).await,
    }
}

/// Of the members, keeps those whose events the client sees, and itself; adds those it does not know yet. Changes are all
/// kept: the client may know any member, from earlier timelines or from `/members`.
async fn lazy(
    look: &Look<'_>,
    room: &RoomLook,
    timeline: &Timeline,
    at: Position,
    entries: &mut Vec<(KeyNid, StateEntry)>,
    full: bool,
    redundant: bool,
) -> Result<(), Error> {
    let Look { app, caller, .. } = look;
    let mut senders: BTreeSet<&str> = timeline.events.iter().map(|(_, event)| event.sender().as_str()).collect();
    if full {
        senders.insert(caller.user_id().as_str());
    }
    match room.since {
        None => app.lazy_members.forget(caller.device_nid, room.room.nid),
        Some(since) => app.lazy_members.rewind(caller.device_nid, room.room.nid, since),
    }
    let in_timeline = |event_nid| timeline.events.iter().any(|(_, event)| event.nid == event_nid);
    let keys: Vec<KeyNid> =
        senders.iter().filter_map(|user| app.db.known_state_key("m.room.member", user)).map(|key| key.nid).collect();
    if full {
        entries.retain(|(key, entry)| entry.membership.is_none() || keys.contains(key));
    }
    for key in keys {
        let listed = entries.iter().any(|(other, _)| *other == key);
        if !listed {
            let Some(entry) = app.rooms.entry_at(&room.room, key, at).await? else { continue };
            let device = caller.device_nid;
            let known = app.lazy_members.knows(device, room.room.nid, key, entry.event_nid, look.since_pos());
            if (known && !redundant) || in_timeline(entry.event_nid) {
                continue;
            }
            entries.push((key, entry));
        }
        if let Some((_, entry)) = entries.iter().find(|(other, _)| *other == key) {
            app.lazy_members.send(caller.device_nid, room.room.nid, key, entry.event_nid, look.upto);
        }
    }
    Ok(())
}

/// The counts of members, and who names the room; `None` if no membership has changed.
pub(super) async fn summary(look: &Look<'_>, room: &RoomLook) -> Result<Option<String>, Error> {
    let rooms = &look.app.rooms;
    if let Some(since) = room.since.filter(|_| !look.request.full_state) {
        let nothing_new = room.room.last_pos() <= since;
        if nothing_new {
            return Ok(None);
        }
        let changes = rooms.state_changes(&room.room, since, room.upto).await?;
        let names = |key: &KeyNid| {
            ["m.room.name", "m.room.canonical_alias"]
                .iter()
                .any(|kind| look.app.db.known_state_key(kind, "").is_some_and(|known| known.nid == *key))
        };
        if !changes.iter().any(|(key, entry)| names(key) || entry.is_some_and(|entry| entry.membership.is_some())) {
            return Ok(None);
        }
    }
    let (joined, invited) = rooms.member_counts(&room.room, room.upto).await?;
    let mut summary = json!({ "m.joined_member_count": joined, "m.invited_member_count": invited });
    let named = |kind: &'static str| rooms.state_event(&room.room, kind, "", room.upto);
    let is_named = is_set(named("m.room.name").await?.as_deref(), "name")
        || is_set(named("m.room.canonical_alias").await?.as_deref(), "alias");
    if !is_named {
        summary["m.heroes"] = heroes(look, room).await?.into();
    }
    Ok(Some(summary.to_string()))
}

fn is_set(event: Option<&StoredEvent>, field: &str) -> bool {
    let content = event.and_then(|event| event.content::<serde_json::Map<String, serde_json::Value>>());
    content.and_then(|content| content.get(field)?.as_str().map(|text| !text.is_empty())).unwrap_or(false)
}

/// The first members beside the user: those who are there or invited, or else those who were.
async fn heroes(look: &Look<'_>, room: &RoomLook) -> Result<Vec<String>, Error> {
    let rooms = &look.app.rooms;
    let own = look.app.db.known_state_key("m.room.member", look.caller.user_id().as_str()).map(|key| key.nid);
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
    Ok(events.iter().filter_map(|event| event.pdu.state_key.clone()).collect())
}
