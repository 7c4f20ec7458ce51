//! State resolution: one state from the states of several branches.
//!
//! Ruma resolves. It wants whole states and whole auth chains, which are tens of thousands of events in a large room, so
//! this module finds the small part of them on which the result depends and gives ruma only that. Server-server API,
//! [State resolution](https://spec.matrix.org/v1.19/rooms/v12/#state-resolution).
//!
//! Promises:
//! - The result is that of ruma with the whole states and chains.
//! - An event that is missing fails the resolution. Ruma would go on without it, and resolve to another state than other
//!   servers.
//! - Everything that is read has a bound, so a room that is too large for it keeps its state.
//!
//! In the order of the steps: the keys in which the states differ ([`gather`]), the conflicted state subgraph
//! ([`subgraph`]), the auth difference ([`difference`]), the events that ruma will ask for ([`inputs`]), and ruma itself
//! ([`run`]). [`prepare`] makes all steps but the last, which reads nothing and can so run on another thread.
//! [`Resolutions`] remembers results; [`alarm()`] tells of those that an operator should look at.
//!
//! The specification takes the full auth chain of a state from the auth events of its events. Synapse and this module take
//! the events of the state too. This matters for an event that all states have and only some have below another one: it
//! is not in the auth difference here.

use std::collections::BTreeSet;

use ruma::{RoomId, room_version_rules::RoomVersionRules};

use crate::{
    held::StateDelta,
    ids::{EventNid, Position},
    model::RoomReader,
};

mod alarm;
mod auth_graph;
mod cache;
mod difference;
mod gather;
mod inputs;
mod run;
mod state_set;
mod subgraph;

#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    alarm::{Alarm, alarm},
    cache::{ResolutionKey, Resolutions},
    run::{Prepared, Resolved, RunError},
};

/// States of one room that shall become one.
#[derive(Clone, Debug)]
pub struct Conflict<'a> {
    /// The position of the state log to which the states are differences.
    pub base: Position,
    /// The states, at least one. Equal ones change nothing but cost time: one of each is enough.
    pub states: Vec<&'a StateDelta>,
    pub rules: &'a RoomVersionRules,
    pub room_id: &'a RoomId,
    /// The room's create event.
    pub create: EventNid,
}

/// Why states could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError<E: std::error::Error + 'static> {
    #[error("there is no state to resolve")]
    NoStates,
    /// More events than [`auth_graph::MOST_NODES`].
    #[error("the auth chains have more than {0} events")]
    ChainsTooLong(usize),
    /// More JSON than [`inputs::MOST_BYTES`].
    #[error("the events to resolve have more than {0} bytes")]
    EventsTooLarge(u64),
    #[error("event {0:?} was read, but not found")]
    Missing(EventNid),
    #[error("event {0:?} is in a state under another key than its own")]
    Misplaced(EventNid),
    #[error("event {0:?} would be resolved, but is not a state event")]
    NotState(EventNid),
    #[error("event {0:?} belongs to another room")]
    Foreign(EventNid),
    #[error("reading the room failed")]
    Read(#[source] E),
}

impl<E: std::error::Error + 'static> From<E> for ResolveError<E> {
    fn from(error: E) -> Self {
        Self::Read(error)
    }
}

/// Finds the events on which the resolution depends, and reads them.
///
/// # Errors
/// When an event is missing or wrong, when the room is too large, or when reading fails.
pub async fn prepare<R: RoomReader>(reader: &R, conflict: &Conflict<'_>) -> Result<Prepared, ResolveError<R::Error>> {
    let mut states = gather::gather(reader, conflict).await?;
    if states.conflicted.is_empty() {
        return Ok(Prepared::without_conflict(conflict.rules, states.agreed, states.in_log));
    }
    let values: BTreeSet<EventNid> = states.conflicted_values().collect();
    let mut graph = auth_graph::AuthGraph::new(reader);
    graph.load(values.iter().copied()).await?;

    let v2 = conflict.rules.state_res.v2_rules();
    let subgraph = if v2.is_some_and(|rules| rules.consider_conflicted_state_subgraph) {
        subgraph::conflicted_subgraph(&mut graph, &values).await?
    } else {
        BTreeSet::new()
    };
    let mut full: BTreeSet<EventNid> = values.union(&subgraph).copied().collect();
    let difference = difference::auth_difference(&mut graph, &mut states, &full).await?;
    full.extend(difference);
    inputs::load(conflict, states, graph, full).await
}
