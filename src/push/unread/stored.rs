//! Stored tallies: a count that took long is not made again after a restart.
//!
//! Promises:
//!
//! - A stored tally is used only if a count on the same [`Basis`](super::Basis) made it. The events after it, with their
//!   redactions, are then added as to a tally in memory, and the receipts are the present ones. So it does not matter how
//!   old it is.
//! - Sending an event, following a room and resting store nothing. A tally is stored after a new count of many events, and
//!   when nobody has looked at it for a while.
//! - The tallies of a user are read in pages, for many rooms at once. Most users have so few that one page has all of
//!   them. A later page is read only for a look that goes on in the order of the rooms' short ids, as an answer visits
//!   them. So in any order of looks, a room costs a bounded number of rows.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, atomic::Ordering},
};

use sabha_federation::varint::Malformed;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::{BasisVersion, Counted, Owed, look::Look, tally::Tally};
use crate::{
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    push::Push,
    room::Rooms,
    store::{Database, Error, Position, RoomNid, Row, UserNid, Write, ids::lock, unread as rows},
};

/// The version of everything that decides which events count: the evaluation of rules, the rules of threads, the format
/// of the tally. Raise it with each change of one of them, so that the tallies of earlier releases are not used.
const VERSION: u8 = 1;

/// The number of events that a new count would have to read, and from which a tally is stored. Reading fewer costs about
/// as much as a row.
const STORE_AFTER: usize = 64;

/// The number of tallies that are stored in one commit: every other write waits for it.
const BATCH: usize = 200;

/// Maximum number of tallies that wait to be stored. The others are counted anew when they are needed.
const MAX_DUE: usize = 20_000;

/// Approximate memory of a read tally besides its bytes.
const ROW_BYTES: usize = 160;

type Key = (UserNid, RoomNid);

/// Maximum number of tallies in a page.
const PAGE: u64 = 256;

/// The number of tallies of a page that take about as long to read as one tally alone.
const LIKE_ONE_ALONE: usize = 16;

/// The usual bytes of a tally of a hundred events. A page has as many rows as fit with this size.
const USUAL_BYTES: u64 = 512;

/// The part of its piece of the cache that a page may take. One that fills the piece would evict those of all others in it.
const LARGEST_PART: u64 = 4;

/// Comes before all rooms.
const FIRST_ROOM: RoomNid = RoomNid(0);

/// A page of the stored tallies of one user: those of the rooms from one on.
struct ReadRows {
    from: RoomNid,
    /// The last room of the page.
    upto: RoomNid,
    bytes: u64,
    used: Mutex<PageUse>,
}

/// The use of a page so far.
struct PageUse {
    /// The tallies that nobody has used yet; `None` for one that was used.
    rooms: HashMap<RoomNid, Option<rows::TallyRow>>,
    /// The room of the latest look.
    latest: RoomNid,
    /// The number of latest looks that went from room to room in order, in the page or after it.
    in_order: usize,
}

