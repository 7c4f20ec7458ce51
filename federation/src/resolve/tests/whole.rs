//! Ruma with whole states, whole auth chains and the whole subgraph: what the reduced resolution must be equal to.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    state_res::{StateMap, resolve, utils::event_id_set::EventIdSet},
};

use crate::{
    ids::EventNid,
    test_world::{State, World},
};

/// Resolves whole states to a whole state.
pub(crate) fn resolve_whole(world: &World, states: &[State]) -> Result<State, ruma::state_res::Error> {
    let chains = states.iter().map(|state| chain(world, state.values().map(|held| held.event_nid)));
    let id = |nid: EventNid| world.pdu(nid).event_id.clone();
    let maps: Vec<StateMap<OwnedEventId>> = states
        .iter()
        .map(|state| {
            let event = |nid: EventNid| {
                let pdu = world.pdu(nid);
                let event_type = StateEventType::from(pdu.event_type.as_str());
                ((event_type, pdu.state_key.clone().unwrap()), pdu.event_id.clone())
            };
            state.values().map(|held| event(held.event_nid)).collect()
        })
        .collect();
    let chains = chains.map(|chain| chain.into_iter().map(id).collect()).collect();
    let fetch = |event_id: &EventId| Some(world.pdu(world.nid(event_id)).clone());
    let subgraph = |conflicted: &StateMap<Vec<OwnedEventId>>| {
        let values = conflicted.values().flatten().map(|event_id| world.nid(event_id)).collect();
        Some(subgraph(world, &values).into_iter().map(id).collect::<EventIdSet<_>>())
    };
    let rules = world.rules.state_res.v2_rules().unwrap();
    let resolved = resolve(&world.rules.authorization, rules, &maps, chains, fetch, subgraph)?;
    Ok(world.state(&resolved.values().map(|event_id| world.nid(event_id)).collect::<Vec<_>>()))
}

/// The full conflicted set: the conflicted values, the auth difference, and where the room version has it the subgraph.
pub(super) fn full_conflicted_set(world: &World, states: &[State]) -> BTreeSet<EventNid> {
    let is_everywhere = |key, nid| states.iter().all(|state| state.get(key).is_some_and(|held| held.event_nid == nid));
    let all = states.iter().flat_map(|state| state.iter().map(|(key, held)| (key, held.event_nid)));
    let values = all.filter(|(key, nid)| !is_everywhere(*key, *nid)).map(|(_, nid)| nid).collect();

    let chains: Vec<_> = states.iter().map(|state| chain(world, state.values().map(|held| held.event_nid))).collect();
    let union: BTreeSet<EventNid> = chains.iter().flatten().copied().collect();
    let difference = union.into_iter().filter(|nid| !chains.iter().all(|chain| chain.contains(nid)));
    let rules = world.rules.state_res.v2_rules().unwrap();
    let subgraph = if rules.consider_conflicted_state_subgraph { subgraph(world, &values) } else { BTreeSet::new() };
    if values.is_empty() { BTreeSet::new() } else { difference.chain(values.iter().copied()).chain(subgraph).collect() }
}

/// These events, and all their auth events, and all of those.
pub(super) fn chain(world: &World, from: impl Iterator<Item = EventNid>) -> BTreeSet<EventNid> {
    let mut todo: Vec<EventNid> = from.collect();
    let mut chain = BTreeSet::new();
    while let Some(nid) = todo.pop() {
        if chain.insert(nid) {
            todo.extend(&world.auth_node(nid).auth);
        }
    }
    chain
}

/// The events above and below which there are conflicted ones.
fn subgraph(world: &World, values: &BTreeSet<EventNid>) -> BTreeSet<EventNid> {
    let below = chain(world, values.iter().copied());
    let leads = |nid: &EventNid| {
        let auth = world.auth_node(*nid).auth.iter().copied();
        !chain(world, auth).is_disjoint(values)
    };
    below.into_iter().filter(|nid| leads(nid)).collect()
}

/// The auth chains as the specification's words have them, without the events themselves.
pub(super) fn exclusive_chains(world: &World, states: &[State]) -> Vec<BTreeSet<EventNid>> {
    let auth = |state: &State| {
        let nids: BTreeMap<_, _> = state.values().map(|held| (held.event_nid, ())).collect();
        chain(world, nids.into_keys().flat_map(|nid| world.auth_node(nid).auth.iter().copied()))
    };
    states.iter().map(auth).collect()
}
