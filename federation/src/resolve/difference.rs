//! The auth difference: events that are in the auth chains of some states, but not of all.
//!
//! An event that all states have, and all that is above it in the graph of auth events, is in every chain. So the
//! difference is among the auth events of the conflicted values, and the walk goes down from those, with the set of
//! the states from which it reached an event. It goes in the order of auth depths, so that an event is mostly visited when
//! all its states are known.
//!
//! An event that not all states reached may still be below one that all have. The walk looks first below those that most
//! probably are: the power levels, the join rules, and the values of the keys of the events that it meets. Only for the
//! events that remain it takes all unconflicted values, down to the least depth of a remaining one.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::{ResolveError, auth_graph::AuthGraph, gather::States, state_set::StateSet};
use crate::{ids::EventNid, model::RoomReader};

/// The number of unconflicted values that are read at once. The newest ones come first, and after a few hundred of
/// them mostly nothing remains.
const UNCONFLICTED_AT_ONCE: usize = 1_000;

/// The auth difference without the events of `settled`, which are resolved in any case. All of `settled` were read; the
/// conflicted values are among them.
pub(super) async fn auth_difference<R: RoomReader>(
    graph: &mut AuthGraph<'_, R>,
    states: &mut States<'_, R>,
    settled: &BTreeSet<EventNid>,
) -> Result<BTreeSet<EventNid>, ResolveError<R::Error>> {
    let all = StateSet::all(states.count);
    let mut walk = Walk { graph, settled, reached: BTreeMap::new(), waiting: BinaryHeap::new(), open: BTreeSet::new() };
    for value in states.conflicted.values().flatten() {
        walk.reach(value.held.event_nid, &value.states)?;
    }
    for event_type in ["m.room.power_levels", "m.room.join_rules"] {
        if let Some(key) = walk.graph.reader.key(event_type, "").await?
            && let Some(held) = states.unconflicted(key).await?
        {
            walk.graph.load([held.event_nid]).await?;
            walk.reach(held.event_nid, &all)?;
        }
    }
    walk.go_down(states).await?;

    if !walk.open.is_empty() {
        let unconflicted: Vec<EventNid> = states.all_unconflicted().await?.into_iter().rev().collect();
        for some in unconflicted.chunks(UNCONFLICTED_AT_ONCE) {
            walk.graph.load(some.iter().copied()).await?;
            for nid in some {
                // Only a deeper event can have an open one below it.
                let depth = walk.graph.node(*nid)?.auth_depth;
                if walk.open.first().is_some_and(|(least, _)| depth > *least) {
                    walk.reach(*nid, &all)?;
                }
            }
            walk.go_down(states).await?;
            if walk.open.is_empty() {
                break;
            }
        }
    }
    Ok(walk.open.into_iter().map(|(_, nid)| nid).collect())
}

struct Walk<'g, 'r, R> {
    graph: &'g mut AuthGraph<'r, R>,
    settled: &'g BTreeSet<EventNid>,
    /// The states whose auth chains have an event, as far as known.
    reached: BTreeMap<EventNid, StateSet>,
    /// The events whose states were not passed on to their auth events, deepest first.
    waiting: BinaryHeap<(i64, EventNid)>,
    /// The events that not all states reached, by depth. Settled ones leave when their states were passed on; of the
    /// others the auth difference remains.
    open: BTreeSet<(i64, EventNid)>,
}

impl<R: RoomReader> Walk<'_, '_, R> {
    /// Adds the states from which an event is reached. The event was read.
    fn reach(&mut self, nid: EventNid, from: &StateSet) -> Result<(), ResolveError<R::Error>> {
        let depth = self.graph.node(nid)?.auth_depth;
        let states = match self.reached.get_mut(&nid) {
            Some(states) => {
                if !states.add(from) {
                    return Ok(());
                }
                states
            }
            None => self.reached.entry(nid).or_insert_with(|| from.clone()),
        };
        if states.is_full() {
            self.open.remove(&(depth, nid));
        } else {
            self.open.insert((depth, nid));
        }
        self.waiting.push((depth, nid));
        Ok(())
    }

    /// Passes states on to auth events, until nothing that waits can have an open event below it.
    async fn go_down(&mut self, states: &mut States<'_, R>) -> Result<(), ResolveError<R::Error>> {
        let all = StateSet::all(states.count);
        while let (Some(&(depth, _)), Some(&(least, _))) = (self.waiting.peek(), self.open.first())
            && depth >= least
        {
            let mut step = BTreeSet::new();
            while let Some(&(same, nid)) = self.waiting.peek()
                && same == depth
            {
                self.waiting.pop();
                step.insert(nid);
            }
            let values = self.values_of_keys(states, &step).await?;
            self.graph.load(values.iter().copied()).await?;
            for value in values {
                self.reach(value, &all)?;
            }
            self.graph.load_auth_of(step.iter().copied()).await?;
            for nid in step {
                if self.settled.contains(&nid) {
                    self.open.remove(&(depth, nid));
                }
                let from = self.reached[&nid].clone();
                for auth in self.graph.node(nid)?.auth.clone() {
                    self.reach(auth, &from)?;
                }
            }
        }
        Ok(())
    }

    /// The common values of all states for the keys of these events: one of the events itself, or another one, below which it may be.
    async fn values_of_keys(
        &self,
        states: &mut States<'_, R>,
        nids: &BTreeSet<EventNid>,
    ) -> Result<Vec<EventNid>, ResolveError<R::Error>> {
        let mut values = Vec::new();
        for nid in nids.iter().filter(|nid| !self.reached[nid].is_full()) {
            if let Some(key) = self.graph.node(*nid)?.key
                && let Some(held) = states.unconflicted(key).await?
            {
                values.push(held.event_nid);
            }
        }
        Ok(values)
    }
}
