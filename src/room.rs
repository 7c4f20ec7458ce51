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
pub mod listing;
mod load;
pub mod memberships;
pub mod power;
pub mod read;
mod ring;
pub mod servers;
pub mod state;
pub mod write;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, room_version_rules::RoomVersionRules};
use sabha_federation::{
    ServerSigner,
    state_log::{StateEntry, StateHashKey, StateLog},
};

use self::{
    absent_keys::AbsentKeys,
    applied::RoomsMemory,
    checkpoints::Unthinned,
    damage::Damage,
    event::StoredEvent,
    events::Events,
    listing::heroes::Heroes,
    memberships::Memberships,
    read::{delta::Deltas, visibility::CachedSight},
    ring::{Ring, Rings},
    servers::JoinedByServer,
    write::{allowed::Allowed, profile::Arrivals, queued::Queued, txn::TransactionIds},
};
use crate::{
    account::turns::Turns,
    bus::Bus,
    clock::Clock,
    memory::budget::Budget,
    store::{Database, Error, EventNid, Lineage, Position, RoomNid, UserNid, Write, latest::Latest},
};

/// The number of pairs of user and room whose [`Sight`](read::visibility::Sight) is cached.
const CACHED_SIGHTS: usize = 50_000;

/// The number of locks for loading rooms. Loads under different locks run at the same time.
const LOAD_LOCKS: usize = 64;

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

/// An event that no other event of the room follows on.
type Extremity = (EventNid, OwnedEventId);

/// The end of the room, on which the next event is built. It is ahead of the committed events.
#[derive(Debug)]
struct Head {
    /// Never empty once the room has its create event.
    forward_extremities: Vec<Extremity>,
    /// The greatest depth of the events that others may follow on.
    depth: i64,
    /// The position of the last event of the line, or of a later change of state.
    last_pos: Position,
    /// The position of the last change of state.
    state_pos: Position,
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

    /// Makes the committed events of the line visible, and moves the room's end to `last`. Called in the order of
    /// positions.
    fn publish(&self, events: &[(Position, Arc<StoredEvent>)], last: Position) {
        let mut view = self.view_mut();
        view.ring.extend(events);
        view.state.keep_since(last);
        drop(view);
        self.last_pos.store(last.0, Ordering::Release);
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
    sights: quick_cache::sync::Cache<(UserNid, RoomNid), CachedSight>,
    /// Aliases that are being created, so that no two requests create the same one.
    reserved_aliases: Mutex<HashSet<String>>,
    /// The creation time of the latest room, in milliseconds since 1970.
    last_creation_ms: AtomicI64,
}

/// The rooms in memory.
struct Registry {
    by_id: HashMap<OwnedRoomId, Arc<Room>>,
    by_nid: HashMap<RoomNid, Arc<Room>>,
    /// The latest change of each room by another process, as far as this one follows it.
    changed: Latest<RoomNid>,
}

impl Registry {
    fn new(started_at: Position) -> Self {
        Self { by_id: HashMap::new(), by_nid: HashMap::new(), changed: Latest::new(started_at) }
    }

