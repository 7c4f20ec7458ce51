//! The last step: ruma resolves what was prepared.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::RoomVersionRules,
    state_res::{StateMap, resolve, utils::event_id_set::EventIdSet},
};

use super::gather::same_event;
use crate::{
    held::{Held, StateDelta},
    ids::{EventNid, KeyNid},
    pdu::Pdu,
};

/// The number of events to resolve from which on the caller takes a thread that may block. Ruma checks a few
/// thousand events in a second, and a task should give way after some tens of milliseconds.
const LARGE: usize = 200;

/// Everything that a resolution needs. Nothing is read from here on.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(super) rules: RoomVersionRules,
    /// The keys in which the states differ.
    pub(super) conflicted: BTreeSet<KeyNid>,
    /// The differences of all states to the log, at other keys.
    pub(super) agreed: StateDelta,
    /// The log at the keys of all differences and of all possible results.
    pub(super) in_log: BTreeMap<KeyNid, Option<Held>>,
    /// The full conflicted set: the events to resolve, each with its key.
    pub(super) full: BTreeMap<EventNid, KeyNid>,
    /// The common values of all states, at the keys that ruma looks at.
    pub(super) unconflicted: BTreeMap<KeyNid, Held>,
    /// The entry of each event of the full conflicted set, as a state has it.
    pub(super) held: BTreeMap<EventNid, Held>,
    /// The events that ruma asks for.
    pub(super) events: BTreeMap<EventNid, Arc<Pdu>>,
}

/// The state that several states became.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The difference to the log at the position to which the states were differences. It has no key that is as there.
    pub changes: StateDelta,
    /// The number of keys in which the states differed.
    pub conflicted: usize,
    /// The number of events that were resolved.
    pub full: usize,
    in_log: BTreeMap<KeyNid, Option<Held>>,
}

/// Why ruma did not resolve the states.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the room version has no state resolution of version 2")]
    RoomVersion,
    #[error("event {0} is needed and was not read")]
    Missing(OwnedEventId),
    #[error("the rules of state resolution failed")]
    Rules(#[source] ruma::state_res::Error),
}

impl Prepared {
    /// States that agree in all keys.
    pub(super) fn without_conflict(
        rules: &RoomVersionRules,
        agreed: StateDelta,
        in_log: BTreeMap<KeyNid, Option<Held>>,
    ) -> Self {
        Self {
            rules: rules.clone(),
            conflicted: BTreeSet::new(),
            agreed,
            in_log,
            full: BTreeMap::new(),
            unconflicted: BTreeMap::new(),
            held: BTreeMap::new(),
            events: BTreeMap::new(),
        }
    }

    /// Returns whether [`run`](Self::run) may take so long that it belongs on a thread that may block.
    pub fn is_large(&self) -> bool {
        self.full.len() > LARGE
    }

    /// Resolves the states.
    ///
    /// # Errors
    /// When an event is missing, or has a form that no event of a state may have. The room then keeps its state.
    pub fn run(self) -> Result<Resolved, RunError> {
        let mut changes = self.agreed.clone();
        if !self.conflicted.is_empty() {
            let resolved = self.resolve()?;
            for key in self.conflicted.iter().chain(self.full.values()) {
                changes.set(*key, resolved.get(key).copied());
            }
            for (key, in_log) in &self.in_log {
                if changes.get(*key).is_some_and(|held| same_event(held, *in_log)) {
                    changes.remove(*key);
                }
            }
        }
        Ok(Resolved { changes, conflicted: self.conflicted.len(), full: self.full.len(), in_log: self.in_log })
    }

    /// The resolved state at the keys that ruma looks at.
    ///
    /// Ruma takes some types for others: those that it knows under an older name too. Two such keys would be one to it,
    /// so there is a run for each, without the other one. They authorize nothing, so the runs agree on all other keys.
    fn resolve(&self) -> Result<BTreeMap<KeyNid, Held>, RunError> {
        let mut same_name: BTreeMap<StateKey, BTreeSet<KeyNid>> = BTreeMap::new();
        let full = self.full.iter().map(|(nid, key)| (*nid, *key));
        for (nid, key) in full.chain(self.unconflicted.iter().map(|(key, held)| (held.event_nid, *key))) {
            same_name.entry(key_in_ruma(&self.events[&nid])).or_default().insert(key);
        }
        let runs = same_name.values().map(BTreeSet::len).max().unwrap_or_default();
        let mut resolved = BTreeMap::new();
        for run in 0..runs {
            let mut left_out = BTreeSet::new();
            for keys in same_name.values() {
                let here = run.min(keys.len() - 1);
                left_out.extend(keys.iter().enumerate().filter(|(index, _)| *index != here).map(|(_, key)| *key));
            }
            resolved.extend(self.resolve_without(&left_out)?);
        }
        Ok(resolved)
    }

