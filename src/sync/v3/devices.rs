//! The parts of `/sync` for end-to-end encryption: changed device lists, messages to this device, counts of keys.

use super::{Look, SyncError, size::Size};
use crate::{
    keys::KeyCounts,
    room::event::{write_number, write_string},
    store::{Error, Position},
    sync::{
        device_lists::{ChangedRooms, DeviceLists},
        json::{Array, Object},
        visit::ToVisit,
    },
};

/// The maximum number of to-device messages in one answer; the rest follows in the next.
const MESSAGES: usize = 100;

/// The users whose device lists changed since the client's last request. A client on its first request knows none.
///
/// Only rooms with news are examined. If much state changed in them, the answer waits for its turn before any of it is
/// read.
pub(super) async fn lists(look: &Look<'_>, visit: &ToVisit, size: &mut Size<'_>) -> Result<DeviceLists, SyncError> {
    let Look { app, caller, request, since, upto, .. } = look;
    let Some(since) = since else { return Ok(DeviceLists::default()) };
    let left_out = &request.hints.left_out;
    let changed = ChangedRooms::find(app, &caller.user, (since.position, *upto), left_out, visit).await?;
    if changed.may_be_large() {
        size.may_be_large().await?;
    }
    Ok(DeviceLists::of(app, &caller.user, changed).await?)
}

/// Writes the users whose keys to fetch again, and those to forget. Returns whether there were any.
pub(super) fn write_lists(lists: &DeviceLists, object: &mut Object<'_>) -> bool {
    if lists.is_empty() {
        return false;
    }
    let lists = serde_json::json!({ "changed": lists.changed, "left": lists.left });
    object.raw("device_lists", &lists.to_string());
    true
}

/// Writes the messages to this device. Returns whether there were any, and, if some are left, the position up to which
/// they were written.
pub(super) async fn write_messages(
    look: &Look<'_>,
    object: &mut Object<'_>,
) -> Result<(bool, Option<Position>), Error> {
    let since = look.since.map_or(Position::BEFORE_ALL, |token| token.to_device.unwrap_or(token.position));
    let (messages, next) = look.app.keys.to_device_messages(look.caller.device_nid, since, look.upto, MESSAGES).await?;
    if messages.is_empty() {
        return Ok((false, None));
    }
    object.events("to_device", |array| messages.iter().for_each(|message| array.raw(message.get())));
    Ok((true, (next < look.upto).then_some(next)))
}

/// Writes how many one-time keys are left. Returns whether that changed since the client's last request.
pub(super) async fn write_counts(look: &Look<'_>, object: &mut Object<'_>) -> Result<bool, Error> {
    Ok(write_known_counts(look, &*look.app.keys.counts(look.caller.device_nid).await?, object))
}

/// Writes these counts, as [`write_counts`] does.
pub(super) fn write_known_counts(look: &Look<'_>, counts: &KeyCounts, object: &mut Object<'_>) -> bool {
    let mut json = Object::begin(object.key("device_one_time_keys_count"));
    for (algorithm, count) in &counts.one_time {
        write_number(json.key(algorithm), count);
    }
    json.end();
    let mut unused = Array::begin(object.key("device_unused_fallback_key_types"));
    for algorithm in &counts.unused_fallback {
        write_string(unused.item(), algorithm);
    }
    unused.end();
    look.since.is_some_and(|since| counts.changed_at > since.position && counts.changed_at <= look.upto)
}