impl HasBytes for ReadRows {
    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl ReadRows {
    /// The number of tallies that are read for a page of `largest` bytes.
    fn limit(largest: u64) -> usize {
        usize::try_from((largest / USUAL_BYTES).clamp(1, PAGE)).unwrap_or(1)
    }

    /// Keeps as many of the tallies from a room on as fit into `largest` bytes, and at least the first.
    fn new(from: RoomNid, found: Vec<rows::TallyRow>, largest: u64) -> Self {
        let most = usize::try_from(largest).unwrap_or(usize::MAX);
        let is_last = found.len() < Self::limit(largest);
        let (mut bytes, mut upto) = (ROW_BYTES, is_last.then_some(RoomNid(i64::MAX)));
        let mut rooms = HashMap::with_capacity(found.len());
        let mut last = from;
        for row in found {
            let room = RoomNid(row.room_nid);
            bytes += ROW_BYTES + row.basis.len() + row.tally.len();
            if bytes > most && !rooms.is_empty() {
                upto = None;
                break;
            }
            last = room;
            rooms.insert(room, Some(row));
        }
        let upto = upto.unwrap_or(last);
        let used = PageUse { rooms, latest: FIRST_ROOM, in_order: 0 };
        Self { from, upto, bytes: (bytes as u64).min(largest).max(1), used: Mutex::new(used) }
    }

    /// Takes the tally of a room.
    fn take(&self, room: RoomNid, limit: usize) -> Taken {
        let mut used = lock(&self.used);
        used.in_order = if used.latest < room { used.in_order + 1 } else { 1 };
        used.latest = room;
        if self.upto < room && used.in_order > limit / LIKE_ONE_ALONE {
            return Taken::ReadPage;
        }
        if room < self.from || self.upto < room {
            return Taken::ReadAlone;
        }
        match used.rooms.get_mut(&room) {
            None => Taken::NotStored,
            Some(row) => row.take().map_or(Taken::ReadAlone, Taken::Row),
        }
    }
}

/// A tally that was taken from those that were read.
enum Taken {
    Row(rows::TallyRow),
    NotStored,
    ReadAlone,
    /// The room is after the page, and so many looks have come in order that a page from this room on costs no more than
    /// they would alone.
    ReadPage,
}

/// The tallies between memory and the database.
pub(in crate::push) struct Stored {
    /// Most users have none.
    read: Arc<ByteCache<UserNid, Arc<ReadRows>>>,
    /// Maximum bytes of a page.
    largest: u64,
    due: Mutex<BTreeSet<Key>>,
}

impl Stored {
    pub(in crate::push) fn new(budget: &Budget) -> Self {
        let read = budget.cache(Part::StoredCounts);
        Self { largest: read.shard_capacity() / LARGEST_PART, read, due: Mutex::default() }
    }

    /// Notes that a tally should be stored.
    pub(super) fn note_due(&self, key: Key) {
        let mut due = lock(&self.due);
        if due.len() < MAX_DUE {
            due.insert(key);
        }
    }

    fn next_due(&self) -> Vec<Key> {
        let mut due = lock(&self.due);
        std::iter::from_fn(|| due.pop_first()).take(BATCH).collect()
    }

    /// Takes the stored tally of a room. A tally that left memory after it was taken is read again: the stored one goes on
    /// from where it was.
    async fn take(&self, db: &Database, (user, room): Key) -> Result<Option<rows::TallyRow>, Error> {
        let limit = ReadRows::limit(self.largest);
        let mut taken = match self.read.get(&user) {
            Some(read) => read.take(room, limit),
            // The cache may be too small for pages.
            None if limit == 1 => Taken::ReadAlone,
            // Most users' first page has all that they have, so it begins before the room.
            None => self.read_page((user, FIRST_ROOM), db).await?.take(room, limit),
        };
        if matches!(taken, Taken::ReadPage) {
            taken = self.read_page((user, room), db).await?.take(room, limit);
        }
        match taken {
            Taken::Row(row) => Ok(Some(row)),
            Taken::NotStored => Ok(None),
            Taken::ReadAlone | Taken::ReadPage => rows::find_tally(&mut db.read().await?.conn(), user, room).await,
        }
    }

    /// Reads a page of a user's tallies, from a room on. It takes the place of another one.
    async fn read_page(&self, (user, from): Key, db: &Database) -> Result<Arc<ReadRows>, Error> {
        let limit = ReadRows::limit(self.largest);
        let found = rows::tallies_of_user(&mut db.read().await?.conn(), user, from, limit).await?;
        let read = Arc::new(ReadRows::new(from, found, self.largest));
        self.read.insert(user, Arc::clone(&read));
        Ok(read)
    }
}

impl BasisVersion {
    /// A digest of the basis, which is the same after a restart.
    pub(in crate::push) fn digest(&self) -> Vec<u8> {
        let mut digest = Sha256::new();
        digest.update([VERSION]);
        digest.update(self.rules_digest);
        for Position(pos) in [self.ignored, self.joined_at] {
            digest.update(pos.to_le_bytes());
        }
        digest.finalize()[..16].to_vec()
    }
}

impl Counted {
    pub(super) fn is_worth_storing(&self) -> bool {
        self.owed == Owed::Nothing && self.unsaved >= STORE_AFTER
    }

