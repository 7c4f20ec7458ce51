//! Checks unread counts: counts again from the whole history, with the rules of a new user.

use sabha::push::unread::COLD_EVENTS;
use serde_json::Value;

use super::{End, receipts_in};
use crate::{followers::Follower, truth::TrueRoom};

pub fn check(end: &End) {
    for (number, room) in end.rooms.iter().enumerate() {
        for user in (0..end.fresh.len()).filter(|user| end.is_joined(*user, number)) {
            let shown = &end.fresh_room(user, &room.room_id)["unread_notifications"];
            compare(end, user, room, shown, "a first sync");
        }
    }
}

/// Compares the last counts that a follower was told with ours.
pub fn check_follower(end: &End, follower: &Follower) {
    for (number, room) in end.rooms.iter().enumerate() {
        let known = follower.known.rooms.get(&room.room_id).filter(|_| end.is_joined(follower.user, number));
        if let Some(known) = known {
            compare(end, follower.user, room, &known.unread, &follower.name());
        }
    }
}

fn compare(end: &End, user: usize, room: &TrueRoom, shown: &Value, who: &str) {
    let shown = (shown["notification_count"].as_u64(), shown["highlight_count"].as_u64());
    let counting = counting(end, user, room);
    // A new count begins with the latest events; one that was kept may begin earlier.
    let counts: Vec<(u64, u64)> = (0..=room.events.len().saturating_sub(COLD_EVENTS))
        .map(|first| {
            let counted = counting.iter().filter(|(index, _)| *index >= first);
            counted.fold((0, 0), |(count, highlights), (_, mentions)| (count + 1, highlights + u64::from(*mentions)))
        })
        .collect();
    if !counts.iter().any(|(count, highlights)| shown == (Some(*count), Some(*highlights))) {
        let (user_id, room_id) = (&end.scene.user_ids[user], &room.room_id);
        let text = format!("{who}, for {user_id} in {room_id}: {shown:?}, and counted again {counts:?}");
        end.fault("an unread count is wrong", text);
    }
}

/// Returns the messages and tombstones of others after the user's join and after their receipts, by index, and which of them mention the
/// user. A user who sends something has read everything before it.
fn counting(end: &End, user: usize, room: &TrueRoom) -> Vec<(usize, bool)> {
    let user_id = &end.scene.user_ids[user];
    let receipts = receipts_in(end.fresh_room(user, &room.room_id));
    let read_up_to = [user_id.clone(), format!("{user_id} in private")]
        .iter()
        .filter_map(|name| room.find(receipts.get(name)?))
        .max();
    let mut counting = Vec::new();
    let Some(came) = room.begin_of_stay(user_id) else { return counting };
    for (index, event) in room.events.iter().enumerate().skip(came + 1) {
        let is_unread = read_up_to.is_none_or(|read| index > read);
        if event.event_type == "m.room.tombstone" && event.sender != *user_id && is_unread {
            // A default rule highlights the end of a room.
            counting.push((index, true));
        }
        if event.redacted || event.state_key.is_some() {
            continue;
        }
        if event.sender == *user_id {
            if event.event_type != "m.room.redaction" {
                counting.clear();
            }
        } else if event.event_type == "m.room.message" && is_unread {
            let mentioned = event.content["m.mentions"]["user_ids"].as_array();
            counting.push((index, mentioned.is_some_and(|ids| ids.iter().any(|id| *id == **user_id))));
        }
    }
    counting
}
