//! Walks through graphs in memory, against models that look at everything.

mod auth_chain;
mod covers;
mod order;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ruma::{OwnedEventId, RoomVersionId};
use serde_json::json;

use super::*;
use crate::{
    ids::{EventNid, KeyNid, Position, TimelinePlace},
    model::{AuthNode, EventReader, GraphNode, GraphReader, Reads},
    pdu::Pdu,
    rules,
    standing::{Flags, StateAt},
    test_ready::ready,
};

/// The number of an event in a test. Its ID is made of it.
type Number = usize;

fn id(number: Number) -> OwnedEventId {
    format!("${number}").try_into().unwrap()
}

/// The fate of an event when it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Line,
    History,
    SoftFailed,
    Rejected,
    Outlier,
}

impl Kind {
    fn is_accepted(self) -> bool {
        matches!(self, Self::Line | Self::History)
    }

    fn flags(self) -> Flags {
        match self {
            Self::Line | Self::History => Flags::NONE,
            Self::SoftFailed => Flags::SOFT_FAILED,
            Self::Rejected => Flags::REJECTED,
            Self::Outlier => Flags::OUTLIER,
        }
    }
}

/// The stored events of a room, as a server keeps them.
#[derive(Default)]
struct Graph {
    nodes: BTreeMap<EventNid, Arc<GraphNode>>,
    pdus: BTreeMap<EventNid, Arc<Pdu>>,
    auth_nodes: BTreeMap<EventNid, Arc<AuthNode>>,
    nids: BTreeMap<OwnedEventId, EventNid>,
    /// The missing events that each event names or covers, and whether it covers them.
    edges: BTreeMap<OwnedEventId, BTreeMap<EventNid, bool>>,
    extremities: Extremities,
    reads: AtomicUsize,
}

#[derive(Debug, thiserror::Error)]
#[error("event {0:?} is not stored")]
struct NotStored(EventNid);

impl Graph {
    /// Takes an event as the writer does. Returns its short id.
    ///
    /// # Errors
    /// When no extremity would be left. Nothing is stored then.
    fn take(&mut self, number: Number, prev: &[Number], kind: Kind) -> Result<EventNid, NoneLeft> {
        let event_id = id(number);
        let prev_ids: Vec<_> = prev.iter().map(|number| id(*number)).collect();
        let next = EventNid(i64::try_from(self.nids.len()).unwrap() + 1);
        let nid = self.nids.get(&event_id).copied().unwrap_or(next);
        if kind != Kind::Outlier {
            let prev = ready(previous(self, &prev_ids)).unwrap();
            let covered = if kind.is_accepted() {
                Some(ready(covers(self, &prev)).unwrap())
            } else {
                ready(late(self, &event_id, &prev)).unwrap()
            };
            let becomes_one = kind == Kind::Line && !ready(is_covered(self, &event_id)).unwrap();
            let extremity = Extremity { nid, event_id: event_id.clone(), depth: 1, ts: 1, ours: false, after: None };
            let nids = covered.as_ref().map_or(&[][..], |covered| &covered.nids);
            self.extremities.accept(becomes_one.then_some(extremity), nids)?;
            for missing in prev.missing {
                self.edges.entry(missing).or_default().entry(nid).or_insert(false);
            }
            for missing in covered.into_iter().flat_map(|covered| covered.missing) {
                self.edges.entry(missing).or_default().insert(nid, true);
            }
        }
        self.store(nid, event_id, prev_ids, kind);
        Ok(nid)
    }

    fn store(&mut self, nid: EventNid, event_id: OwnedEventId, prev: Vec<OwnedEventId>, kind: Kind) {
        let known = prev.iter().filter_map(|id| self.nids.get(id).copied()).collect();
        let json = json!({
            "type": "m.room.message", "sender": "@a:example.org", "content": {}, "room_id": "!r:example.org",
            "origin_server_ts": 1, "depth": 1, "prev_events": prev, "auth_events": [],
        });
        let rules = rules(&RoomVersionId::V11).unwrap();
        let pdu = Pdu::from_stored(&rules, event_id.clone(), json.to_string()).unwrap();
        let place = match kind {
            Kind::Line => Some(TimelinePlace::on_line(Position(nid.0))),
            Kind::History => Some(TimelinePlace { pos: Position(nid.0), sub: -1 }),
            _ => None,
        };
        let node = GraphNode {
            nid,
            event_id: event_id.clone(),
            flags: kind.flags(),
            place,
            before: StateAt::EMPTY,
            key: None::<KeyNid>,
            membership: None,
            depth: 1,
            ts: 1,
            prev: known,
        };
        self.nids.insert(event_id, nid);
        self.nodes.insert(nid, Arc::new(node));
        self.pdus.insert(nid, Arc::new(pdu));
    }

    /// The IDs of the forward extremities, sorted.
    fn extremities(&self) -> BTreeSet<OwnedEventId> {
        self.extremities.iter().map(|extremity| extremity.event_id.clone()).collect()
    }

    /// The IDs that are covered in advance, sorted.
    fn covered_in_advance(&self) -> BTreeSet<OwnedEventId> {
        let covered = self.edges.iter().filter(|(_, children)| children.values().any(|covers| *covers));
        covered.map(|(id, _)| id.clone()).collect()
    }

    fn read<T>(&self, stored: &BTreeMap<EventNid, Arc<T>>, nids: &[EventNid]) -> Result<Vec<Arc<T>>, NotStored> {
        self.reads.fetch_add(nids.len(), Ordering::Relaxed);
        nids.iter().map(|nid| stored.get(nid).cloned().ok_or(NotStored(*nid))).collect()
    }
}

impl Reads for Graph {
    type Error = NotStored;
}

impl GraphReader for Graph {
    async fn nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<GraphNode>>, NotStored> {
        self.read(&self.nodes, nids)
    }

    async fn auth_nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<AuthNode>>, NotStored> {
        self.read(&self.auth_nodes, nids)
    }

    async fn find(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, EventNid>, NotStored> {
        Ok(ids.iter().filter_map(|id| Some((id.clone(), *self.nids.get(id)?))).collect())
    }

    async fn coverers(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, Vec<EventNid>>, NotStored> {
        let of = |id: &OwnedEventId| {
            let covering: Vec<_> =
                self.edges.get(id)?.iter().filter(|(_, covers)| **covers).map(|(child, _)| *child).collect();
            (!covering.is_empty()).then(|| (id.clone(), covering))
        };
        Ok(ids.iter().filter_map(of).collect())
    }
}

impl EventReader for Graph {
    async fn pdus(&self, nids: &[EventNid]) -> Result<Vec<Arc<Pdu>>, NotStored> {
        self.read(&self.pdus, nids)
    }

    async fn key(&self, _: &str, _: &str) -> Result<Option<KeyNid>, NotStored> {
        Ok(None)
    }
}
