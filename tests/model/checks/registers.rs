//! Checks values that the last writer decides: profiles, account data, names and keys of devices, read markers, typing,
//! aliases.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{End, account_data_in, receipts_in};
use crate::{
    api::{Request, v3},
    clients::{alias, data_type},
    followers::known::object,
    plan::{ALIASES, Op, USERS},
    world::{Act, Ending},
};

pub async fn check(end: &End) {
    for user in 0..USERS {
        account_data(end, user);
        profile(end, user).await;
    }
    device_keys(end).await;
    receipts(end);
    one_time_keys(end);
    aliases(end).await;
}

/// Checks a value that these acts have set: it must come from an act that was certainly not followed by another.
fn last(end: &End, what: &str, found: Option<&str>, mut acts: Vec<&Act>) {
    acts.retain(|act| act.may_be_done());
    let superseded = |act: &Act| acts.iter().any(|other| other.is_acknowledged() && other.began > act.ended);
    let possible: Vec<&str> = acts.iter().filter(|act| !superseded(act)).map(|act| act.nonce.as_str()).collect();
    let may_be_untouched = !acts.iter().any(|act| act.is_acknowledged());
    let is_right = match found {
        Some(found) => possible.contains(&found),
        None => may_be_untouched,
    };
    if !is_right {
        end.fault("an acknowledged value is lost", format!("{what} is {found:?}, and should be one of {possible:?}"));
    }
}

fn account_data(end: &End, user: usize) {
    let of_user = |wanted: Op| end.acts.iter().filter(|act| act.user == user && act.op == wanted).collect::<Vec<_>>();
    let user_id = &end.scene.user_ids[user];
    for key in 0..2 {
        let data = account_data_in(&end.fresh[user]);
        let found = data.get(&data_type(key)).and_then(|content| content["nonce"].as_str());
        last(end, &format!("account data {key} of {user_id}"), found, of_user(Op::AccountData { key }));
        for (room, true_room) in end.rooms.iter().enumerate().filter(|(room, _)| end.is_joined(user, *room)) {
            let data = account_data_in(end.fresh_room(user, &true_room.room_id));
            let found = data.get(&data_type(key)).and_then(|content| content["nonce"].as_str());
            let what = format!("account data {key} of {user_id} in {}", true_room.room_id);
            last(end, &what, found, of_user(Op::RoomData { room, key }));
        }
    }
}

/// Checks the display name, in the profile and in all rooms of the user.
async fn profile(end: &End, user: usize) {
    let (user_id, device) = (&end.scene.user_ids[user], &end.scene.devices[user]);
    let acts: Vec<_> = end.acts.iter().filter(|act| act.user == user && act.op == Op::DisplayName).collect();
    let profile = end.scene.api.need(&device.token, &Request::get(v3(["profile", user_id]))).await;
    // A new account has a name that no act has set.
    let name = profile["displayname"].as_str();
    let written = name.filter(|name| acts.iter().any(|act| act.nonce == *name));
    last(end, &format!("the name of {user_id}"), written, acts);
    for room in end.rooms.iter().filter(|room| room.membership(user_id) == "join") {
        let member = room.events.iter().rev().find(|event| event.is_member(user_id));
        let Some(member) = member.filter(|member| !member.redacted) else { continue };
        let shown = member.content["displayname"].as_str();
        if shown != name {
            let text = format!("{user_id} is {name:?}, and in {} {shown:?} ({})", room.room_id, member.event_id);
            end.fault("a changed name is lost in a room", text);
        }
    }
}

/// Checks that the keys of each device are those that were uploaded last.
async fn device_keys(end: &End) {
    let wanted: HashMap<&String, [String; 0]> = end.scene.user_ids.iter().map(|user_id| (user_id, [])).collect();
    let body = serde_json::json!({ "device_keys": wanted });
    let answer = end.scene.api.need(&end.scene.devices[0].token, &Request::post(v3(["keys", "query"]), body)).await;
    for (user, user_id) in end.scene.user_ids.iter().enumerate() {
        let acts: Vec<&Act> =
            end.acts.iter().filter(|act| act.user == user && act.op == Op::DeviceKeys && act.may_be_done()).collect();
        let found: HashSet<&str> =
            object(&answer["device_keys"][user_id]).filter_map(|(_, keys)| keys["algorithms"][1].as_str()).collect();
        // Each writer has its own device, and its nonces begin with its name.
        let writer = |act: &Act| act.nonce.split('s').next().unwrap_or_default().to_owned();
        let writers: HashSet<String> = acts.iter().map(|act| writer(act)).collect();
        for name in writers {
            let of_device: Vec<&Act> = acts.iter().filter(|act| writer(act) == name).copied().collect();
            let keys = found.iter().find(|nonce| nonce.split('s').next() == Some(&name)).copied();
            last(end, &format!("the keys of the device {name} of {user_id}"), keys, of_device);
        }
    }
}