    fn insert(&mut self, room: &Arc<Room>) {
        self.by_id.insert(room.room_id.clone(), Arc::clone(room));
        self.by_nid.insert(room.nid, Arc::clone(room));
    }
}

impl Rooms {
    pub fn new(db: Arc<Database>, bus: Arc<Bus>, clock: Clock, signer: Arc<ServerSigner>, budget: &Budget) -> Self {
        let events = Events::new(Arc::clone(&db), budget);
        let registry = Arc::new(RwLock::new(Registry::new(db.committer().published())));
        let memberships = Memberships::new(Arc::clone(&db));
        let txn_ids = TransactionIds::new(Arc::clone(&db));
        let memory = RoomsMemory::new(Arc::clone(&registry), events.handle(), memberships.handle(), txn_ids.known());
        let memory = Arc::new(memory);
        db.committer().remember(Arc::<RoomsMemory>::clone(&memory));
        Self {
            events,
            rings: Rings::new(budget),
            deltas: Deltas::new(budget),
            registry,
            memory,
            loading: (0..LOAD_LOCKS).map(|_| tokio::sync::Mutex::default()).collect(),
            memberships,
            arrivals: Arrivals::default(),
            profile_turns: Turns::default(),
            txn_ids,
            allowed: Allowed::default(),
            damage: Damage::default(),
            unthinned: Unthinned::default(),
            state_hash_key: StateHashKey::new(db.state_hash_secret()),
            sights: quick_cache::sync::Cache::new(CACHED_SIGHTS),
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

    /// The room, if this server has it.
    pub async fn find(&self, room_id: &RoomId) -> Result<Option<Arc<Room>>, Error> {
        if let Some(room) = self.registered(|registry| registry.by_id.get(room_id)) {
            return Ok(Some(room));
        }
        let _loading = self.loading[lock_of(room_id.as_bytes())].lock().await;
        if let Some(room) = self.registered(|registry| registry.by_id.get(room_id)) {
            return Ok(Some(room));
        }
        if self.is_broken(room_id) {
            self.settled().await?;
        }
        let read_at = self.db.committer().published();
        let mut reader = self.db.read().await?;
        let Some(row) = crate::store::room_heads::find_room(&mut reader.conn(), room_id.as_str()).await? else {
            return Ok(None);
        };
        let nid = RoomNid(row.room_nid);
        match load::load(self, &mut reader, row).await {
            Ok(room) => {
                self.damage.loaded(nid);
                Ok(Some(self.register(room, read_at)))
            }
            Err(error) => {
                self.damage.not_loaded(nid, &error, self.clock.now_ms());
                Err(error)
            }
        }
    }

    /// The room with this short id, which comes from the database.
    ///
    /// # Errors
    /// [`Error::Damaged`] if there is none, or if it could not be loaded a moment ago.
    pub async fn by_nid(&self, nid: RoomNid) -> Result<Arc<Room>, Error> {
        if let Some(room) = self.registered(|registry| registry.by_nid.get(&nid)) {
            return Ok(room);
        }
        if let Some(error) = self.damage.lately(nid, self.clock.now_ms()) {
            return Err(error);
        }
        let mut reader = self.db.read().await?;
        let row = crate::store::room_heads::find_room_by_nid(&mut reader.conn(), nid)
            .await?
            .ok_or_else(|| Error::damaged("room", format!("{} is missing", nid.0)))?;
        drop(reader);
        let room_id = RoomId::parse(&row.room_id).map_err(|error| Error::damaged("room ID", error))?;
        self.find(&room_id).await?.ok_or_else(|| Error::damaged("room", format!("{} is missing", nid.0)))
    }

    /// The room, if it is in memory and none of its writes has failed.
    fn registered(&self, get: impl FnOnce(&Registry) -> Option<&Arc<Room>>) -> Option<Arc<Room>> {
        let registry = self.registry.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let room = get(&registry).filter(|room| !room.lineage.is_broken())?;
        room.used.store(true, Ordering::Relaxed);
        Some(Arc::clone(room))
    }

    /// Waits until all writes that were queued before are stored or refused. Writes of a broken room may be among them,
    /// and must be settled before its rows are read.
    async fn settled(&self) -> Result<(), Error> {
        match self.db.committer().write(Write::default()).await {
            // The outcome of the earlier writes is unknown then.
            Err(error @ (Error::Stopping | Error::Waiting | Error::Overloaded)) => Err(error),
            // A refusal of this write itself, such as by a full disk, comes after the earlier writes.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Returns the room if it is in memory.
    pub fn in_memory(&self, nid: RoomNid) -> Option<Arc<Room>> {
        self.registered(|registry| registry.by_nid.get(&nid))
    }

    fn is_broken(&self, room_id: &RoomId) -> bool {
        let registry = self.registry.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        registry.by_id.get(room_id).is_some_and(|room| room.lineage.is_broken())
    }

    /// Adds a room that was read when `read_at` was visible, unless another process has changed it since: such a room shows
    /// `read_at`, and nothing may be built on it.
    fn register(&self, room: Room, read_at: Position) -> Arc<Room> {
        let room = Arc::new(room);
        let mut registry = self.registry.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if registry.changed.is_unchanged(&room.nid, read_at) {
            registry.insert(&room);
        } else {
            room.lineage.break_off();
        }
        room
    }

    /// Evicts rooms that nobody has used since the last call, and the memberships of users who are not live. They are
    /// loaded again when they are needed.
    pub fn forget_idle(&self) {
        self.memberships.retain(|user| self.bus.is_live(user));
        let mut registry = self.registry.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Registry { by_id, by_nid, .. } = &mut *registry;
        by_nid.retain(|_, room| {
            // The two maps hold one reference each. Another one means that somebody holds the room, or that a write of
            // it is queued.
            let used = room.used.swap(false, Ordering::Relaxed) || Arc::strong_count(room) > 2;
            if !used {
                by_id.remove(&room.room_id);
            }
            used
        });
    }

    /// Drops latest events of rooms from memory while those of all rooms take more than their share of the budget. Begins with
    /// the rooms that have been quiet for longest.
    pub fn shrink_rings(&self) {
        if !self.rings.are_full() {
            return;
        }
        let registry = self.registry.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut rooms: Vec<Arc<Room>> = registry.by_nid.values().cloned().collect();
        drop(registry);
        rooms.sort_by_cached_key(|room| room.last_pos());
        self.rings.shrink(&rooms, |room, rest| room.view_mut().ring.shrink(rest));
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

fn lock_of(bytes: &[u8]) -> usize {
    bytes.iter().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte))) % LOAD_LOCKS
}

#[cfg(test)]
pub(crate) mod tests;
