//! Checks `/state`, `/messages`, `/joined_rooms` and an initial sync against the true history.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{End, rooms_in};
use crate::{
    api::{Request, v3},
    followers::{
        known::{events, text},
        ways::names,
    },
    plan::Op,
    truth::{TrueRoom, read_all},
    world::{Act, Ending},
};

pub async fn check(end: &End, user: usize) {
    let (api, device, user_id) = (&end.scene.api, &end.scene.devices[user], &end.scene.user_ids[user]);
    memberships(end, user).await;
    for (number, room) in end.rooms.iter().enumerate() {
        let forgets = |act: &&Act| act.user == user && act.op == Op::Forget { room: number };
        let may_be_forgotten = end.acts.iter().filter(forgets).any(|act| act.may_be_done());
        let Some(horizon) = room.horizon(user_id) else { continue };
        if !end.is_joined(user, number) && may_be_forgotten {
            continue;
        }
        let answer = api.ask(&device.token, &Request::get(v3(["rooms", &room.room_id, "state"]))).await;
        if answer.status != 200 {
            let text = format!("{user_id}, {} in {}", stays(room, user_id), room.room_id);
            end.fault("a user may not read a room that they were in", format!("{text}: {}", answer.text));
            continue;
        }
        let state = answer.json;
        let found = state_in(state.as_array().map(Vec::as_slice).unwrap_or_default());
        compare_state(end, &format!("/state of {} for {user_id}", room.room_id), &room.state_at(horizon), &found);
        let messages = read_all(api, &device.token, &room.room_id).await;
        for event in &messages {
            hidden(end, room, event);
        }
        let found: Vec<String> = messages.iter().rev().map(|event| text(event, "event_id")).collect();
        let wanted: Vec<String> = (0..=horizon)
            .filter(|index| room.may_see(user_id, *index))
            .map(|index| room.events[index].event_id.clone())
            .collect();
        if found != wanted {
            let text = format!("of {} for {user_id}: {}", room.room_id, difference(room, &wanted, &found));
            end.fault("/messages is not what the user may see", text);
        }
        if end.is_joined(user, number) {
            first_sync(end, user, room);
        }
    }
}

/// Lists the memberships of a user, one after the other.
fn stays(room: &TrueRoom, user_id: &str) -> String {
    let members = room.events.iter().filter(|event| event.is_member(user_id));
    let memberships: Vec<&str> = members.filter_map(|event| event.content["membership"].as_str()).collect();
    memberships.join(", ")
}

async fn memberships(end: &End, user: usize) {
    let (device, user_id) = (&end.scene.devices[user], &end.scene.user_ids[user]);
    let with = |wanted: &str| -> BTreeSet<String> {
        let rooms = end.rooms.iter().filter(|room| room.membership(user_id) == wanted);
        rooms.map(|room| room.room_id.clone()).collect()
    };
    let answer = end.scene.api.need(&device.token, &Request::get(v3(["joined_rooms"]))).await;
    // A user who upgrades a room joins its successor, which has no other members.
    let mut joined = with("join");
    joined.extend(end.rooms.iter().flat_map(|room| successors(room, user_id)));
    // An upgrade that lost the lease on its way may have made a successor that the old room does not name. Otherwise it
    // runs to its end, even if its client hangs up.
    let is_cut_off =
        |act: &Act| act.user == user && matches!(act.op, Op::Upgrade { .. }) && act.ending == Ending::Unknown;
    let may_have_more = end.scene.api.doors.are_shared().await && end.acts.iter().any(is_cut_off);
    let known = |rooms: BTreeSet<String>| -> BTreeSet<String> {
        let is_ours = |room_id: &String| end.rooms.iter().any(|room| room.room_id == *room_id);
        rooms.into_iter().filter(|room_id| !may_have_more || joined.contains(room_id) || is_ours(room_id)).collect()
    };
    let views = [
        ("/joined_rooms", known(names(&answer["joined_rooms"])), joined.clone()),
        ("the first sync's joined rooms", known(rooms_in(&end.fresh[user], "join")), joined.clone()),
        ("the first sync's invitations", rooms_in(&end.fresh[user], "invite"), with("invite")),
    ];
    for (what, found, wanted) in views {
        if found != wanted {
            end.fault("rooms of a user are wrong", format!("{what} of {user_id}: {found:?}, not {wanted:?}"));
        }
    }
}