    /// Lets ruma resolve all keys but these.
    fn resolve_without(&self, left_out: &BTreeSet<KeyNid>) -> Result<BTreeMap<KeyNid, Held>, RunError> {
        let rules = self.rules.state_res.v2_rules().ok_or(RunError::RoomVersion)?;
        let full = || self.full.iter().filter(|(_, key)| !left_out.contains(key));
        let unconflicted = || self.unconflicted.iter().filter(|(key, _)| !left_out.contains(key));

        // Ruma asks of the states only what all of them have, and whether there is a conflict at all. So there are two of
        // them, which differ in one key.
        let mut one = StateMap::new();
        for (_, held) in unconflicted() {
            let pdu = &self.events[&held.event_nid];
            one.insert(key_in_ruma(pdu), pdu.event_id.clone());
        }
        let mut other = one.clone();
        if let Some((nid, _)) = full().find(|(_, key)| !self.unconflicted.contains_key(key)) {
            let pdu = &self.events[nid];
            other.insert(key_in_ruma(pdu), pdu.event_id.clone());
        }
        // It resolves conflicted events and those that are in some auth chains, but not in all. With an empty chain, that
        // is all of the other chain. The subgraph is in it too.
        let chains = vec![full().map(|(nid, _)| self.events[nid].event_id.clone()).collect(), EventIdSet::new()];
        let subgraph = |_: &StateMap<Vec<OwnedEventId>>| Some(EventIdSet::new());

        let by_id: BTreeMap<&EventId, (EventNid, &Arc<Pdu>)> =
            self.events.iter().map(|(nid, pdu)| (&*pdu.event_id, (*nid, pdu))).collect();
        let missing: RefCell<Option<OwnedEventId>> = RefCell::default();
        let fetch = |event_id: &EventId| {
            let found = by_id.get(event_id);
            if found.is_none() {
                missing.borrow_mut().get_or_insert_with(|| event_id.to_owned());
            }
            found.map(|(_, pdu)| Arc::clone(pdu))
        };
        let result = resolve(&self.rules.authorization, rules, &[one, other], chains, fetch, subgraph);
        // Ruma goes on without a missing event, or fails with an error that says less.
        if let Some(event_id) = missing.into_inner() {
            return Err(RunError::Missing(event_id));
        }

        let mut keys: BTreeMap<EventNid, (KeyNid, Held)> =
            unconflicted().map(|(key, held)| (held.event_nid, (*key, *held))).collect();
        keys.extend(full().filter_map(|(nid, key)| Some((*nid, (*key, *self.held.get(nid)?)))));
        let resolved = result.map_err(RunError::Rules)?;
        Ok(resolved.values().filter_map(|event_id| keys.get(&by_id.get(&**event_id)?.0).copied()).collect())
    }
}

/// A key of state as ruma has it.
type StateKey = (StateEventType, String);

/// The key of a state event, as ruma reads it from the event.
fn key_in_ruma(pdu: &Pdu) -> StateKey {
    (StateEventType::from(pdu.ruma_type.to_string()), pdu.state_key.clone().unwrap_or_default())
}

impl Resolved {
    /// The difference of this state to one of those that were resolved, given as it was given for that.
    pub fn against(&self, state: &StateDelta) -> StateDelta {
        let both = self.in_log.iter().map(|(key, in_log)| {
            let of = |delta: &StateDelta| delta.get(*key).unwrap_or(*in_log);
            (*key, of(&self.changes), of(state))
        });
        both.filter(|(_, now, before)| !same_event(*now, *before)).map(|(key, now, _)| (key, now)).collect()
    }
}
