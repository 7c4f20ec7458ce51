//! Rooms for what random ones seldom have.

use ruma::RoomVersionId;

use super::{whole::exclusive_chains, *};
use crate::supported_room_versions;

#[test]
fn states_that_agree_are_not_resolved() {
    let mut room = Room::new(&RoomVersionId::V11);
    let before = room.state.clone();
    room.send(alice(), "m.room.topic", "", json!({ "topic": "x" }));
    room.world.log.insert(Position(1), before);
    let delta = room.world.delta(&room.state, Position(1));
    for (states, expected) in [
        (vec![StateDelta::default(); 2], StateDelta::default()),
        (vec![delta.clone(); 3], delta.clone()),
        (vec![delta.clone()], delta),
    ] {
        let resolved = resolve_deltas(&room.world, Position(1), &states).unwrap();
        assert_eq!((resolved.changes, resolved.conflicted, resolved.full), (expected, 0, 0));
    }
    assert_eq!(room.world.counts.pdus.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert!(matches!(resolve_deltas(&room.world, Position(1), &[]), Err(ResolveError::NoStates)));
}

#[test]
fn an_event_of_every_state_is_in_no_auth_difference() {
    // All states have the same power levels. Only one has an event that names them, a topic. By the words of the specification
    // they are in the auth difference, because no event of the other state names them.
    let mut room = Room::new(&RoomVersionId::V12);
    let member = room.world.key_of("m.room.member", bob().as_str());
    let rules = room.world.key_of("m.room.join_rules", "");
    room.state.remove(&member);
    room.state.remove(&rules);
    let without = room.state.clone();
    room.send(alice(), "m.room.topic", "", json!({ "topic": "x" }));
    let states = [without, room.state.clone()];

    let deltas = states.clone().map(|state| room.world.delta(&state, EMPTY_LOG));
    let resolved = resolve_deltas(&room.world, EMPTY_LOG, &deltas).unwrap();
    assert_eq!((resolved.conflicted, resolved.full), (1, 1), "only the topic is resolved");
    let levels = room.world.key_of("m.room.power_levels", "");
    let in_words = exclusive_chains(&room.world, &states);
    assert!(
        in_words[1].contains(&room.state[&levels].event_nid) && !in_words[0].contains(&room.state[&levels].event_nid)
    );
}

#[test]
fn two_types_that_ruma_takes_for_one_are_two_keys() {
    let (old, new) = ("org.matrix.call.sdp_stream_metadata_changed", "m.call.sdp_stream_metadata_changed");
    assert_eq!(ruma::events::TimelineEventType::from(old).to_string(), new, "ruma does not any more: go on without");
    for version in supported_room_versions() {
        let mut room = Room::new(version);
        let start = room.state.clone();
        let both: Vec<EventNid> =
            [old, new].iter().map(|event_type| room.send(alice(), event_type, "", json!({}))).collect();
        let other = room.make(bob(), new, "", json!({}));
        let reached = room.back_to(&start);
        let mut of_bob = start.clone();
        room.world.set(&mut of_bob, other);

        for states in [vec![start.clone(), reached.clone()], vec![of_bob, start, reached]] {
            let resolved = resolve_reduced(&room.world, EMPTY_LOG, &states).unwrap();
            let expected = [old, new].map(|event_type| resolved[&room.world.key_of(event_type, "")].event_nid);
            assert_eq!(expected[0], both[0], "{version}");
            assert!([both[1], other].contains(&expected[1]), "{version}");
        }
    }
}

#[test]
fn no_other_type_of_state_events_has_two_names() {
    // The names under which ruma knows types of state, or knew them, with and without its unstable features.
    let names = [
        "m.beacon_info",
        "org.matrix.msc3672.beacon_info",
        "m.call.member",
        "org.matrix.msc3401.call.member",
        "m.image_pack",
        "im.ponies.room_emotes",
        "m.member_hints",
        "io.element.functional_members",
        "m.room.language",
        "org.matrix.msc4334.room.language",
        "m.room.policy",
        "org.matrix.msc4284.policy",
        "m.room.retention",
        "m.room.presence_sharing",
        "m.room.join_rules",
        "m.room.power_levels",
        "m.room.member",
        "m.space.child",
        "m.space.parent",
    ];
    for name in names {
        assert_eq!(ruma::events::StateEventType::from(name).to_string(), name);
        assert_eq!(ruma::events::TimelineEventType::from(name).to_string(), name);
    }
}

#[test]
fn a_missing_event_fails_the_resolution() {
    for version in supported_room_versions() {
        let mut room = Room::new(version);
        // The first power levels are on the mainline only.
        room.send(alice(), "m.room.power_levels", "", room.levels(55));
        let start = room.state.clone();
        room.send(alice(), "m.room.power_levels", "", room.levels(60));
        room.send(bob(), "m.room.topic", "", json!({ "topic": "x" }));
        let states = [start, room.state.clone()].map(|state| room.world.delta(&state, EMPTY_LOG));
        let prepared = ready(prepare(&room.world, &conflict(&room.world, EMPTY_LOG, &states))).unwrap();
        assert!(prepared.clone().run().is_ok());
        // Each event that only ruma asks for, one after the other. Those that are resolved or in the states are looked
        // up by our own code.
        let beside: Vec<EventNid> = prepared
            .events
            .keys()
            .copied()
            .filter(|nid| !prepared.full.contains_key(nid))
            .filter(|nid| prepared.unconflicted.values().all(|held| held.event_nid != *nid))
            .collect();
        assert!(!beside.is_empty(), "{version}");
        for nid in beside {
            let mut damaged = prepared.clone();
            damaged.events.remove(&nid);
            let event_id = &room.world.pdu(nid).event_id;
            let result = damaged.run();
            assert!(matches!(&result, Err(RunError::Missing(missing)) if missing == event_id), "{version}: {result:?}");
        }
    }
}

#[test]
fn an_event_in_a_wrong_place_fails_the_resolution() {
    let check = |change: fn(&mut Room, &mut State), is_expected: fn(&ResolveError<NotInWorld>) -> bool| {
        let mut room = Room::new(&RoomVersionId::V11);
        let start = room.state.clone();
        room.send(bob(), "m.room.topic", "", json!({ "topic": "x" }));
        let mut reached = room.state.clone();
        change(&mut room, &mut reached);
        let result = resolve_reduced(&room.world, EMPTY_LOG, &[start, reached]);
        assert!(matches!(&result, Err(error) if is_expected(error)), "{result:?}");
    };
    check(
        |room, state| {
            let topic = room.world.key_of("m.room.topic", "");
            let name = room.world.key_of("m.room.name", "");
            state.insert(name, state[&topic]);
        },
        |error| matches!(error, ResolveError::Misplaced(_)),
    );
    check(
        |room, state| {
            let foreign = json!({
                "event_id": "$foreign", "room_id": "!other:a.test", "sender": bob(), "type": "m.room.name",
                "state_key": "", "content": {}, "origin_server_ts": 0, "prev_events": [], "auth_events": ["$create"],
            });
            let nid = room.world.add(foreign);
            room.world.set(state, nid);
        },
        |error| matches!(error, ResolveError::Foreign(_)),
    );
    // A rejected event may name anything as its auth events.
    check(
        |room, state| {
            for (event_id, state_key, auth) in [("$message", None, "$create"), ("$name", Some(""), "$message")] {
                let mut event = json!({
                    "event_id": event_id, "room_id": "!room:a.test", "sender": bob(), "type": "m.room.name",
                    "content": {}, "origin_server_ts": 0, "prev_events": [], "auth_events": [auth],
                });
                if let Some(state_key) = state_key {
                    event["state_key"] = state_key.into();
                }
                let nid = room.world.add(event);
                if state_key.is_some() {
                    room.world.set(state, nid);
                }
            }
        },
        |error| matches!(error, ResolveError::NotState(_)),
    );
    check(
        |room, state| {
            let topic = room.world.key_of("m.room.topic", "");
            state.get_mut(&topic).unwrap().event_nid = EventNid(1_000);
        },
        |error| matches!(error, ResolveError::Read(NotInWorld)),
    );
}

#[test]
fn a_rejected_event_of_a_state_is_tried_as_any_other() {
    // As the specification and ruma have it. Synapse skips it.
    for version in supported_room_versions() {
        let mut room = Room::new(version);
        let start = room.state.clone();
        let topic = room.send(bob(), "m.room.topic", "", json!({ "topic": "x" }));
        room.world.reject(topic);
        let reached = room.back_to(&start);
        let resolved = room.resolve(&[start, reached]);
        assert_eq!(resolved[&room.world.key_of("m.room.topic", "")].event_nid, topic, "{version}");
    }
}

#[test]
fn a_rejected_auth_event_authorizes_nothing() {
    for version in supported_room_versions() {
        let mut room = Room::new(version);
        let start = room.state.clone();
        let levels = room.send(alice(), "m.room.power_levels", "", room.levels(100));
        room.send(bob(), "m.room.power_levels", "", room.levels(99));
        room.world.reject(levels);
        let reached = room.back_to(&start);
        let resolved = room.resolve(&[start.clone(), reached]);
        let key = room.world.key_of("m.room.power_levels", "");
        assert_ne!(resolved[&key].event_nid, start[&key].event_nid, "{version}: rejected levels are tried");
    }
}

#[test]
fn the_answer_does_not_depend_on_the_order_of_the_states() {
    for version in supported_room_versions() {
        let mut room = Room::new(version);
        let start = room.state.clone();
        let mut states = Vec::new();
        for number in 0..70 {
            // More states than a word has bits.
            let sender = if number % 2 == 0 { alice() } else { bob() };
            room.send(sender, "m.room.topic", "", json!({ "topic": number }));
            room.send(sender, "org.example.number", &number.to_string(), json!({}));
            states.push(room.back_to(&start));
        }
        let resolved = room.resolve(&states);
        assert_eq!(resolved.len(), start.len() + 71, "{version}: all numbers, and a topic");
        states.reverse();
        states.rotate_left(11);
        assert_eq!(room.resolve(&states), resolved, "{version}");
    }
}

#[test]
fn a_resolution_can_be_made_by_a_task_and_run_on_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    let room = Room::new(&RoomVersionId::V12);
    let deltas = [StateDelta::default(), room.world.delta(&room.state, EMPTY_LOG)];
    let conflict = conflict(&room.world, EMPTY_LOG, &deltas);
    let preparing = prepare(&room.world, &conflict);
    is_send(&preparing);
    let prepared = ready(preparing).unwrap();
    let resolved = std::thread::spawn(move || prepared.run().unwrap()).join().unwrap();
    assert_eq!(room.world.with(EMPTY_LOG, &resolved.changes), room.state);
}
