//! The room as it must be: the whole state after each event, resolved by ruma from whole states.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::RoomVersionRules,
    state_res::{StateMap, resolve, utils::event_id_set::EventIdSet},
};
use sabha_federation::{Pdu, graph::auth_event_ids, standing::Flags};

/// A whole state: the event of each type and state key.
pub(super) type State = BTreeMap<(String, String), OwnedEventId>;

pub(super) struct Model {
    pub(super) rules: RoomVersionRules,
    events: BTreeMap<OwnedEventId, Known>,
    /// The event that was learnt last, which is no outlier.
    last: Option<OwnedEventId>,
}

struct Known {
    pdu: Arc<Pdu>,
    flags: Flags,
    before: State,
    after: State,
}

impl Model {
    pub(super) fn new(rules: RoomVersionRules) -> Self {
        Self { rules, events: BTreeMap::new(), last: None }
    }

    /// Adds an event whose previous events are known.
    pub(super) fn learn(&mut self, mut pdu: Arc<Pdu>, flags: Flags) {
        let is_outlier = flags.contains(Flags::OUTLIER);
        let before = if is_outlier { State::new() } else { self.resolved(&pdu.prev_events) };
        let (mut after, event_id) = (before.clone(), pdu.event_id.clone());
        if let Some(state_key) = &pdu.state_key
            && !flags.contains(Flags::REJECTED)
        {
            after.insert((pdu.event_type.clone(), state_key.clone()), event_id.clone());
        }
        Arc::make_mut(&mut pdu).rejected = flags.contains(Flags::REJECTED);
        if !is_outlier {
            self.last = Some(event_id.clone());
        }
        self.events.insert(event_id, Known { pdu, flags, before, after });
    }

    /// The depth of a known event.
    pub(super) fn depth(&self, event_id: &EventId) -> Option<u64> {
        self.events.get(event_id).map(|event| event.pdu.depth)
    }

    /// The event that was learnt last, and the state before it.
    pub(super) fn last(&self) -> (&OwnedEventId, &State) {
        let last = self.last.as_ref().expect("the room has events");
        (last, &self.events[last].before)
    }

    /// The accepted events that no accepted event reaches, directly or through failed ones.
    pub(super) fn tips(&self) -> BTreeSet<OwnedEventId> {
        let is_accepted = |id: &&OwnedEventId| self.events.get(*id).is_some_and(|event| event.flags.is_accepted());
        let mut covered: BTreeSet<&OwnedEventId> = BTreeSet::new();
        let mut todo: Vec<&OwnedEventId> =
            self.events.keys().filter(is_accepted).flat_map(|id| &self.events[id].pdu.prev_events).collect();
        while let Some(id) = todo.pop() {
            if covered.insert(id) && !is_accepted(&id) {
                todo.extend(self.events.get(id).into_iter().flat_map(|event| &event.pdu.prev_events));
            }
        }
        self.events.keys().filter(is_accepted).filter(|id| !covered.contains(id)).cloned().collect()
    }

    /// The state after these events.
    pub(super) fn resolved<'a>(&self, events: impl IntoIterator<Item = &'a OwnedEventId>) -> State {
        let mut states: Vec<&State> = Vec::new();
        for event_id in events {
            let after = &self.events[event_id].after;
            if !states.contains(&after) {
                states.push(after);
            }
        }
        match states[..] {
            [] => State::new(),
            [one] => one.clone(),
            _ => self.resolve(&states),
        }
    }

    fn resolve(&self, states: &[&State]) -> State {
        let map = |state: &&State| -> StateMap<OwnedEventId> {
            let entry = |((event_type, state_key), event_id): (&(String, String), &OwnedEventId)| {
                ((StateEventType::from(event_type.as_str()), state_key.clone()), event_id.clone())
            };
            state.iter().map(entry).collect()
        };
        let maps: Vec<_> = states.iter().map(map).collect();
        let chains = states.iter().map(|state| self.chain(state.values()).into_iter().collect::<EventIdSet<_>>());
        let fetch = |event_id: &EventId| self.events.get(event_id).map(|event| Arc::clone(&event.pdu));
        let subgraph = |conflicted: &StateMap<Vec<OwnedEventId>>| {
            let values: BTreeSet<OwnedEventId> = conflicted.values().flatten().cloned().collect();
            let below = self.chain(values.iter());
            let leads = |id: &OwnedEventId| {
                !self.chain(auth_event_ids(&self.rules, &self.events[id].pdu).iter()).is_disjoint(&values)
            };
            Some(below.into_iter().filter(|id| leads(id)).collect::<EventIdSet<_>>())
        };
        let rules = self.rules.state_res.v2_rules().expect("not room version 1");
        let resolved = resolve(&self.rules.authorization, rules, &maps, chains.collect(), fetch, subgraph);
        let resolved = resolved.expect("all events are known");
        resolved.into_iter().map(|((event_type, key), id)| ((event_type.to_string(), key), id)).collect()
    }

    /// These events, and all their auth events, and all of those.
    fn chain<'a>(&self, from: impl Iterator<Item = &'a OwnedEventId>) -> BTreeSet<OwnedEventId> {
        let mut todo: Vec<OwnedEventId> = from.cloned().collect();
        let mut chain = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if !chain.contains(&id) {
                todo.extend(auth_event_ids(&self.rules, &self.events[&id].pdu));
                chain.insert(id);
            }
        }
        chain
    }
}
