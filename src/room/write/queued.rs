//! Queued events: the next writer of a room must find them, and no reader may see them yet.
//!
//! The head of a room is ahead of the committed events, so a writer builds on events that are in no cache and no
//! database. They are kept here from the moment they are queued until their commit, and nothing removes them before.
//! The redacted form of an event is here too while its redaction is queued, so that no writer copies the removed
//! content. A side is here until its commit, because the next events may follow on its state.
//!
//! When the room's lineage breaks, the room is loaded again, and these events go with the old one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use ruma::{EventId, OwnedEventId};
use sabha_federation::{receive::WaitingRedaction, sides::Side, standing::Standing, state_log::StateHash};

use super::outcome::PendingRedaction;
use crate::{
    room::{
        applied::NewStanding,
        event::StoredEvent,
        read::relations::{Annotation, annotation},
    },
    store::{EventNid, Position, SideNid, ids::lock},
};

/// The number of events whose memory is kept when nothing is queued.
const KEPT_PLACES: usize = 64;

/// Queued events, sides, and standings of events.
#[derive(Debug, Default)]
pub(in crate::room) struct Queued {
    events: Mutex<HashMap<EventNid, QueuedEvent>>,
    sides: Mutex<BTreeMap<SideNid, Arc<Side>>>,
    /// The new standings of stored events, each with the position whose commit makes it known to everyone.
    restated: Mutex<BTreeMap<EventNid, (Position, Standing)>>,
}

#[derive(Debug)]
struct QueuedEvent {
    /// The position whose commit makes the event known to everyone.
    pos: Position,
    event: Arc<StoredEvent>,
    annotation: Option<Annotation>,
    /// `None`: the event itself is stored, and only its redaction is queued.
    links: Option<Links>,
}

/// The events that a queued event names.
#[derive(Debug, Default, Clone)]
pub(in crate::room) struct Links {
    /// The stored ones of the room among the previous events.
    pub(in crate::room) prev: Vec<EventNid>,
    pub(in crate::room) auth: Vec<EventNid>,
    /// The missing events that it covers in advance.
    pub(in crate::room) covers: Vec<OwnedEventId>,
    /// The missing event that it redacts.
    pub(in crate::room) redacts: Option<PendingRedaction>,
}

/// A queued event with the events that it names.
pub(in crate::room) struct InGraph {
    pub(in crate::room) event: Arc<StoredEvent>,
    pub(in crate::room) links: Links,
}

impl Queued {
    /// Adds the event as it will be once `pos` is committed.
    pub(in crate::room) fn add(&self, pos: Position, event: Arc<StoredEvent>, links: Links) {
        let annotation = annotation(&event.pdu);
        lock(&self.events).insert(event.nid, QueuedEvent { pos, event, annotation, links: Some(links) });
    }

    /// Adds the redacted form of an event, which may be queued itself.
    pub(in crate::room) fn add_redacted(&self, pos: Position, event: Arc<StoredEvent>) {
        let annotation = annotation(&event.pdu);
        let mut events = lock(&self.events);
        let links = events.remove(&event.nid).and_then(|queued| queued.links);
        events.insert(event.nid, QueuedEvent { pos, event, annotation, links });
    }

    /// A queued event as the walks through the room's graph see it.
    pub(in crate::room) fn in_graph(&self, nid: EventNid) -> Option<InGraph> {
        let events = lock(&self.events);
        let queued = events.get(&nid)?;
        let (event, links) = (Arc::clone(&queued.event), queued.links.clone()?);
        drop(events);
        Some(InGraph { event: self.as_restated(event), links })
    }

    /// The queued redactions of a missing event.
    pub(in crate::room) fn pending_redactions(&self, event_id: &EventId) -> Vec<WaitingRedaction> {
        let events = lock(&self.events);
        let waiting = |queued: &QueuedEvent| {
            let redaction = queued.links.as_ref()?.redacts.as_ref().filter(|redaction| redaction.target == event_id)?;
            Some(WaitingRedaction { nid: queued.event.nid, by_power: redaction.by_power })
        };
        events.values().filter_map(waiting).collect()
    }

