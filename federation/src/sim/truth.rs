//! The truth: what servers must make of events, computed from the events alone, the long way.
//!
//! States are whole, and ruma resolves them with whole auth chains. There are no sides, no deltas and no log, and no
//! code is shared with the servers but the rules of a single event: whether a state allows it, and what it may redact.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{EventId, OwnedEventId, UserId, room_version_rules::RoomVersionRules};
use serde_json::Value as JsonValue;

use crate::{
    auth,
    graph::{by_power, may_redact},
    ids::EventNid,
    pdu::Pdu,
    resolve::tests::whole::resolve_whole,
    test_world::{State, World},
};

/// The number of a state. Equal states have the same.
type StateNumber = usize;

/// The room's events as a whole, with the state before and after each.
pub(super) struct Truth {
    world: World,
    states: Vec<State>,
    numbers: BTreeMap<BTreeSet<EventNid>, StateNumber>,
    resolved: BTreeMap<BTreeSet<StateNumber>, StateNumber>,
    events: BTreeMap<EventNid, Known>,
}

/// The truth about an event.
struct Known {
    prev: Vec<EventNid>,
    before: StateNumber,
    after: StateNumber,
    is_rejected: bool,
}

/// A server's view of the room, event by event.
#[derive(Default)]
pub(super) struct View {
    /// Whether the server accepted each event that it knows.
    is_accepted: BTreeMap<EventNid, bool>,
    extremities: BTreeSet<EventNid>,
    current: Option<StateNumber>,
}

/// The outcome that an event must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Accepted,
    SoftFailed,
    Rejected,
}

impl Truth {
    /// The truth about these events, each of which comes after those that it names. The first one creates the room.
    pub fn about<'a>(rules: &RoomVersionRules, events: impl IntoIterator<Item = &'a Pdu>) -> Self {
        let mut events = events.into_iter();
        let create = events.next().expect("the room was created");
        let mut truth = Self {
            world: World::from_events(rules.clone(), &[json_of(create)]),
            states: Vec::new(),
            numbers: BTreeMap::new(),
            resolved: BTreeMap::new(),
            events: BTreeMap::new(),
        };
        truth.take(truth.world.create, create);
        for event in events {
            let nid = truth.world.add(json_of(event));
            truth.take(nid, event);
        }
        truth
    }

    fn take(&mut self, nid: EventNid, event: &Pdu) {
        let prev: Vec<EventNid> = event.prev_events.iter().map(|id| self.world.nid(id)).collect();
        let before = self.after_all(&prev);
        let find = |id: &EventId| Some(self.world.pdu(self.world.nid(id)).clone());
        let is_rejected = auth::check_auth_events(&self.world.rules, event, find).is_err()
            || !self.world.allows(&self.world.state(&self.world.auth_node(nid).auth), nid)
            || !self.world.allows(&self.states[before], nid);
        let mut after = before;
        if is_rejected {
            self.world.reject(nid);
        } else if event.state_key.is_some() {
            let mut state = self.states[before].clone();
            self.world.set(&mut state, nid);
            after = self.number(state);
        }
        self.events.insert(nid, Known { prev, before, after, is_rejected });
    }

    /// The state after all of these events: the one after each of them, or those resolved.
    fn after_all<'a>(&mut self, events: impl IntoIterator<Item = &'a EventNid>) -> StateNumber {
        let after: BTreeSet<StateNumber> = events.into_iter().map(|nid| self.events[nid].after).collect();
        match after.len() {
            0 => self.number(State::new()),
            1 => after.into_iter().sum(),
            _ => match self.resolved.get(&after) {
                Some(number) => *number,
                None => {
                    let states: Vec<State> = after.iter().map(|number| self.states[*number].clone()).collect();
                    let resolved = resolve_whole(&self.world, &states).expect("the rules can be applied");
                    let number = self.number(resolved);
                    self.resolved.insert(after, number);
                    number
                }
            },
        }
    }

    fn number(&mut self, state: State) -> StateNumber {
        let events = state.values().map(|held| held.event_nid).collect();
        *self.numbers.entry(events).or_insert_with(|| {
            self.states.push(state);
            self.states.len() - 1
        })
    }

    /// The events of the state before an event.
    pub fn before(&self, event_id: &EventId) -> BTreeSet<OwnedEventId> {
        self.ids_of(self.events[&self.world.nid(event_id)].before)
    }

    /// Returns whether an accepted redaction redacts an event of this user.
    pub fn may_redact(&self, redaction: &EventId, target_sender: &UserId) -> bool {
        let world = &self.world;
        let event = world.pdu(world.nid(redaction));
        let before = &self.states[self.events[&world.nid(redaction)].before];
        let mut pdus = before.values().map(|held| world.pdu(held.event_nid));
        let levels = pdus.find(|pdu| pdu.is_state("m.room.power_levels", ""));
        let by_power = by_power(&world.rules, event, levels.map(|pdu| &**pdu), world.pdu(world.create));
        may_redact(by_power, &event.sender, target_sender)
    }

    /// The number of resolutions that the events needed so far.
    pub fn resolutions(&self) -> usize {
        self.resolved.len()
    }

    fn ids_of(&self, state: StateNumber) -> BTreeSet<OwnedEventId> {
        self.states[state].values().map(|held| self.world.pdu(held.event_nid).event_id.clone()).collect()
    }

    /// Shows the next event to a server that has this view, and returns what the server must do with it.
    pub fn show(&mut self, view: &mut View, event_id: &EventId) -> Outcome {
        let nid = self.world.nid(event_id);
        let event = &self.events[&nid];
        let prev: BTreeSet<EventNid> = event.prev.iter().copied().collect();
        let outcome = if event.is_rejected {
            Outcome::Rejected
        } else if prev == view.extremities || self.is_allowed_now(view, nid) {
            Outcome::Accepted
        } else {
            Outcome::SoftFailed
        };
        view.is_accepted.insert(nid, outcome == Outcome::Accepted);
        if outcome == Outcome::Accepted {
            let mut covered = prev;
            while let Some(prev) = covered.pop_last() {
                view.extremities.remove(&prev);
                if !view.is_accepted[&prev] {
                    covered.extend(&self.events[&prev].prev);
                }
            }
            view.extremities.insert(nid);
            view.current = Some(self.after_all(&view.extremities));
        }
        outcome
    }

    fn is_allowed_now(&self, view: &View, nid: EventNid) -> bool {
        view.current.is_some_and(|current| self.world.allows(&self.states[current], nid))
    }

    /// The forward extremities of a server with this view.
    pub fn extremities(&self, view: &View) -> BTreeSet<OwnedEventId> {
        view.extremities.iter().map(|nid| self.world.pdu(*nid).event_id.clone()).collect()
    }

    /// The events of the room's state at a server with this view.
    pub fn current(&self, view: &View) -> BTreeSet<OwnedEventId> {
        view.current.map(|current| self.ids_of(current)).unwrap_or_default()
    }
}

/// An event with its ID in its JSON.
fn json_of(event: &Pdu) -> JsonValue {
    let mut json: JsonValue = serde_json::from_str(&event.json).expect("a stored event is JSON");
    json["event_id"] = event.event_id.as_str().into();
    json
}
