//! Rooms: their events and their current state.
//!
//! A room in use is in memory ([`Room`]): its head, its current state and its latest events. Exactly one function
//! appends to a room, [`RoomWriter::commit`](write::RoomWriter::commit). All other code here prepares events for it or
//! reads events that it appended.
//!
//! Reading order: [`event`] and [`state`] (the parts of a room), [`load`] (from the database), [`mod@write`] (how events are
//! appended, and the actions of users), [`read`] (what a user may see, and in which order), [`listing`].

mod absent_keys;
mod applied;
pub mod changed;
mod checkpoints;
mod damage;
pub mod event;
pub(crate) mod events;
mod jumps;
pub mod listing;
mod load;
pub mod memberships;
pub mod power;
pub mod read;
pub mod receive;
mod registry;
mod ring;
pub mod servers;
mod sides;
pub mod state;
pub mod write;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use ruma::{OwnedRoomId, OwnedServerName, RoomVersionId, room_version_rules::RoomVersionRules};
use sabha_federation::{
    ServerSigner,
    graph::Extremities,
    resolve::Resolutions,
    state_log::{StateEntry, StateHashKey, StateLog},
};

use self::{
    absent_keys::AbsentKeys,
    applied::{NewStanding, RoomsMemory},
    checkpoints::Unthinned,
    damage::Damage,
    event::StoredEvent,
    events::Events,
    listing::heroes::Heroes,
    memberships::Memberships,
    read::{delta::Deltas, visibility::CachedSight},
    registry::{LOAD_LOCKS, Registry},
    ring::{Ring, Rings},
    servers::JoinedByServer,
    sides::Sides,
    write::{allowed::Allowed, profile::Arrivals, queued::Queued, txn::TransactionIds},
};
use crate::{
    account::turns::Turns,
    bus::Bus,
    clock::Clock,
    config::Limits,
    memory::{
        budget::{Budget, Part},
        cache::ByteCache,
    },
    store::{Database, Error, EventNid, Lineage, Position, RoomNid, UserNid},
};

/// A room in memory.
#[derive(Debug)]
pub struct Room {
    pub nid: RoomNid,
    pub room_id: OwnedRoomId,
    pub version: RoomVersionId,
    pub rules: RoomVersionRules,
    /// The lock for building the next event. Without it, two sends would build on the same forward extremities. First
    /// come, first served.
    head: Arc<tokio::sync::Mutex<Head>>,
    /// Broken when a write of this room has failed: memory then differs from the database.
    lineage: Lineage,
    /// Events that the head is built on and that are not on disk yet.
    queued: Queued,
    view: RwLock<RoomView>,
    last_pos: AtomicI64,
    /// Set when somebody asks for the room; cleared whenever rooms are swept.
    used: AtomicBool,
    absent: AbsentKeys,
}

/// The end of the room, on which the next event is built. It is ahead of the committed events.
#[derive(Debug)]
struct Head {
    /// Never empty once the room has its create event.
    forward_extremities: Extremities,
    /// The forward extremities that were loaded, and of which only the state before them is known. It is found when an event of
    /// another server comes.
    without_state: Vec<EventNid>,
    /// The greatest depth of the events that others may follow on.
    depth: i64,
    /// The position of the last event of the line, or of a later change of state.
    last_pos: Position,
    /// The position of the last change of state.
    state_pos: Position,
    /// The number of times that verdicts about stored events changed.
    reject_epoch: i64,
    /// The position of the latest event that this server built.
    our_pos: Position,
    /// The position of the latest event for which clients move the room up in a list.
    bump_pos: Position,
    /// The number of changes of the room's state so far.
    changes: i64,
    /// The number of changes up to the last checkpoint.
    saved_changes: i64,
    /// The joined users of other servers, by server. Read when the membership of the first of them changes.
    joined_by_server: Option<JoinedByServer>,
}

/// The part of the room that readers use. The state may be ahead of the committed events; readers name the position
/// that they want.
#[derive(Debug)]
struct RoomView {
    state: StateLog,
    /// The positions at which a whole state replaced another, in their order. The state log has no rows for them.
    jumps: Vec<Position>,
    /// As of the newest state.
    heroes: Heroes,
    ring: Ring,
}

impl Room {
    /// The position of the last committed event.
    pub fn last_pos(&self) -> Position {
        Position(self.last_pos.load(Ordering::Acquire))
    }

    /// An upper bound for the number of state entries that have changed since `pos`; all of them if memory does not
    /// reach back that far. Reads only numbers in memory.
    pub fn state_changed_at_most(&self, pos: Position) -> usize {
        self.view().state.changed_at_most(pos)
    }

    fn view(&self) -> std::sync::RwLockReadGuard<'_, RoomView> {
        self.view.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn view_mut(&self) -> std::sync::RwLockWriteGuard<'_, RoomView> {
        self.view.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The latest events in (`after`, `upto`], oldest first, if the ring reaches back that far. The range may end
    /// before it starts, and is then empty: a receipt may be newer than the position of its reader.
    pub fn recent(&self, after: Position, upto: Position) -> Option<Vec<(Position, Arc<StoredEvent>)>> {
        self.view().ring.between(after, upto)
    }

    /// At most the `limit` latest events up to `upto`, oldest first, if the ring has that many.
    pub fn latest(&self, upto: Position, limit: usize) -> Option<Vec<(Position, Arc<StoredEvent>)>> {
        self.view().ring.latest(upto, limit)
    }

