//! Checks that followers know the server's data: rooms, timelines, state, account data, receipts, typing, messages to
//! the device, device lists.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{End, account_data_in, counts, receipts_in, rooms::compare_state, rooms_in};
use crate::{
    followers::{
        Follower,
        known::{KnownRoom, events},
        ways::names,
    },
    plan::Op,
    truth::TrueRoom,
    world::Act,
};

pub fn check(end: &End, follower: &Follower) {
    let (known, fresh) = (&follower.known, &end.fresh[follower.user]);
    let sets = [
        ("joined", &known.joined, rooms_in(fresh, "join")),
        ("invited", &known.invited, rooms_in(fresh, "invite")),
        ("knocking", &known.knocked, rooms_in(fresh, "knock")),
    ];
    for (what, found, wanted) in sets {
        if *found != wanted {
            let text = format!("{} is {what} to {wanted:?}, and was told {found:?}", follower.name());
            end.fault("a client is in the wrong rooms", text);
        }
    }
    // Push rules are told once to every user and are not checked here.
    let mut wanted = account_data_in(fresh);
    let mut found = known.account_data.clone();
    for data in [&mut wanted, &mut found] {
        data.remove("m.push_rules");
    }
    if found != wanted {
        end.fault("a client has old account data", format!("{}: {found:?}, not {wanted:?}", follower.name()));
    }
    letters(end, follower);
    device_lists(end, follower);
    for (number, room) in end.rooms.iter().enumerate() {
        let Some(known) = known.rooms.get(&room.room_id) else { continue };
        timeline(end, follower, number, room, known);
        if end.is_joined(follower.user, number) {
            state(end, follower, room, known);
            rest(end, follower, room, known);
        }
    }
    counts::check_follower(end, follower);
}

/// Checks that every event that the client may see has reached it, once and in order.
fn timeline(end: &End, follower: &Follower, number: usize, room: &TrueRoom, known: &KnownRoom) {
    let user_id = follower.known.user_id();
    let fault = |kind: &'static str, text: String| {
        end.fault(kind, format!("{} in {}: {text}", follower.name(), room.room_id));
    };
    let mut seen: HashSet<usize> = HashSet::new();
    let mut last: Option<usize> = None;
    let mut last_of_stays: Option<usize> = None;
    // Index from which the client knows everything. It is the room's beginning, unless an answer left older events out.
    let mut start: Option<usize> = None;
    let mut begins_with_it = true;
    for piece in &known.pieces {
        let place = |event_id: &String| {
            let found = room.find(event_id);
            if found.is_none() {
                fault("a client was told of an event that is not there", event_id.clone());
            }
            found
        };
        let events: Vec<usize> = piece.events.iter().filter_map(place).collect();
        let gap: Vec<usize> = piece.gap.iter().flatten().filter_map(place).collect();
        for part in [&gap, &events] {
            if !part.is_sorted_by(|a, b| a < b) {
                fault("events came in the wrong order", format!("{part:?}"));
            }
        }
        // A limited timeline stands on its own, and may begin with events that the client has. Any other continues the
        // last one.
        for index in events.iter().filter(|index| !piece.limited && (seen.contains(index) || last > Some(**index))) {
            let kind = if seen.contains(index) { "an event came twice" } else { "an event came too late" };
            let answers = follower.known.way_of(&room.room_id);
            fault(kind, format!("{}\n  Its answers:\n    {answers}", room.describe(*index)));
        }
        let hidden = |index: &&usize| !room.may_see(user_id, **index) && !room.events[**index].is_member(user_id);
        for index in gap.iter().chain(&events).filter(hidden) {
            fault("a client saw what it may not see", room.describe(*index));
        }
        if !piece.only_departure {
            if piece.limited && piece.gap.is_none() {
                (start, begins_with_it) = (None, false);
            }
            start = start.or(if begins_with_it { Some(0) } else { gap.iter().chain(&events).copied().min() });
        }
        last = gap.iter().chain(&events).copied().max().max(last);
        if !piece.only_departure {
            last_of_stays = last;
        }
        seen.extend(gap.iter().chain(&events));
    }
    let Some(start) = start else { return };
    let forgets = |act: &&Act| act.user == follower.user && act.op == Op::Forget { room: number } && act.may_be_done();
    // If an invitation or a knock followed a stay before any of it was told, the answer contains only that.
    let is_skipped =
        room.asked_after_stay(user_id).is_some_and(|stay| !stay.clone().any(|index| seen.contains(&index)));
    // A user who forgets a room, or is invited or knocks before their departure was told, is not told how the stay ended.
    let is_told_the_end =
        end.is_joined(follower.user, number) || !(known.torn || is_skipped || end.acts.iter().any(|act| forgets(&act)));
    let end_of_stay =
        room.end_of_stay(user_id).map(|until| if is_told_the_end { until } else { last_of_stays.unwrap_or_default() });
    let Some(until) = end_of_stay else { return };
    let wanted: Vec<usize> = (start.min(until + 1)..=until)
        .filter(|index| {
            room.may_see(user_id, *index)
                && follower.kind.shows(&room.events[*index].event_type, &room.events[*index].sender)
        })
        .collect();
    let lacking: Vec<String> =
        wanted.iter().filter(|index| !seen.contains(index)).map(|index| room.describe(*index)).collect();
    if !lacking.is_empty() {
        let came: Vec<_> = known.pieces.iter().map(|piece| shape(room, piece)).collect();
        let stays: Vec<_> = (0..room.events.len())
            .filter(|index| room.events[*index].is_member(user_id))
            .map(|index| room.describe(index))
            .collect();
        fault(
            "a client was not told of events",
            format!(
                "{lacking:#?}\n  It was told {came:#?}\n  Its stays: {stays:#?}\n  Its answers:\n    {}",
                follower.known.way_of(&room.room_id)
            ),
        );
    }
}

