//! The rooms in memory: finding a room, which loads it, and evicting those that nobody uses.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use ruma::{OwnedRoomId, RoomId};

use super::{Room, Rooms, load};
use crate::store::{Error, Position, RoomNid, Write, latest::Latest};

/// The number of locks for loading rooms. Loads under different locks run at the same time.
pub(super) const LOAD_LOCKS: usize = 64;

/// The rooms in memory.
pub(super) struct Registry {
    pub(super) by_id: HashMap<OwnedRoomId, Arc<Room>>,
    pub(super) by_nid: HashMap<RoomNid, Arc<Room>>,
    /// The latest change of each room by another process, as far as this one follows it.
    pub(super) changed: Latest<RoomNid>,
}

impl Registry {
    pub(super) fn new(started_at: Position) -> Self {
        Self { by_id: HashMap::new(), by_nid: HashMap::new(), changed: Latest::new(started_at) }
    }

    pub(super) fn insert(&mut self, room: &Arc<Room>) {
        self.by_id.insert(room.room_id.clone(), Arc::clone(room));
        self.by_nid.insert(room.nid, Arc::clone(room));
    }
}

impl Rooms {
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
    pub(super) fn registered(&self, get: impl FnOnce(&Registry) -> Option<&Arc<Room>>) -> Option<Arc<Room>> {
        let registry = self.registry.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let room = get(&registry).filter(|room| !room.lineage.is_broken())?;
        room.used.store(true, Ordering::Relaxed);
        Some(Arc::clone(room))
    }

    /// Waits until all writes that were queued before are stored or refused. Writes of a broken room may be among them,
    /// and must be settled before its rows are read.
    pub(super) async fn settled(&self) -> Result<(), Error> {
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

    pub(super) fn is_broken(&self, room_id: &RoomId) -> bool {
        let registry = self.registry.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        registry.by_id.get(room_id).is_some_and(|room| room.lineage.is_broken())
    }

    /// Adds a room that was read when `read_at` was visible, unless another process has changed it since: such a room shows
    /// `read_at`, and nothing may be built on it.
    pub(super) fn register(&self, room: Room, read_at: Position) -> Arc<Room> {
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
}

pub(super) fn lock_of(bytes: &[u8]) -> usize {
    bytes.iter().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte))) % LOAD_LOCKS
}
