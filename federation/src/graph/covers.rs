//! The events that an event covers: no covered event is a forward extremity.
//!
//! An accepted event covers the events that it names as previous ones, and through rejected and soft-failed ones what those
//! name. Without this, a forward extremity that only failed events follow would stay for ever. Missing events that are
//! met are covered in advance. So the extremities do not depend on the order in which events come.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{EventId, OwnedEventId};

use super::missing::{Previous, is_covered, previous};
use crate::{
    ids::EventNid,
    model::{EventReader, GraphNode, GraphReader},
};

/// The largest number of events that one event covers, missing ones included. A walk reads all failed events on its way
/// inside the room's turn, and a server can send any number of them. Events beyond stay forward extremities until
/// another event covers them.
const MAX_COVERED: usize = 1_000;

/// The number of failed events that a walk has in memory at once: 2 MiB of the largest ones.
const FAILED_AT_ONCE: usize = 32;

/// The events that an event covers.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Covered {
    /// The accepted ones, in their order.
    pub nids: Vec<EventNid>,
    /// The IDs of the missing ones, in their order. They must be stored as covered, so that none of them becomes a forward
    /// extremity when it comes.
    pub missing: Vec<OwnedEventId>,
}

/// The events that an accepted event covers, of the line or of history.
///
/// # Errors
/// When reading fails.
pub async fn covers<R: GraphReader + EventReader>(reader: &R, prev: &Previous) -> Result<Covered, R::Error> {
    let mut walk = Walk::default();
    let mut failed = walk.visit(&prev.known);
    walk.missing.extend(prev.missing.iter().cloned());
    while !failed.is_empty() {
        let mut next = Vec::new();
        for some in failed.chunks(FAILED_AT_ONCE) {
            // The names in the events themselves, because an event that came after them is named there alone.
            let pdus = reader.pdus(some).await?;
            let named: BTreeSet<_> = pdus.iter().flat_map(|pdu| &pdu.prev_events).cloned().collect();
            drop(pdus);
            let prev = previous(reader, &named.into_iter().collect::<Vec<_>>()).await?;
            next.extend(walk.visit(&prev.known));
            for event_id in prev.missing {
                if walk.has_room() {
                    walk.missing.insert(event_id);
                }
            }
        }
        failed = next;
    }
    Ok(Covered { nids: walk.accepted, missing: walk.missing.into_iter().collect() })
}

/// The events that are covered when a rejected or soft-failed event comes. `None`: no accepted event covers it, so it
/// covers nothing.
///
/// # Errors
/// When reading fails.
pub async fn late<R: GraphReader + EventReader>(
    reader: &R,
    event_id: &EventId,
    prev: &Previous,
) -> Result<Option<Covered>, R::Error> {
    if is_covered(reader, event_id).await? { covers(reader, prev).await.map(Some) } else { Ok(None) }
}

/// A walk from an event through failed events.
#[derive(Default)]
struct Walk {
    visited: BTreeSet<EventNid>,
    accepted: Vec<EventNid>,
    missing: BTreeSet<OwnedEventId>,
}

impl Walk {
    fn has_room(&self) -> bool {
        self.visited.len() + self.missing.len() < MAX_COVERED
    }

    /// Takes the accepted ones of these events. Returns the failed ones, which the walk passes through.
    fn visit(&mut self, nodes: &[Arc<GraphNode>]) -> Vec<EventNid> {
        let mut failed = Vec::new();
        for node in nodes {
            if !self.has_room() {
                break;
            }
            if self.visited.insert(node.nid) {
                if node.flags.is_accepted() { &mut self.accepted } else { &mut failed }.push(node.nid);
            }
        }
        failed
    }
}