/// Describes a piece of a timeline by the numbers of its events.
fn shape(room: &TrueRoom, piece: &crate::followers::known::Piece) -> String {
    let numbers =
        |ids: &[String]| ids.iter().map(|id| room.find(id).map_or(-1, |index| index as i64)).collect::<Vec<_>>();
    let gap = piece.gap.as_ref().map(|gap| numbers(gap));
    let departure = if piece.only_departure { ", only a departure" } else { "" };
    format!("{:?}, limited: {}, read back: {gap:?}{departure}", numbers(&piece.events), piece.limited)
}

/// Checks that the client's state is the room's.
fn state(end: &End, follower: &Follower, room: &TrueRoom, known: &KnownRoom) {
    let kind = &follower.kind;
    let mut wanted: BTreeMap<_, _> = room.state_at(room.events.len());
    let mut found = known.state.clone();
    for state in [&mut wanted, &mut found] {
        state.retain(|(event_type, _), _| kind.follows_state(event_type));
    }
    if kind.is_lazy() {
        // A lazy client need not know all members, but those that it knows must be right.
        wanted.retain(|key, _| key.0 != "m.room.member" || found.contains_key(key));
    }
    compare_state(end, &format!("the state of {} for {}", room.room_id, follower.name()), &wanted, &found);
}

/// Checks the numbers of members, account data, receipts and typing of a room.
fn rest(end: &End, follower: &Follower, room: &TrueRoom, known: &KnownRoom) {
    let fresh = end.fresh_room(follower.user, &room.room_id);
    let fault = |kind: &'static str, found: String, wanted: String| {
        end.fault(kind, format!("{} in {}: {found}, not {wanted}", follower.name(), room.room_id));
    };
    let with = |membership: &str| {
        let users = end.scene.user_ids.iter().filter(|user_id| room.membership(user_id) == membership);
        Some(users.count() as u64)
    };
    let members = (with("join"), with("invite"));
    if known.members != members {
        fault("a client has wrong numbers of members", format!("{:?}", known.members), format!("{members:?}"));
    }
    let data = account_data_in(fresh);
    if known.account_data != data {
        fault("a client has old account data", format!("{:?}", known.account_data), format!("{data:?}"));
    }
    let receipts = receipts_in(fresh);
    if known.receipts != receipts {
        fault("a client has old receipts", format!("{:?}", known.receipts), format!("{receipts:?}"));
    }
    let typing: BTreeSet<String> = events(&fresh["ephemeral"])
        .iter()
        .filter(|event| event["type"] == "m.typing")
        .flat_map(|event| names(&event["content"]["user_ids"]))
        .collect();
    if known.typing != typing {
        fault("a client sees the wrong users type", format!("{:?}", known.typing), format!("{typing:?}"));
    }
}

/// Checks that messages to the device have arrived, once and in order.
fn letters(end: &End, follower: &Follower) {
    let sent: HashMap<&str, &Act> = end
        .acts
        .iter()
        .filter(|act| act.op == Op::ToDevice { who: follower.user })
        .map(|act| (act.nonce.as_str(), act))
        .collect();
    let letters = &follower.known.letters;
    let came: HashSet<&str> = letters.iter().map(String::as_str).collect();
    let fault = |kind: &'static str, text: String| end.fault(kind, format!("{}: {text}", follower.name()));
    for nonce in sent.values().filter(|act| act.is_acknowledged()).map(|act| act.nonce.as_str()) {
        if !came.contains(nonce) {
            fault("a message to a device is lost", nonce.to_owned());
        }
    }
    if came.len() != letters.len() || letters.iter().any(|nonce| !sent.contains_key(nonce.as_str())) {
        fault("a message to a device came twice", format!("{letters:?}"));
    }
    let acts: Vec<&&Act> = letters.iter().filter_map(|nonce| sent.get(nonce.as_str())).collect();
    for pair in acts.windows(2).filter(|pair| pair[1].ended < pair[0].began) {
        fault("messages to a device came in the wrong order", format!("{} before {}", pair[0].nonce, pair[1].nonce));
    }
}

/// Checks that users who share a room with the user have their changed keys told.
fn device_lists(end: &End, follower: &Follower) {
    let known = &follower.known;
    for other in (0..end.fresh.len()).filter(|other| end.share_a_room(follower.user, *other)) {
        let uploads =
            end.acts.iter().filter(|act| act.user == other && act.op == Op::DeviceKeys && act.is_acknowledged());
        let Some(last) = uploads.max_by_key(|act| act.began) else { continue };
        // An initial sync tells no device lists, because a client queries all of them then.
        if known.first_answer.is_none_or(|first| first > last.began) {
            continue;
        }
        let user_id = &end.scene.user_ids[other];
        let is_told = known.changed_lists.iter().any(|(got, changed)| *got > last.began && changed.contains(user_id));
        if !is_told {
            let text = format!("{} was not told of {user_id}'s new keys ({})", follower.name(), last.nonce);
            end.fault("a changed device list is not told", text);
        }
    }
}
