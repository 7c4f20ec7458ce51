//! Queued events: the next writer of a room must find them, and no reader may see them yet.
//!
//! The head of a room is ahead of the committed events, so a writer builds on events that are in no cache and no
//! database. They are kept here from the moment they are queued until their commit, and nothing removes them before.
//! The redacted form of an event is here too while its redaction is queued, so that no writer copies the removed
//! content.
//!
//! When the room's lineage breaks, the room is loaded again, and these events go with the old one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use ruma::EventId;

use crate::{
    room::{
        event::StoredEvent,
        read::relations::{Annotation, annotation},
    },
    store::{EventNid, Position, ids::lock},
};

/// The number of events whose memory is kept when nothing is queued.
const KEPT_PLACES: usize = 64;

/// Queued events by their short id.
#[derive(Debug, Default)]
pub(in crate::room) struct Queued(Mutex<HashMap<EventNid, QueuedEvent>>);

#[derive(Debug)]
struct QueuedEvent {
    /// The position whose commit makes the event known to everyone.
    pos: Position,
    event: Arc<StoredEvent>,
    annotation: Option<Annotation>,
}

impl Queued {
    /// Adds the event as it will be once `pos` is committed.
    pub(in crate::room) fn add(&self, pos: Position, event: Arc<StoredEvent>) {
        let annotation = annotation(&event.pdu);
        lock(&self.0).insert(event.nid, QueuedEvent { pos, event, annotation });
    }

    pub(in crate::room) fn get(&self, nid: EventNid) -> Option<Arc<StoredEvent>> {
        lock(&self.0).get(&nid).map(|entry| Arc::clone(&entry.event))
    }

    /// The event with this ID. Searches all of them; few are queued at any time.
    pub(in crate::room) fn find(&self, event_id: &EventId) -> Option<Arc<StoredEvent>> {
        let queued = lock(&self.0);
        queued.values().find(|entry| entry.event.event_id() == event_id).map(|entry| Arc::clone(&entry.event))
    }

    /// Returns whether a queued event makes this annotation.
    pub(in crate::room) fn annotates(&self, annotation: &Annotation) -> bool {
        lock(&self.0).values().any(|entry| entry.annotation.as_ref() == Some(annotation))
    }

    /// Removes events that are committed and in the cache. An event that was changed again after its position stays.
    pub(in crate::room) fn committed(&self, events: impl Iterator<Item = (Position, EventNid)>) {
        let mut queued = lock(&self.0);
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
        lock(&self.0).len()
    }
}

#[cfg(test)]
mod tests;
