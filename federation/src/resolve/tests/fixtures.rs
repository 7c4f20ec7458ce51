//! Ruma's own fixtures, with the states that they must resolve to.

use std::{collections::BTreeMap, fs, path::PathBuf};

use ruma::{OwnedEventId, RoomVersionId, state_res::Event};
use serde_json::{Value as JsonValue, json};

use super::*;
use crate::rules;

fn fixture(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/ruma", name].iter().collect();
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The room of these files. Its first event creates it and says its version.
fn world(files: &[&str]) -> World {
    let events: Vec<JsonValue> =
        files.iter().flat_map(|file| serde_json::from_str::<Vec<JsonValue>>(&fixture(file)).unwrap()).collect();
    let version = RoomVersionId::try_from(events[0]["content"]["room_version"].as_str().unwrap()).unwrap();
    World::from_events(rules(&version).unwrap(), &events)
}

#[track_caller]
fn expect_snapshot(world: &World, resolved: &State, snapshot: &str) {
    let shown: BTreeMap<_, JsonValue> = resolved
        .values()
        .map(|held| {
            let pdu = world.pdu(held.event_nid);
            let content: JsonValue = serde_json::from_str(pdu.content.get()).unwrap();
            let shown = json!({
                "type": pdu.event_type, "state_key": pdu.state_key, "event_id": pdu.event_id, "content": content,
            });
            ((pdu.event_type.clone(), pdu.state_key.clone()), shown)
        })
        .collect();
    let file = fixture(&format!("snapshots/{snapshot}@resolved_state.snap"));
    let (_, expected) = file.rsplit_once("---\n").unwrap();
    let expected: Vec<JsonValue> = serde_json::from_str(expected).unwrap();
    assert_eq!(shown.into_values().collect::<Vec<_>>(), expected, "{snapshot}");
}

/// Resolves the branches that the previous events of the files make, event by event, and all events as states of their own.
fn check(snapshot: &str, files: &[&str]) {
    let world = world(files);
    let mut after: BTreeMap<EventNid, State> = BTreeMap::new();
    let mut leaves: BTreeMap<EventNid, State> = BTreeMap::new();
    for nid in world.nids() {
        let prevs: Vec<EventNid> = world.pdu(nid).prev_events().map(|event_id| world.nid(event_id)).collect();
        prevs.iter().for_each(|prev| drop(leaves.remove(prev)));
        let states: Vec<State> = prevs.iter().map(|prev| after[prev].clone()).collect();
        let before =
            if states.is_empty() { State::new() } else { resolve_reduced(&world, EMPTY_LOG, &states).unwrap() };
        let mut proposed = before.clone();
        world.set(&mut proposed, nid);
        // As ruma's test has it: the event's own key is a conflict with the state before it.
        let state = resolve_reduced(&world, EMPTY_LOG, &[before, proposed]).unwrap();
        after.insert(nid, state.clone());
        leaves.insert(nid, state);
    }
    let leaves: Vec<State> = leaves.into_values().collect();
    expect_snapshot(&world, &resolve_reduced(&world, EMPTY_LOG, &leaves).unwrap(), snapshot);

    let alone: Vec<State> = world.nids().map(|nid| world.state(&[nid])).collect();
    expect_snapshot(&world, &resolve_reduced(&world, EMPTY_LOG, &alone).unwrap(), snapshot);
}

#[test]
fn events_of_branches_resolve_as_ruma_resolves_them() {
    let public = "bootstrap-public-chat.json";
    let private = "bootstrap-private-chat.json";
    check("minimal_private_chat", &[private]);
    check("minimal_public_chat", &[public]);
    check("origin_server_ts_tiebreak", &[private, "origin-server-ts-tiebreak.json"]);
    check("ban_vs_power_levels", &[public, "ban-vs-power-levels-alice.json", "ban-vs-power-levels-bob.json"]);
    check("topic_vs_power_levels", &[public, "topic-vs-power-levels-alice.json", "topic-vs-power-levels-bob.json"]);
    check(
        "power_levels_admin_vs_mod",
        &[public, "power-levels-admin-vs-mod-alice.json", "power-levels-admin-vs-mod-bob.json"],
    );
    check("topic_vs_ban", &[public, "topic-vs-ban-common.json", "topic-vs-ban-alice.json", "topic-vs-ban-bob.json"]);
    check(
        "join_rules_vs_join",
        &[public, "join-rules-vs-join-common.json", "join-rules-vs-join-alice.json", "join-rules-vs-join-ella.json"],
    );
    check("concurrent_joins", &[public, "concurrent-joins-charlie.json", "concurrent-joins-ella.json"]);
}

/// Resolves states that are given by their events, against each of them as the log.
fn check_states(snapshot: &str, folder: &str, events: &str, states: [&str; 2]) {
    let mut world = world(&[&format!("{folder}/{events}")]);
    let states = states.map(|file| {
        let ids: Vec<OwnedEventId> = serde_json::from_str(&fixture(&format!("{folder}/{file}"))).unwrap();
        world.state(&ids.iter().map(|event_id| world.nid(event_id)).collect::<Vec<_>>())
    });
    for (position, state) in (1..).zip(&states) {
        world.log.insert(Position(position), state.clone());
    }
    for base in [EMPTY_LOG, Position(1), Position(2)] {
        expect_snapshot(&world, &resolve_reduced(&world, base, &states).unwrap(), snapshot);
    }
}

#[test]
fn problem_a_of_msc4297_begins_with_no_state_from_version_12_on() {
    let (folder, states) = ("MSC4297-problem-A", ["state-bob.json", "state-charlie.json"]);
    check_states("msc4297_problem_a_state_res_v2_0", folder, "pdus-v11.json", states);
    check_states("msc4297_problem_a_state_res_v2_1", folder, "pdus-v12.json", states);
}

#[test]
fn problem_b_of_msc4297_resolves_the_subgraph_from_version_12_on() {
    let (folder, states) = ("MSC4297-problem-B", ["state-eve.json", "state-zara.json"]);
    check_states("msc4297_problem_b_state_res_v2_0", folder, "pdus-v11.json", states);
    check_states("msc4297_problem_b_state_res_v2_1", folder, "pdus-v12.json", states);
}