    fn row(&self, (user, room): Key) -> Row {
        let tally = self.tally.encode(&self.through);
        rows::TallyColumns { user_nid: user, room_nid: room, upto: self.upto, basis: self.basis.digest(), tally }.row()
    }
}

impl Look<'_> {
    /// The stored count of this user in this room, if it is on the same basis and saves work.
    pub(super) async fn stored(&self) -> Result<Option<Counted>, Error> {
        let (start, basis) = (self.start(), self.basis.version());
        if self.room.last_pos() <= start {
            return Ok(None);
        }
        let Some(row) = self.push.stored.take(&self.rooms.db, (self.user.nid, self.room.nid)).await? else {
            return Ok(None);
        };
        let upto = Position(row.upto);
        if upto <= start || row.basis != basis.digest() {
            return Ok(None);
        }
        match Tally::decode(&row.tally) {
            Ok((tally, through)) => {
                let read_upto = Position::BEFORE_ALL;
                let (owed, unsaved, is_new) = (Owed::Nothing, 0, false);
                Ok(Some(Counted { basis, upto, tally, read_upto, through, owed, unsaved, is_new }))
            }
            Err(Malformed(reason)) => {
                let (user_id, room_id) = (&self.user.user_id, &self.room.room_id);
                warn!(%user_id, %room_id, reason, "a stored unread count is damaged; counting anew");
                Ok(None)
            }
        }
    }
}

impl Push {
    /// Finds the tallies that nobody has looked at since the last call, and notes that they should be stored. Clients of a
    /// user who is away look at nothing, and a room where nothing happens is not looked at.
    pub fn find_quiet_tallies(&self) {
        for (key, entry) in self.tallies.0.iter() {
            if entry.is_looked_at.swap(false, Ordering::Relaxed) {
                continue;
            }
            // A tally that is locked is being looked at.
            let Ok(held) = entry.counted.try_lock() else { continue };
            if held.as_ref().is_some_and(Counted::is_worth_storing) {
                self.stored.note_due(key);
            }
        }
    }

    /// Stores the tallies that should be. Does nothing if there are none.
    ///
    /// # Errors
    /// Database errors. The tallies that were not stored are counted anew when they are needed.
    pub async fn store_tallies(&self, rooms: &Rooms) -> Result<(), Error> {
        loop {
            let due = self.stored.next_due();
            if due.is_empty() {
                return Ok(());
            }
            let (mut rows, mut users) = (Vec::with_capacity(due.len()), BTreeSet::new());
            let mut joined: (Option<UserNid>, BTreeSet<RoomNid>) = (None, BTreeSet::new());
            for key @ (user, room) in due {
                // No row is left of a user who has left the room, or whose account has ended.
                if joined.0 != Some(user) {
                    joined = (Some(user), rooms.joined_rooms(user).await?.into_iter().collect());
                }
                let Some(entry) = self.tallies.0.peek(&key).filter(|_| joined.1.contains(&room)) else { continue };
                let mut held = entry.counted.lock().await;
                if let Some(counted) = held.as_mut().filter(|counted| counted.is_worth_storing()) {
                    rows.push(counted.row(key));
                    users.insert(user);
                    counted.unsaved = 0;
                }
            }
            if rows.is_empty() {
                continue;
            }
            rooms.db.committer().write(Write::new(rows)).await?;
            // An earlier read lacks these rows.
            users.iter().for_each(|user| _ = self.stored.read.remove(user));
        }
    }
}

#[cfg(test)]
mod tests;
