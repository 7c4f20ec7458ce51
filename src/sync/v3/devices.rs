//! What end-to-end encryption needs of `/sync`: changed device lists, messages to this device, and how many keys are left.

use std::collections::BTreeSet;

use super::{Look, membership::RoomNews};
use crate::{
    room::{Room, state_log::Membership},
    store::{Error, KeyNid, Position, UserNid},
    sync::json::{Array, Object},
};

/// How many messages to a device go into one answer; the rest follows in the next.
const MESSAGES: usize = 100;

/// Writes whose keys to look up again, and whose to forget; whether there was anyone.
pub(super) async fn write_lists(look: &Look<'_>, rooms: &RoomNews, object: &mut Object<'_>) -> Result<bool, Error> {
    let Some(since) = look.since else { return Ok(false) };
    let Look { app, caller, .. } = look;
    let mut changed: BTreeSet<String> = app
        .keys
        .device_lists_changed(&app.rooms, caller.user.nid, since.position, look.upto)
        .await?
        .into_iter()
        .map(|user_id| user_id.as_str().to_owned())
        .collect();
    let mut gone: BTreeSet<String> = BTreeSet::new();
    for room in &rooms.newly_joined {
        changed.extend(members(look, room, look.upto).await?);
    }
    for room in &rooms.joined {
        let Some(since) = room.since else { continue };
        if room.room.last_pos() <= since {
            continue;
        }
        for (key, entry) in app.rooms.state_changes(&room.room, since, look.upto).await? {
            let Some(entry) = entry.filter(|entry| entry.membership.is_some()) else { continue };
            let was_joined = was_joined(look, &room.room, key, since).await?;
            let event = app.rooms.events.get(&room.room, entry.event_nid).await?;
            let Some(user_id) = event.pdu.state_key.clone().filter(|id| id != caller.user_id().as_str()) else {
                continue;
            };
            match (was_joined, entry.membership == Some(Membership::Join)) {
                (false, true) => _ = changed.insert(user_id),
                (true, false) => _ = gone.insert(user_id),
                _ => {}
            }
        }
    }
    for room in &rooms.left {
        if room.since.is_some() {
            gone.extend(members(look, &room.room, room.upto).await?);
        }
    }
    let mut left = Vec::new();
    for user_id in gone {
        if !changed.contains(&user_id) && !still_shares(look, &user_id).await? {
            left.push(user_id);
        }
    }
    if changed.is_empty() && left.is_empty() {
        return Ok(false);
    }
    let lists = serde_json::json!({ "changed": changed, "left": left });
    object.raw("device_lists", &lists.to_string());
    Ok(true)
}

async fn was_joined(look: &Look<'_>, room: &Room, key: KeyNid, since: Position) -> Result<bool, Error> {
    let entry = look.app.rooms.entry_at(room, key, since).await?;
    Ok(entry.is_some_and(|entry| entry.membership == Some(Membership::Join)))
}

/// The other members of a room.
async fn members(look: &Look<'_>, room: &Room, upto: Position) -> Result<Vec<String>, Error> {
    let events = look.app.rooms.member_events(room, upto, |membership| membership == Membership::Join).await?;
    let own = look.caller.user_id().as_str();
    Ok(events.iter().filter_map(|event| event.pdu.state_key.clone()).filter(|user_id| user_id != own).collect())
}

async fn still_shares(look: &Look<'_>, user_id: &str) -> Result<bool, Error> {
    let Ok(user_id) = ruma::UserId::parse(user_id) else { return Ok(false) };
    let other: Option<UserNid> = look.app.db.find_user(&user_id).await?.map(|user| user.nid);
    match other {
        Some(other) => look.app.rooms.share_a_room(look.caller.user.nid, other).await,
        None => Ok(false),
    }
}

/// Writes the messages to this device; whether there were any, and, if some are left, up to where these go.
pub(super) async fn write_messages(
    look: &Look<'_>,
    object: &mut Object<'_>,
) -> Result<(bool, Option<Position>), Error> {
    let since = look.since.map_or(Position::ZERO, |token| token.to_device.unwrap_or(token.position));
    let (messages, next) = look.app.keys.to_device_messages(look.caller.device_nid, since, look.upto, MESSAGES).await?;
    if messages.is_empty() {
        return Ok((false, None));
    }
    object.events("to_device", |array| messages.iter().for_each(|message| array.raw(message.get())));
    Ok((true, (next < look.upto).then_some(next)))
}

/// Writes how many one-time keys are left; whether that has changed since the client last asked.
pub(super) async fn write_counts(look: &Look<'_>, object: &mut Object<'_>) -> Result<bool, Error> {
    let counts = look.app.keys.counts(look.caller.device_nid).await?;
    let mut json = Object::begin(object.key("device_one_time_keys_count"));
    for (algorithm, count) in &counts.one_time {
        json.raw(algorithm, &count.to_string());
    }
    json.end();
    let mut unused = Array::begin(object.key("device_unused_fallback_key_types"));
    for algorithm in &counts.unused_fallback {
        crate::room::event::write_string(unused.item(), algorithm);
    }
    unused.end();
    Ok(look.since.is_some_and(|since| counts.changed_at > since.position && counts.changed_at <= look.upto))
}
