//! The conflicted state subgraph, which room version 12 and later resolve too.

use std::collections::{BTreeMap, BTreeSet};

use super::{ResolveError, auth_graph::AuthGraph};
use crate::{ids::EventNid, model::GraphReader};

/// The events between two conflicted values: those that one of them has among its auth events or their auth events, and
/// that have another one there. Conflicted values themselves may be among them.
///
/// The walk ends at the least auth depth of a conflicted value: nothing below leads to one.
pub(super) async fn conflicted_subgraph<R: GraphReader>(
    graph: &mut AuthGraph<'_, R>,
    values: &BTreeSet<EventNid>,
) -> Result<BTreeSet<EventNid>, ResolveError<R::Error>> {
    let mut least = i64::MAX;
    for value in values {
        least = least.min(graph.node(*value)?.auth_depth);
    }
    // The events from which the walk goes on, with their depths.
    let mut visited: BTreeMap<EventNid, i64> = BTreeMap::new();
    let mut step: Vec<EventNid> = values.iter().copied().collect();
    while !step.is_empty() {
        graph.load(step.iter().copied()).await?;
        let mut next = BTreeSet::new();
        for nid in step {
            let node = graph.node(nid)?;
            if node.auth_depth > least && visited.insert(nid, node.auth_depth).is_none() {
                next.extend(node.auth.iter().filter(|auth| !visited.contains_key(auth)));
            }
        }
        step = next.into_iter().collect();
    }

    // From below: an auth event is less deep than the events that name it.
    let mut by_depth: Vec<(i64, EventNid)> = visited.into_iter().map(|(nid, depth)| (depth, nid)).collect();
    by_depth.sort_unstable();
    let mut leading = BTreeSet::new();
    for (_, nid) in by_depth {
        if graph.node(nid)?.auth.iter().any(|auth| values.contains(auth) || leading.contains(auth)) {
            leading.insert(nid);
        }
    }
    Ok(leading)
}