    /// The places of at most the `limit` latest events up to `upto`, oldest first, if the ring knows that many.
    fn latest_places(&self, upto: Position, limit: usize) -> Option<Vec<(Position, EventNid)>> {
        self.view().ring.latest_places(upto, limit)
    }

    /// Makes the committed events of the line visible, and moves the room's end to `last`. Called in the order of
    /// positions.
    fn publish(&self, events: &[(Position, Arc<StoredEvent>)], last: Position) {
        let mut view = self.view_mut();
        view.ring.extend(events);
        view.state.keep_since(last);
        drop(view);
        self.last_pos.store(last.0, Ordering::Release);
    }

    /// Shows the new standing of stored events from now on.
    fn restate_in_ring(&self, restated: &[NewStanding]) {
        let mut view = self.view_mut();
        restated.iter().for_each(|(_, nid, standing)| view.ring.restate(*nid, *standing));
    }

    /// Shows the redacted form of an event from now on.
    fn replace_in_ring(&self, event: &Arc<StoredEvent>) {
        self.view_mut().ring.replace(event);
    }
}

/// The service for rooms and everything in them.
pub struct Rooms {
    pub(crate) db: Arc<Database>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) clock: Clock,
    signer: Arc<ServerSigner>,
    pub(crate) events: Events,
    registry: Arc<RwLock<Registry>>,
    memory: Arc<RoomsMemory>,
    loading: Vec<tokio::sync::Mutex<()>>,
    memberships: Memberships,
    /// Joins that are not committed yet, for changes of profiles.
    arrivals: Arrivals,
    /// Lets one change of a user's member events run at a time. Otherwise an older profile could be shown after a newer
    /// one.
    profile_turns: Turns,
    txn_ids: TransactionIds,
    allowed: Allowed,
    damage: Damage,
    unthinned: Unthinned,
    state_hash_key: StateHashKey,
    rings: Arc<Rings>,
    deltas: Deltas,
    resolutions: Resolutions,
    sights: Arc<ByteCache<(UserNid, RoomNid), CachedSight>>,
    sides: Sides,
    /// The number of invitations, and of knocks, that may wait for each user; see [`write::invitee`].
    max_pending_invites: usize,
    /// Aliases that are being created, so that no two requests create the same one.
    reserved_aliases: Mutex<HashSet<String>>,
    /// The creation time of the latest room, in milliseconds since 1970.
    last_creation_ms: AtomicI64,
}

impl Rooms {
    pub fn new(
        db: Arc<Database>,
        bus: Arc<Bus>,
        clock: Clock,
        signer: Arc<ServerSigner>,
        limits: &Limits,
        budget: &Budget,
    ) -> Self {
        let events = Events::new(Arc::clone(&db), budget);
        let registry = Arc::new(RwLock::new(Registry::new(db.committer().published())));
        let memberships = Memberships::new(Arc::clone(&db));
        let txn_ids = TransactionIds::new(Arc::clone(&db), budget);
        let sides = Sides::new(budget);
        let memory = RoomsMemory::new(
            Arc::clone(&registry),
            events.handle(),
            memberships.handle(),
            txn_ids.known(),
            sides.clone(),
        );
        let memory = Arc::new(memory);
        db.committer().remember(Arc::<RoomsMemory>::clone(&memory));
        Self {
            events,
            rings: Rings::new(budget),
            deltas: Deltas::new(budget),
            resolutions: Resolutions::new(budget.share(Part::Resolutions)),
            registry,
            memory,
            loading: (0..LOAD_LOCKS).map(|_| tokio::sync::Mutex::default()).collect(),
            memberships,
            arrivals: Arrivals::default(),
            profile_turns: Turns::default(),
            txn_ids,
            allowed: Allowed::new(budget),
            damage: Damage::default(),
            unthinned: Unthinned::default(),
            state_hash_key: StateHashKey::new(db.state_hash_secret()),
            sights: budget.cache(Part::Sights),
            sides,
            max_pending_invites: limits.pending_invites_per_user as usize,
            reserved_aliases: Mutex::default(),
            last_creation_ms: AtomicI64::new(0),
            db,
            bus,
            clock,
            signer,
        }
    }

    pub fn server_name(&self) -> OwnedServerName {
        self.signer.server_name().to_owned()
    }

    /// The event of a key of the room's state as of `upto`.
    ///
    /// # Errors
    /// Fails if the event, or a state that is no longer in memory, cannot be read.
    pub async fn state_event(
        &self,
        room: &Room,
        event_type: &str,
        state_key: &str,
        upto: Position,
    ) -> Result<Option<Arc<StoredEvent>>, Error> {
        let Some(key) = self.find_key(room, event_type, state_key).await? else { return Ok(None) };
        let entry: Option<StateEntry> = self.entry_at(room, key, upto).await?;
        match entry {
            Some(entry) => Ok(Some(self.events.get(room, entry.event_nid).await?)),
            None => Ok(None),
        }
    }

    /// The committed current event of a key of the room's state.
    pub async fn current_state_event(
        &self,
        room: &Room,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<StoredEvent>>, Error> {
        self.state_event(room, event_type, state_key, self.db.committer().published()).await
    }
}

#[cfg(test)]
pub(crate) mod tests;
