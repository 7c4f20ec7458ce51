//! Events on their way to the disk: what the next writer of a room must find, and no reader may see yet.
//!
//! The head of a room is ahead of what is committed, so a writer builds on events that no cache and no database has. They
//! are kept here from the moment they are queued until their commit, and nothing takes them out before. What is left of an
//! event whose redaction is queued stands here as well, so that nobody copies what was taken away.
//!
//! When the room's lineage breaks, the room is loaded afresh, and all this goes with the old one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use ruma::EventId;

use super::{
    event::StoredEvent,
    relations::{Annotation, annotation},
};
use crate::store::{EventNid, Position, ids::lock};

/// The memory for as many events is kept when nothing is queued.
const KEPT_PLACES: usize = 64;

/// Queued events by their short id.
#[derive(Debug, Default)]
pub(super) struct Queued(Mutex<HashMap<EventNid, Entry>>);

#[derive(Debug)]
struct Entry {
    /// The commit of this position makes the event known to everyone.
    pos: Position,
    event: Arc<StoredEvent>,
    annotation: Option<Annotation>,
}

impl Queued {
    /// The event will look like this once `pos` is committed.
    pub(super) fn add(&self, pos: Position, event: Arc<StoredEvent>) {
        let annotation = annotation(&event.pdu);
        lock(&self.0).insert(event.nid, Entry { pos, event, annotation });
    }

    pub(super) fn get(&self, nid: EventNid) -> Option<Arc<StoredEvent>> {
        lock(&self.0).get(&nid).map(|entry| Arc::clone(&entry.event))
    }

    /// The event with this ID. Looks at all of them, and few are queued at any time.
    pub(super) fn find(&self, event_id: &EventId) -> Option<Arc<StoredEvent>> {
        let queued = lock(&self.0);
        queued.values().find(|entry| entry.event.event_id() == event_id).map(|entry| Arc::clone(&entry.event))
    }

    /// Whether one of them makes this annotation.
    pub(super) fn annotates(&self, annotation: &Annotation) -> bool {
        lock(&self.0).values().any(|entry| entry.annotation.as_ref() == Some(annotation))
    }

    /// These are committed and in the cache. One that was changed once more after `pos` stays.
    pub(super) fn committed(&self, events: impl Iterator<Item = (Position, EventNid)>) {
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
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

#[cfg(test)]
mod tests;