    /// The queued events that cover a missing one in advance.
    pub(in crate::room) fn coverers(&self, event_id: &EventId) -> Vec<EventNid> {
        let events = lock(&self.events);
        let covers = |queued: &&QueuedEvent| {
            queued.links.as_ref().is_some_and(|links| links.covers.iter().any(|covered| covered == event_id))
        };
        events.values().filter(covers).map(|queued| queued.event.nid).collect()
    }

    pub(in crate::room) fn add_side(&self, side: Arc<Side>) {
        lock(&self.sides).insert(side.nid, side);
    }

    /// Notes the standing that a stored event has once `pos` is committed.
    pub(in crate::room) fn restate(&self, pos: Position, nid: EventNid, standing: Standing) {
        lock(&self.restated).insert(nid, (pos, standing));
    }

    /// The event with its queued standing, if it has one.
    pub(in crate::room) fn as_restated(&self, event: Arc<StoredEvent>) -> Arc<StoredEvent> {
        match lock(&self.restated).get(&event.nid) {
            Some((_, standing)) if *standing != event.standing => Arc::new(event.restated(*standing)),
            _ => event,
        }
    }

    /// The queued standing of a stored event.
    pub(in crate::room) fn restated(&self, nid: EventNid) -> Option<Standing> {
        lock(&self.restated).get(&nid).map(|(_, standing)| *standing)
    }

    /// A queued side whose state has this hash.
    pub(in crate::room) fn side_with(&self, hash: StateHash) -> Option<Arc<Side>> {
        lock(&self.sides).values().find(|side| side.hash == hash).cloned()
    }

    pub(in crate::room) fn side(&self, nid: SideNid) -> Option<Arc<Side>> {
        lock(&self.sides).get(&nid).cloned()
    }

    pub(in crate::room) fn get(&self, nid: EventNid) -> Option<Arc<StoredEvent>> {
        lock(&self.events).get(&nid).map(|entry| Arc::clone(&entry.event))
    }

    /// The event with this ID. Searches all of them; few are queued at any time.
    pub(in crate::room) fn find(&self, event_id: &EventId) -> Option<Arc<StoredEvent>> {
        let queued = lock(&self.events);
        queued.values().find(|entry| entry.event.event_id() == event_id).map(|entry| Arc::clone(&entry.event))
    }

    /// Returns whether a queued event makes this annotation.
    pub(in crate::room) fn annotates(&self, annotation: &Annotation) -> bool {
        lock(&self.events).values().any(|entry| entry.annotation.as_ref() == Some(annotation))
    }

    /// Removes sides and standings that are committed. A standing that has changed again stays.
    pub(in crate::room) fn graph_committed(&self, sides: &[SideNid], restated: &[NewStanding]) {
        let mut queued = lock(&self.sides);
        sides.iter().for_each(|nid| drop(queued.remove(nid)));
        drop(queued);
        let mut queued = lock(&self.restated);
        for (pos, nid, _) in restated {
            if queued.get(nid).is_some_and(|(at, _)| at == pos) {
                queued.remove(nid);
            }
        }
    }

    /// Removes events that are committed and in the cache. An event that was changed again after its position stays.
    pub(in crate::room) fn committed(&self, events: impl Iterator<Item = (Position, EventNid)>) {
        let mut queued = lock(&self.events);
        for (pos, nid) in events {
            if queued.get(&nid).is_some_and(|entry| entry.pos == pos) {
                queued.remove(&nid);
            }
        }
        if queued.is_empty() && queued.capacity() > 2 * KEPT_PLACES {
            queued.shrink_to(KEPT_PLACES);
        }
    }

    #[cfg(test)]
    pub(in crate::room) fn len(&self) -> usize {
        lock(&self.events).len()
    }
}

#[cfg(test)]
mod tests;
