//! How short ids are given out, and how lists of them are stored.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::Error;
pub use sabha_federation::ids::{
    DeviceNid, EventNid, FilterNid, KeyNid, Position, RoomNid, ServerNid, SideNid, TimelinePlace, TypeNid, UserNid,
};

/// The size of a block. Ids are reserved in the database by the block, and given out from memory.
pub(super) const BLOCK: i64 = 65_536;

/// The number of ids left below which the committer reserves the next block with its next batch. A batch uses far
/// fewer.
pub(super) const LOW_WATER: i64 = 32_768;

/// The kinds of short id, each with its own counter row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Event,
    Side,
    Room,
    User,
    Server,
    Device,
    Key,
    Type,
    Filter,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Event,
        Self::Side,
        Self::Room,
        Self::User,
        Self::Server,
        Self::Device,
        Self::Key,
        Self::Type,
        Self::Filter,
    ];

    pub(super) fn counter_name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Side => "side",
            Self::Room => "room",
            Self::User => "user",
            Self::Server => "server",
            Self::Device => "device",
            Self::Key => "key",
            Self::Type => "type",
            Self::Filter => "filter",
        }
    }
}

/// A half-open range of ids that this process owns: `next` is the next one to give out.
#[derive(Debug, Default, Clone, Copy)]
struct Block {
    next: i64,
    end: i64,
    /// The start and the end of the next block, once it is reserved.
    reserve: Option<(i64, i64)>,
}

/// Gives out short ids from blocks that this process has reserved.
#[derive(Debug, Default)]
pub struct Ids {
    blocks: [Mutex<Block>; Kind::ALL.len()],
    /// Set while another process gives ids out.
    is_closed: AtomicBool,
    /// The number of times that this process has begun to give ids out.
    openings: AtomicU64,
}

impl Ids {
    fn next(&self, kind: Kind) -> Result<i64, Error> {
        let mut block = lock(&self.blocks[kind as usize]);
        if block.next == block.end {
            let Some((next, end)) = block.reserve.take() else {
                let is_closed = self.is_closed.load(Ordering::Acquire);
                return Err(if is_closed { Error::NotLeader } else { Error::Overloaded });
            };
            (block.next, block.end) = (next, end);
        }
        block.next += 1;
        Ok(block.next - 1)
    }

    /// Returns whether the committer should reserve another block of this kind.
    pub(super) fn is_low(&self, kind: Kind) -> bool {
        let block = lock(&self.blocks[kind as usize]);
        block.reserve.is_none() && block.end - block.next < LOW_WATER
    }

    /// Adds a reserved block `[start, start + BLOCK)`.
    pub(super) fn add_block(&self, kind: Kind, start: i64) {
        lock(&self.blocks[kind as usize]).reserve = Some((start, start + BLOCK));
    }

    /// Gives up all blocks: this process makes nothing new for now.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        for block in &self.blocks {
            *lock(block) = Block::default();
        }
    }

    /// Gives ids out of these new blocks.
    pub(super) fn open(&self, blocks: Vec<(Kind, i64)>) {
        for (kind, start) in blocks {
            self.add_block(kind, start);
        }
        self.openings.fetch_add(1, Ordering::AcqRel);
        self.is_closed.store(false, Ordering::Release);
    }

    /// A mark to be taken before the database is asked for a word; see [`Ids::ensure_since`].
    pub(super) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Acquire)
    }

    /// Checks that no other process has given ids out since the mark was taken: it may have given the word an id that our
    /// read did not see.
    ///
    /// # Errors
    /// [`Error::Superseded`] if one may have.
    pub(super) fn ensure_since(&self, openings: u64) -> Result<(), Error> {
        if self.openings() == openings { Ok(()) } else { Err(Error::Superseded) }
    }

    /// # Errors
    /// [`Error::Overloaded`] when ids are used faster than blocks can be reserved, and [`Error::NotLeader`] while another
    /// process gives ids out. The other kinds of id fail in the same way.
    pub fn event(&self) -> Result<EventNid, Error> {
        self.next(Kind::Event).map(EventNid)
    }

    pub fn side(&self) -> Result<SideNid, Error> {
        self.next(Kind::Side).map(SideNid)
    }

    pub fn room(&self) -> Result<RoomNid, Error> {
        self.next(Kind::Room).map(RoomNid)
    }

    pub fn user(&self) -> Result<UserNid, Error> {
        self.next(Kind::User).map(UserNid)
    }

    pub(super) fn server(&self) -> Result<ServerNid, Error> {
        self.next(Kind::Server).map(ServerNid)
    }

    pub fn device(&self) -> Result<DeviceNid, Error> {
        self.next(Kind::Device).map(DeviceNid)
    }

    pub(super) fn key(&self) -> Result<KeyNid, Error> {
        self.next(Kind::Key).map(KeyNid)
    }

    pub(super) fn event_type(&self) -> Result<TypeNid, Error> {
        self.next(Kind::Type).map(TypeNid)
    }

    pub fn filter(&self) -> Result<FilterNid, Error> {
        self.next(Kind::Filter).map(FilterNid)
    }
}

/// Locks a mutex, even a poisoned one: a panic while it is held cannot leave these plain numbers half-written.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Packs event ids for a column: eight bytes each, little endian.
pub(crate) fn pack(ids: &[EventNid]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0.to_le_bytes()).collect()
}

/// Undoes [`pack`].
pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<EventNid>, Error> {
    Ok(unpack_numbers("list of events", bytes)?.map(EventNid).collect())
}

/// Packs positions for a column, as [`pack`] does event ids.
pub(crate) fn pack_positions(positions: &[Position]) -> Vec<u8> {
    positions.iter().flat_map(|pos| pos.0.to_le_bytes()).collect()
}

/// Undoes [`pack_positions`].
pub(crate) fn unpack_positions(bytes: &[u8]) -> Result<Vec<Position>, Error> {
    Ok(unpack_numbers("list of positions", bytes)?.map(Position).collect())
}

fn unpack_numbers(what: &'static str, bytes: &[u8]) -> Result<impl Iterator<Item = i64>, Error> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Error::damaged(what, format!("{} bytes", bytes.len())));
    }
    Ok(chunks.iter().map(|chunk| i64::from_le_bytes(*chunk)))
}
