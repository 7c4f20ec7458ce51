//! The resolutions that raise an alarm.

use ruma::{OwnedUserId, RoomVersionId};

use super::*;
use crate::{resolve::alarm, supported_room_versions};

fn alarm_of(world: &World, before: &State, after: &State) -> Option<(usize, bool)> {
    let deltas = [before, after].map(|state| world.delta(state, EMPTY_LOG));
    let alarm = ready(alarm(world, &conflict(world, EMPTY_LOG, &deltas), &deltas[0], &deltas[1])).unwrap();
    alarm.map(|alarm| (alarm.removed, alarm.no_admin_left))
}

#[test]
fn more_than_ten_members_are_an_alarm() {
    let mut room = Room::new(&RoomVersionId::V11);
    let users: Vec<OwnedUserId> = (0..11).map(|user| format!("@u{user}:a.test").parse().unwrap()).collect();
    for user in &users {
        room.join(user);
    }
    let before = room.state.clone();
    for (number, user) in users.iter().enumerate() {
        assert_eq!(alarm_of(&room.world, &before, &room.state), None, "{number} are gone");
        if number % 2 == 0 {
            room.send(user, "m.room.member", user.as_str(), json!({ "membership": "leave" }));
        } else {
            let key = room.world.key_of("m.room.member", user.as_str());
            room.state.remove(&key);
        }
    }
    assert_eq!(alarm_of(&room.world, &before, &room.state), Some((11, false)));
    assert_eq!(alarm_of(&room.world, &room.state, &before), None, "they are back");
}

#[test]
fn a_room_without_any_admin_is_an_alarm() {
    for version in supported_room_versions() {
        let mut room = Room::new(version);
        room.send(alice(), "m.room.power_levels", "", room.levels(100));
        let before = room.state.clone();
        let leave = json!({ "membership": "leave" });
        room.send(bob(), "m.room.member", bob().as_str(), leave.clone());
        assert_eq!(alarm_of(&room.world, &before, &room.state), None, "{version}: Alice is left");
        let only_alice = room.state.clone();
        room.send(alice(), "m.room.member", alice().as_str(), leave);
        assert_eq!(alarm_of(&room.world, &only_alice, &room.state), Some((1, true)), "{version}");
        assert_eq!(alarm_of(&room.world, &before, &room.state), Some((2, true)), "{version}");

        // Nobody is gone, but the levels are: those of a room without levels count.
        let key = room.world.key_of("m.room.power_levels", "");
        let mut without_levels = before.clone();
        without_levels.remove(&key);
        assert_eq!(alarm_of(&room.world, &before, &without_levels), None, "{version}: Alice made the room");
        let mut only_bob = before.clone();
        only_bob.remove(&room.world.key_of("m.room.member", alice().as_str()));
        without_levels = only_bob.clone();
        without_levels.remove(&key);
        assert_eq!(alarm_of(&room.world, &only_bob, &without_levels), Some((0, true)), "{version}");
    }
}

#[test]
fn a_room_in_which_everybody_may_do_all_has_an_admin() {
    let mut room = Room::new(&RoomVersionId::V11);
    let before = room.state.clone();
    room.send(alice(), "m.room.power_levels", "", json!({ "users": { alice(): 100 }, "users_default": 50 }));
    room.send(alice(), "m.room.member", alice().as_str(), json!({ "membership": "leave" }));
    assert_eq!(alarm_of(&room.world, &before, &room.state), None);
}