/// Checks that receipts only moved forwards.
fn receipts(end: &End) {
    for (number, room) in end.rooms.iter().enumerate() {
        for (user, user_id) in end.scene.user_ids.iter().enumerate().filter(|(user, _)| end.is_joined(*user, number)) {
            let shown = receipts_in(end.fresh_room(user, &room.room_id));
            for private in [false, true] {
                let of_kind = |act: &&Act| {
                    act.user == user
                        && matches!(act.op, Op::Receipt { room, private: is_private, .. } if room == number && is_private == private)
                };
                let at = |act: &Act| act.about.as_deref().and_then(|event_id| room.find(event_id));
                let acts: Vec<&Act> = end.acts.iter().filter(of_kind).filter(|act| act.may_be_done()).collect();
                let least = acts.iter().filter(|act| act.is_acknowledged()).filter_map(|act| at(act)).max();
                let name = if private { format!("{user_id} in private") } else { user_id.clone() };
                let found = shown.get(&name).and_then(|event_id| room.find(event_id));
                let is_one = found.is_none_or(|found| acts.iter().any(|act| at(act) == Some(found)));
                if found < least || !is_one {
                    let text = format!("{name} has read up to {found:?} of {}, and said {least:?}", room.room_id);
                    end.fault("a receipt is lost", text);
                }
            }
        }
    }
}

/// Checks that each one-time key is given out only once.
fn one_time_keys(end: &End) {
    let mut given: HashSet<String> = HashSet::new();
    for act in end.acts.iter().filter(|act| matches!(act.op, Op::Claim { .. })) {
        let Ending::Acknowledged(answer) = &act.ending else { continue };
        let devices = object(&answer["one_time_keys"]).flat_map(|(_, devices)| object(devices));
        let keys = devices.flat_map(|(_, keys): (_, &Value)| object(keys).map(|(name, _)| name.clone()));
        for name in keys.collect::<Vec<_>>() {
            if !given.insert(name.clone()) {
                end.fault("a one-time key was given out twice", name);
            }
        }
    }
}

/// Checks that each alias names the room for which it was created last, or none if it was deleted last.
async fn aliases(end: &End) {
    let scene = &end.scene;
    for key in 0..ALIASES {
        let is_one = |act: &&Act| matches!(act.op, Op::Alias { key: other, .. } if other == key) && act.may_be_done();
        let acts: Vec<&Act> = end.acts.iter().filter(is_one).collect();
        let superseded = |act: &Act| acts.iter().any(|other| other.is_acknowledged() && other.began > act.ended);
        let target = |act: &&Act| match act.op {
            Op::Alias { room, create: true, .. } => Some(scene.room_ids[room].as_str()),
            _ => None,
        };
        let mut possible: Vec<Option<&str>> = acts.iter().filter(|act| !superseded(act)).map(target).collect();
        if !acts.iter().any(|act| act.is_acknowledged()) {
            possible.push(None);
        }
        let name = alias(&scene.user_ids, key);
        let answer = scene.api.ask(&scene.devices[0].token, &Request::get(v3(["directory", "room", &name]))).await;
        let found = answer.json["room_id"].as_str();
        // An upgrade moves the aliases of the old room to the new one.
        let is_upgrade = |act: &Act| matches!(act.op, Op::Upgrade { .. }) && act.may_be_done();
        let is_moved = found.is_some_and(|found| !scene.room_ids.iter().any(|room_id| room_id == found))
            && end.acts.iter().any(is_upgrade);
        if !is_moved && !possible.contains(&found) {
            let text = format!("{name} is {found:?}, and should be one of {possible:?}");
            end.fault("an acknowledged value is lost", text);
        }
    }
}
