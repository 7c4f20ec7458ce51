//! The rooms in memory, which follow the commits.
//!
//! The objects of a write of this process, such as its events, wait here from the moment when the write has its place in the
//! queue. Its touches find them by its positions. A commit of another process has no objects here: what it changed is evicted,
//! and read again when somebody asks for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use sabha_federation::standing::Standing;

use super::{
    Registry, Room,
    event::StoredEvent,
    events::{Events, EventsHandle},
    memberships::{MemberEntry, MembershipsHandle},
    sides::Sides,
    write::txn::{KnownTxns, QueuedTxn},
};
use crate::store::{
    EventNid, Position, RoomNid, SideNid, UserNid,
    ids::lock,
    log::{LogEntry, Memory, Touch},
};

/// A stored event with its new standing, and the position whose commit brings it.
pub(super) type NewStanding = (Position, EventNid, Standing);

/// The objects of one write of a room.
pub(super) struct Effects {
    pub(super) room: Arc<Room>,
    pub(super) cache: Events,
    pub(super) events: Vec<(Position, Arc<StoredEvent>)>,
    /// Redacted forms of events, each with the position of the redaction.
    pub(super) redacted: Vec<(Position, Arc<StoredEvent>)>,
    pub(super) members: Vec<(UserNid, MemberEntry)>,
    /// Users of other servers, and whether they are joined now.
    pub(super) remote_members: Vec<(UserNid, bool)>,
    /// Events that were stored before and have another standing now.
    pub(super) restated: Vec<NewStanding>,
    /// Sides that are stored now.
    pub(super) sides: Vec<SideNid>,
    pub(super) txn: Option<QueuedTxn>,
    /// The position of the room's end after it.
    pub(super) last: Position,
}

impl Effects {
    /// The objects of a write that has none yet, of a room whose end is at `last`.
    pub(super) fn new(room: &Arc<Room>, cache: &Events, last: Position, events: usize) -> Self {
        Self {
            room: Arc::clone(room),
            cache: cache.clone(),
            events: Vec::with_capacity(events),
            redacted: Vec::new(),
            members: Vec::new(),
            remote_members: Vec::new(),
            restated: Vec::new(),
            sides: Vec::new(),
            txn: None,
            last,
        }
    }

    fn apply(self, memberships: &MembershipsHandle) {
        if let Some(txn) = self.txn {
            txn.committed();
        }
        if !self.restated.is_empty() {
            self.cache.restate(self.restated.iter().map(|(_, nid, _)| *nid));
            self.room.restate_in_ring(&self.restated);
        }
        for (_, event) in &self.events {
            self.cache.insert(Arc::clone(event));
        }
        self.room.publish(&self.events, self.last);
        for (_, event) in &self.redacted {
            self.cache.redact(Arc::clone(event));
            self.room.replace_in_ring(event);
        }
        // Only now: the cache or the database has all of these events.
        let committed = self.events.iter().chain(&self.redacted);
        self.room.queued.committed(committed.map(|(pos, event)| (*pos, event.nid)));
        if !self.sides.is_empty() || !self.restated.is_empty() {
            self.room.queued.graph_committed(&self.sides, &self.restated);
        }
        for (user, entry) in self.members {
            memberships.update(user, entry);
        }
        for (user, joined) in self.remote_members {
            memberships.update_remote(user, self.room.nid, joined);
        }
    }
}

/// The positions of a write, and its objects.
struct QueuedEffects {
    first: Position,
    effects: Effects,
}

/// The part of the service in memory that follows the commits.
pub(super) struct RoomsMemory {
    registry: Arc<RwLock<Registry>>,
    events: EventsHandle,
    memberships: MembershipsHandle,
    txns: KnownTxns,
    sides: Sides,
    /// The objects of queued writes, by the last position of each.
    queued: Mutex<BTreeMap<Position, QueuedEffects>>,
}

impl RoomsMemory {
    pub(super) fn new(
        registry: Arc<RwLock<Registry>>,
        events: EventsHandle,
        memberships: MembershipsHandle,
        txns: KnownTxns,
        sides: Sides,
    ) -> Self {
        Self { registry, events, memberships, txns, sides, queued: Mutex::default() }
    }

    /// Keeps the objects of a write with these positions until it is stored or has failed.
    pub(super) fn queue(&self, first: Position, last: Position, effects: Effects) {
        lock(&self.queued).insert(last, QueuedEffects { first, effects });
    }

    /// Takes the objects of the write that has this position. Returns them with the last position of the write.
    fn take(&self, at: Position) -> Option<(Position, Effects)> {
        let mut queued = lock(&self.queued);
        let (last, found) = queued.range(at..).next()?;
        let last = (found.first <= at).then_some(*last)?;
        queued.remove(&last).map(|found| (last, found.effects))
    }

    /// Evicts what a commit of another process has changed.
    fn evict(&self, touch: &Touch, at: Position) {
        match *touch {
            Touch::Event { room, event, .. } => {
                self.evict_room(room, at);
                self.events.evict(event);
            }
            Touch::Graph { room } => {
                self.evict_room(room, at);
                self.events.note_restated();
            }
            Touch::State { room, .. } | Touch::Jump { room } => self.evict_room(room, at),
            Touch::Redacted { room, event, .. } => {
                self.evict_room(room, at);
                self.events.evict_redacted(room, event);
            }
            Touch::Member { room, user, forgotten: true, .. } => self.memberships.forget(user, room, at),
            Touch::Member { user, .. } | Touch::RemoteMember { user, .. } => self.memberships.evict(user),
            Touch::Txn { device, event } if event != NO_EVENT => self.txns.evict(device),
            _ => {}
        }
    }

    fn evict_room(&self, room: RoomNid, at: Position) {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        // In any case: somebody may be reading the room right now.
        registry.changed.changed(room, at);
        if let Some(room) = registry.by_nid.remove(&room) {
            registry.by_id.remove(&room.room_id);
            // A request that holds it may still read it as it was, and may build nothing on it.
            room.lineage.break_off();
        }
    }

    #[cfg(test)]
    pub(super) fn queued_len(&self) -> usize {
        lock(&self.queued).len()
    }
}

/// The event of a request that made none.
const NO_EVENT: EventNid = EventNid(0);

impl Memory for RoomsMemory {
    fn apply(&self, entry: &LogEntry) {
        // The last position of the writes whose objects were here.
        let mut applied = entry.after;
        for (at, touch) in &entry.touches {
            if *at <= applied {
                continue;
            }
            match self.take(*at) {
                Some((last, effects)) => {
                    effects.apply(&self.memberships);
                    applied = last;
                }
                None => self.evict(touch, *at),
            }
        }
    }

    /// Evicts what was changed. An object that waits here for one of these positions belongs to a write that was never stored.
    fn follow(&self, entry: &LogEntry) {
        entry.touches.iter().for_each(|(at, touch)| self.evict(touch, *at));
    }

    fn forget(&self, upto: Position) {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        registry.changed.restart(upto);
        registry.by_id.clear();
        for (_, room) in registry.by_nid.drain() {
            room.lineage.break_off();
        }
        drop(registry);
        self.events.evict_all();
        self.memberships.evict_all();
        self.txns.evict_all();
        self.sides.evict_all();
    }

    fn abandoned(&self, touches: &[(Position, Touch)]) {
        for (at, _) in touches {
            // Dropped outside of the lock.
            drop(self.take(*at));
        }
    }
}

#[cfg(test)]
mod tests;
