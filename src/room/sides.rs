//! Reading the states of branches, with the sides that they are differences to.
//!
//! Promise: rows that do not fit together are damage of their room, never another state. No row makes a reader loop: the
//! number of a side in its branch says how many parents it has, at most 32.

use std::sync::{Arc, PoisonError, RwLock};

use sabha_federation::{
    sides::{Side, decode, parent_ordinal},
    state_log::StateHash,
};

use super::{Room, Rooms};
use crate::{
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    store::{
        Error, Position, RoomNid, SideNid,
        sides::{self as rows, SideRow},
    },
};

impl HasBytes for Side {
    /// The parents count too: they stay in memory for as long as the side. Those of several sides count several times.
    fn bytes(&self) -> u64 {
        let parents = std::iter::successors(Some(self), |side| side.parent.as_deref());
        parents.map(|side| size_of::<Self>() as u64 + side.delta.bytes()).sum()
    }
}

/// The sides that were read lately. Cheap to clone. A side never changes, so nothing but a restart of memory evicts it.
#[derive(Clone)]
pub(super) struct Sides {
    cache: Arc<ByteCache<(RoomNid, SideNid), Arc<Side>>>,
    restarts: Arc<RwLock<Restarts>>,
}

/// The number of times that everything was evicted. Rows that were read before are not cached after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Restarts(u64);

impl Sides {
    pub(super) fn new(budget: &Budget) -> Self {
        Self { cache: budget.cache(Part::Sides), restarts: Arc::default() }
    }

    pub(super) fn evict_all(&self) {
        let mut restarts = self.restarts.write().unwrap_or_else(PoisonError::into_inner);
        restarts.0 += 1;
        self.cache.clear();
    }

    fn restarts(&self) -> Restarts {
        *self.restarts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, room: RoomNid, side: &Arc<Side>, read_after: Restarts) {
        // Held while the side is added, so that it is evicted or not kept at all.
        let now = self.restarts.read().unwrap_or_else(PoisonError::into_inner);
        if *now == read_after {
            self.cache.insert((room, side.nid), Arc::clone(side));
        }
    }
}

impl Rooms {
    /// The committed side with this short id, with all its parents. One statement for each of them that is not in memory.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the side or a parent is missing, of another room, or unlike what its branch needs; errors of the
    /// database.
    pub(crate) async fn side(&self, room: &Room, nid: SideNid) -> Result<Arc<Side>, Error> {
        if let Some(side) = self.sides.cache.get(&(room.nid, nid)) {
            return Ok(side);
        }
        let restarts = self.sides.restarts();
        let mut reader = self.db.read().await?;
        let mut unknown: Vec<StoredSide> = Vec::new();
        let mut parent: Option<Arc<Side>> = None;
        let mut next = Some(nid);
        while let Some(nid) = next {
            if let Some(side) = self.sides.cache.get(&(room.nid, nid)) {
                parent = Some(side);
                break;
            }
            let row = rows::side(&mut reader.conn(), nid).await?;
            let side = StoredSide::read(room, row.ok_or_else(|| damage(room, nid, "it is missing"))?)?;
            // Numbers go down on the way, so it has an end.
            if unknown.last().is_some_and(|child| parent_ordinal(child.ordinal) != Some(side.ordinal)) {
                return Err(damage(room, nid, "it is not the parent of its child"));
            }
            next = side.parent;
            unknown.push(side);
        }
        drop(reader);
        while let Some(stored) = unknown.pop() {
            let side = Arc::new(stored.on(room, parent)?);
            self.sides.keep(room.nid, &side, restarts);
            parent = Some(side);
        }
        parent.ok_or_else(|| damage(room, nid, "it is missing"))
    }

    /// A committed side whose state has this hash.
    ///
    /// # Errors
    /// As [`Rooms::side`].
    pub(crate) async fn side_with(&self, room: &Room, hash: StateHash) -> Result<Option<Arc<Side>>, Error> {
        let mut reader = self.db.read().await?;
        let found = rows::side_with(&mut reader.conn(), room.nid, &hash.to_bytes()).await?;
        drop(reader);
        match found {
            Some(nid) => self.side(room, nid).await.map(Some),
            None => Ok(None),
        }
    }
}

/// A side without its parent.
struct StoredSide {
    nid: SideNid,
    parent: Option<SideNid>,
    ordinal: u32,
    row: SideRow,
}

impl StoredSide {
    fn read(room: &Room, row: SideRow) -> Result<Self, Error> {
        let (nid, parent) = (SideNid(row.side_nid), row.parent_nid.map(SideNid));
        if row.room_nid != room.nid.0 {
            return Err(damage(room, nid, "it is of another room"));
        }
        let ordinal = u32::try_from(row.ordinal).map_err(|_| damage(room, nid, "its number is out of range"))?;
        if parent_ordinal(ordinal).is_some() != parent.is_some() {
            return Err(damage(room, nid, "its number is not that of a side with such a parent"));
        }
        Ok(Self { nid, parent, ordinal, row })
    }

    fn on(self, room: &Room, parent: Option<Arc<Side>>) -> Result<Side, Error> {
        let Self { nid, ordinal, row, .. } = self;
        let base_pos = Position(row.base_pos);
        let fits = |parent: &Arc<Side>| parent.base_pos == base_pos && Some(parent.ordinal) == parent_ordinal(ordinal);
        if !parent.as_ref().is_none_or(fits) {
            return Err(damage(room, nid, "its parent is of another branch"));
        }
        let hash = row.hash.try_into().map_err(|_| damage(room, nid, "its hash has a wrong length"))?;
        let delta = decode(&row.delta).map_err(|error| Error::damaged("side", error))?;
        Ok(Side { nid, base_pos, parent, ordinal, hash: StateHash::from_bytes(hash), delta })
    }
}

fn damage(room: &Room, nid: SideNid, what: &str) -> Error {
    Error::damaged("side", format!("{}, side {}: {what}", room.room_id, nid.0))
}

#[cfg(test)]
mod tests;
