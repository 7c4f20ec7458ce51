//! The previous events of an event that are known, and those that are not.
//!
//! An event is known if it is stored in this room and has a state before it. An outlier has none, so it counts as missing.
//! It may be placed later, and must then be covered as if it came for the first time.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{EventId, OwnedEventId};

use crate::{
    model::{GraphNode, GraphReader},
    standing::Flags,
};

/// The previous events of an event.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Previous {
    /// The known ones, in the order of their short ids.
    pub known: Vec<Arc<GraphNode>>,
    /// The IDs of the others, in their order. An event of another room is among them.
    pub missing: BTreeSet<OwnedEventId>,
}

/// Looks up the events with these IDs. An ID that comes twice counts once.
///
/// # Errors
/// When reading fails.
pub async fn previous<R: GraphReader>(reader: &R, prev_events: &[OwnedEventId]) -> Result<Previous, R::Error> {
    let found = reader.find(prev_events).await?;
    let nids: BTreeSet<_> = found.values().copied().collect();
    let nodes = reader.nodes(&nids.into_iter().collect::<Vec<_>>()).await?;
    let (outliers, known): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| node.flags.contains(Flags::OUTLIER));
    let mut missing: BTreeSet<_> = prev_events.iter().filter(|id| !found.contains_key(*id)).cloned().collect();
    missing.extend(outliers.iter().map(|node| node.event_id.clone()));
    Ok(Previous { known, missing })
}

/// Returns whether an event with this ID was covered before it was known. Then it never becomes a forward extremity.
///
/// # Errors
/// When reading fails.
pub async fn is_covered<R: GraphReader>(reader: &R, event_id: &EventId) -> Result<bool, R::Error> {
    let coverers = reader.coverers(&[event_id.to_owned()]).await?;
    Ok(coverers.values().any(|coverers| !coverers.is_empty()))
}