/// Returns the rooms that the user made out of this one.
fn successors<'a>(room: &'a TrueRoom, user_id: &'a str) -> impl Iterator<Item = String> + 'a {
    let tombstones = room.events.iter().filter(|event| event.event_type == "m.room.tombstone");
    tombstones.filter(move |event| event.sender == user_id).map(|event| text(&event.content, "replacement_room"))
}

/// Checks that an initial sync tells the whole state, before the timeline or in it.
fn first_sync(end: &End, user: usize, room: &TrueRoom) {
    let user_id = &end.scene.user_ids[user];
    let fresh = end.fresh_room(user, &room.room_id);
    let told: Vec<Value> = events(&fresh["state"]).iter().chain(events(&fresh["timeline"])).cloned().collect();
    let wanted = room.state_at(room.events.len());
    let what = format!("the state in a first sync of {} for {user_id}", room.room_id);
    compare_state(end, &what, &wanted, &state_in(&told));
}

pub fn state_in(events: &[Value]) -> BTreeMap<(String, String), String> {
    let entry =
        |event: &Value| Some(((text(event, "type"), event["state_key"].as_str()?.to_owned()), text(event, "event_id")));
    events.iter().filter_map(entry).collect()
}

pub fn compare_state(
    end: &End,
    what: &str,
    wanted: &BTreeMap<(String, String), String>,
    found: &BTreeMap<(String, String), String>,
) {
    let of = |event_id: Option<&String>| match event_id {
        None => "nothing".to_owned(),
        Some(event_id) => {
            let mut rooms = end.rooms.iter();
            rooms
                .find_map(|room| Some(room.describe(room.find(event_id)?)))
                .unwrap_or_else(|| format!("{event_id}, which is in no timeline"))
        }
    };
    for key in wanted.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        let (wanted, found) = (wanted.get(key), found.get(key));
        if wanted != found {
            end.fault("state is wrong", format!("{what}: {key:?} is {}, not {}", of(found), of(wanted)));
        }
    }
}

/// Describes missing events, extra events, or the wrong order.
pub fn difference(room: &TrueRoom, wanted: &[String], found: &[String]) -> String {
    let describe = |event_id: &String| match room.find(event_id) {
        Some(index) => room.describe(index),
        None => format!("{event_id}, which nobody else knows"),
    };
    let lacking: Vec<String> = wanted.iter().filter(|event_id| !found.contains(event_id)).map(describe).collect();
    let extra: Vec<String> = found.iter().filter(|event_id| !wanted.contains(event_id)).map(describe).collect();
    if lacking.is_empty() && extra.is_empty() {
        return format!("another order, or twice: {:?}", found.iter().map(describe).collect::<Vec<_>>());
    }
    format!("lacks {lacking:?}, and has {extra:?} too much")
}

/// Checks that no initial sync shows redacted content.
pub fn check_redactions(end: &End) {
    for (user, fresh) in end.fresh.iter().enumerate() {
        for room in end.rooms.iter().filter(|room| !end.fresh_room(user, &room.room_id).is_null()) {
            let fresh = &fresh["rooms"]["join"][&room.room_id];
            for event in events(&fresh["state"]).iter().chain(events(&fresh["timeline"])) {
                hidden(end, room, event);
            }
        }
    }
}

/// Checks that an event contains no redacted text, either its own or in a copy of the event that it replaces.
fn hidden(end: &End, room: &TrueRoom, event: &Value) {
    // The last power levels of a room that was upgraded are a copy of ours, with the text.
    if room.find(&text(event, "event_id")).is_some_and(|index| room.closes(index)) {
        return;
    }
    for act in end.acts.iter().filter(|act| act.is_acknowledged() && matches!(act.op, Op::Redact { .. })) {
        let Some(target) = act.about.as_deref() else { continue };
        let written = end.acts.iter().find(|other| other.event_id() == Some(target));
        let Some(written) = written.filter(|_| room.find(target).is_some()) else { continue };
        // Power levels and the visibility keep most of their content, but not our text.
        let quoted = format!("\"{}\"", written.nonce);
        let mut copy = event.clone();
        // The transaction ID contains the nonce, but is not content.
        if let Some(unsigned) = copy["unsigned"].as_object_mut() {
            unsigned.remove("transaction_id");
        }
        if copy.to_string().contains(&quoted) {
            let text = format!("{target} was redacted by {}, and {copy} holds it", act.nonce);
            end.fault("redacted content is still shown", text);
        }
    }
}
