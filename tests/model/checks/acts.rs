//! Checks that acknowledged events exist, once and in order, and that refused events do not exist.

use std::collections::HashMap;

use super::End;
use crate::{
    plan::Op,
    truth::TrueRoom,
    world::{Act, Ending},
};

pub fn check(end: &End) {
    for (number, room) in end.rooms.iter().enumerate() {
        let acts: Vec<&Act> = end.acts.iter().filter(|act| act.op.room() == Some(number)).collect();
        let found = once(end, room);
        let mut placed: Vec<(usize, &Act)> = Vec::new();
        for act in &acts {
            let at = match act.event_id() {
                Some(event_id) => room.find(event_id),
                None => found.get(act.nonce.as_str()).copied(),
            };
            placed.extend(at.map(|at| (at, *act)));
            presence(end, room, act, at);
        }
        in_order(end, room, placed);
        nobody_comes_unasked(end, room, &acts);
    }
}

/// Returns the index of each nonce. A nonce that exists twice is a fault.
fn once<'a>(end: &End, room: &'a TrueRoom) -> HashMap<&'a str, usize> {
    let mut found: HashMap<&str, usize> = HashMap::new();
    for (index, event) in room.events.iter().enumerate() {
        // A changed profile repeats the member event, with the content that its owner gave it.
        let repeats = index > 0
            && event.content["membership"] == "join"
            && room.membership_at(event.state_key.as_deref().unwrap_or_default(), index - 1) == "join";
        // An upgrade closes the old room with a copy of its power levels.
        let closes = room.closes(index) && event.nonce().is_some_and(|nonce| found.contains_key(nonce));
        if repeats || closes {
            continue;
        }
        if let Some(first) = event.nonce().and_then(|nonce| found.insert(nonce, index)) {
            end.fault(
                "an event is there twice",
                format!("in {}: {} and {}", room.room_id, room.describe(first), room.describe(index)),
            );
        }
    }
    found
}

/// Checks that the act's event exists if it must, and does not exist if it must not.
fn presence(end: &End, room: &TrueRoom, act: &Act, at: Option<usize>) {
    let makes_an_event = match act.op {
        Op::Message { .. }
        | Op::State { .. }
        | Op::PowerLevels { .. }
        | Op::Visibility { .. }
        | Op::Redact { .. }
        | Op::Leave { .. }
        | Op::Kick { .. }
        | Op::Ban { .. }
        | Op::Unban { .. }
        | Op::Invite { .. } => true,
        // A join of a user who is in the room already makes no event.
        Op::Join { .. } => !was_joined_meanwhile(end, room, act),
        _ => false,
    };
    match (&act.ending, at) {
        (Ending::Acknowledged(answer), None) if makes_an_event => {
            end.fault("what was acknowledged is not there", format!("{:?} {}: {answer}", act.op, act.nonce));
        }
        (Ending::Refused, Some(at)) => {
            end.fault("what was refused is there", format!("{:?}: {}", act.op, room.describe(at)));
        }
        _ => {}
    }
}

/// Tells whether the user may have been in the room at some time during the act.
fn was_joined_meanwhile(end: &End, room: &TrueRoom, act: &Act) -> bool {
    let user_id = &end.scene.user_ids[act.user];
    let others = || end.acts.iter().filter_map(|other| Some((other, room.find(other.event_id()?)?)));
    let from = others().filter(|(other, _)| other.ended < act.began).map(|(_, at)| at).max().unwrap_or_default();
    let to = others().filter(|(other, _)| other.began > act.ended).map(|(_, at)| at).min().unwrap_or(room.events.len());
    (from..to.max(from + 1)).any(|index| room.membership_at(user_id, index) == "join")
}

/// Checks the order of events: an act that ended before another began has its event before the other's.
fn in_order(end: &End, room: &TrueRoom, mut placed: Vec<(usize, &Act)>) {
    placed.sort_by_key(|(at, _)| *at);
    let mut first_ended: Option<(usize, &Act)> = None;
    for (at, act) in placed.into_iter().rev() {
        if let Some((later, other)) = first_ended
            && other.ended < act.began
        {
            let (earlier, later) = (room.describe(at), room.describe(later));
            let text = format!("in {}: {later} was answered before {earlier} was asked for", room.room_id);
            end.fault("events are in the wrong order", text);
        }
        if first_ended.is_none_or(|(_, other)| act.ended < other.ended) {
            first_ended = Some((at, act));
        }
    }
}

/// Checks that each user who came in has requested it.
fn nobody_comes_unasked(end: &End, room: &TrueRoom, acts: &[&Act]) {
    for (index, event) in room.events.iter().enumerate().skip(1) {
        let (Some(user_id), true) = (&event.state_key, event.content["membership"] == "join") else { continue };
        // The first joins belong to the setup of the rooms.
        let asked = |nonce: &str| {
            nonce.starts_with("setup") || acts.iter().any(|act| act.nonce == nonce && act.op.room().is_some())
        };
        let came = room.membership_at(user_id, index - 1) != "join";
        let is_creator = *user_id == room.events[0].sender;
        if came && !is_creator && !event.nonce().is_some_and(asked) {
            let before = room.membership_at(user_id, index - 1);
            let text = format!("in {}: {}, who was out ({before})", room.room_id, room.describe(index));
            end.fault("a user came in without asking", text);
        }
    }
}
