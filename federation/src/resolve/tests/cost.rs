//! A resolution reads what is in conflict, however large the room is.

use std::sync::atomic::Ordering;

use ruma::{OwnedUserId, RoomVersionId};

use super::*;

fn member(number: usize) -> OwnedUserId {
    format!("@m{number}:m.test").parse().unwrap()
}

/// A room with many members as the log's state at [`LARGE`], and that state again to send on.
fn large_room(version: &RoomVersionId, members: usize) -> Room {
    let mut room = Room::new(version);
    for number in 0..members {
        let user = member(number);
        let nid = room.make(&user, "m.room.member", user.as_str(), json!({ "membership": "join" }));
        room.world.set(&mut room.state, nid);
    }
    room.world.log.insert(LARGE, room.state.clone());
    room
}

const LARGE: Position = Position(1);

#[test]
fn a_few_conflicts_in_a_large_room_read_a_few_events() {
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let mut room = large_room(&version, 2_000);
        let start = room.state.clone();
        // Two branches with 30 keys: members who came, left or changed their names, and topics.
        let states: Vec<State> = (0..2)
            .map(|branch| {
                for number in 0..10 {
                    let user = member(3_000 + branch * 10 + number);
                    room.join(&user);
                    let user = member(number);
                    let content = json!({ "membership": "join", "displayname": branch });
                    room.send(&user, "m.room.member", user.as_str(), content);
                }
                room.send(bob(), "m.room.topic", "", json!({ "topic": branch }));
                room.back_to(&start)
            })
            .collect();
        resolve_reduced(&room.world, LARGE, &states).unwrap();
        let counts = &room.world.counts;
        let read = [&counts.wholes, &counts.values, &counts.auth_nodes, &counts.pdus]
            .map(|count| count.load(Ordering::Relaxed));
        assert_eq!(read[0], 0, "{version}: no whole state");
        assert!(read[1] < 100 && read[2] < 100 && read[3] < 100, "{version}: {read:?}");
    }
}

#[test]
fn a_thousand_branches_resolve_at_once() {
    let mut room = large_room(&RoomVersionId::V12, 0);
    let start = room.state.clone();
    let states: Vec<State> = (0..1_000)
        .map(|branch| {
            let sender = if branch % 2 == 0 { alice() } else { bob() };
            room.send(sender, "m.room.topic", "", json!({ "topic": branch }));
            room.back_to(&start)
        })
        .collect();
    let deltas: Vec<StateDelta> = states.iter().map(|state| room.world.delta(state, LARGE)).collect();
    let prepared = ready(prepare(&room.world, &conflict(&room.world, LARGE, &deltas))).unwrap();
    assert!(prepared.is_large());
    let resolved = prepared.run().unwrap();
    assert_eq!((resolved.conflicted, resolved.full, resolved.changes.len()), (1, 1_000, 1));
    let pdus = room.world.counts.pdus.load(Ordering::Relaxed);
    assert!(pdus < 1_010, "{pdus} events were read");
}

#[test]
fn an_event_below_a_newer_value_of_its_own_key_needs_no_whole_state() {
    // Bob's first join authorized the topic. He has changed his name since, so it is in the auth chain of every state.
    let mut room = large_room(&RoomVersionId::V11, 0);
    room.send(bob(), "m.room.topic", "", json!({ "topic": "x" }));
    let topic = room.back_to(&room.world.log[&LARGE].clone());
    let rejoin = room.send(bob(), "m.room.member", bob().as_str(), json!({ "membership": "join", "displayname": "B" }));
    let mut with_topic = topic;
    room.world.set(&mut with_topic, rejoin);
    let deltas = [room.state.clone(), with_topic].map(|state| room.world.delta(&state, LARGE));
    let resolved = resolve_deltas(&room.world, LARGE, &deltas).unwrap();
    assert_eq!((resolved.conflicted, resolved.full), (1, 1));
    assert_eq!(room.world.counts.wholes.load(Ordering::Relaxed), 0);
}

#[test]
fn an_auth_difference_is_looked_for_below_all_members() {
    // The middle one of three power levels on a branch is in no state. A member who wrote about herself under it
    // has it in her auth chain, so then it is in that of every state.
    for (is_below_a_member, expected) in [(false, 3), (true, 2)] {
        let mut room = large_room(&RoomVersionId::V11, 2_500);
        let start = room.state.clone();
        room.send(alice(), "m.room.power_levels", "", room.levels(60));
        let user = member(1_234);
        let content = json!({ "membership": "join", "displayname": "new" });
        let named = room.make(&user, "m.room.member", user.as_str(), content);
        room.send(alice(), "m.room.power_levels", "", room.levels(70));
        let mut states = [room.back_to(&start), start];
        if is_below_a_member {
            states.iter_mut().for_each(|state| room.world.set(state, named));
        }
        room.world.log.insert(LARGE, states[1].clone());

        for base in [LARGE, EMPTY_LOG] {
            let deltas = states.clone().map(|state| room.world.delta(&state, base));
            let prepared = ready(prepare(&room.world, &conflict(&room.world, base, &deltas))).unwrap();
            assert!(prepared.full.keys().eq(&whole::full_conflicted_set(&room.world, &states)));
            assert_eq!(prepared.run().unwrap().full, expected);
        }
        assert_eq!(room.resolve(&states).len(), 2_505);
    }
}
