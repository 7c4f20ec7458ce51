//! The cached receipts of active rooms. They follow the commits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::OnceCell;

use super::shown::{Key, Receipt, Shown};
use crate::{
    memory::{
        budget::{Budget, Part},
        growing::GrowingCache,
    },
    store::{
        Position, RoomNid,
        ids::lock,
        latest::Latest,
        log::{LogEntry, Memory, Touch},
    },
};

/// The memory of a room without receipts, in bytes.
const ROOM_BYTES: u64 = 200;

/// The cached receipts of active rooms.
pub(in crate::ephemeral) struct Receipts {
    pub(super) rooms: Arc<GrowingCache<RoomNid, RoomReceipts>>,
    /// The position of each room's last receipt.
    latest: Mutex<Latest<RoomNid>>,
    /// The receipts whose write is queued, by its position.
    pub(super) queued: Mutex<HashMap<Position, Vec<(Key, Receipt)>>>,
}

#[derive(Default)]
pub(super) struct RoomReceipts {
    pub(super) loaded: OnceCell<()>,
    pub(super) shown: Mutex<Shown>,
}

impl Receipts {
    pub(in crate::ephemeral) fn new(started_at: Position, budget: &Budget) -> Self {
        let rooms = budget.growing_cache(Part::Receipts);
        Self { rooms, latest: Mutex::new(Latest::new(started_at)), queued: Mutex::default() }
    }

    pub(super) fn room(&self, room: RoomNid) -> Arc<RoomReceipts> {
        self.rooms.get_or_default(&room, ROOM_BYTES)
    }

    pub(super) fn has_grown(&self, room: RoomNid, receipts: &Arc<RoomReceipts>, bytes: u64) {
        self.rooms.has_grown(&room, receipts, ROOM_BYTES + bytes);
    }

    /// Adds committed receipts to the cache. A room that is being loaded gets them too, so none is lost.
    fn committed(&self, room: RoomNid, receipts: Vec<(Key, Receipt)>) {
        if let Some(known) = self.rooms.peek(&room) {
            let mut shown = lock(&known.shown);
            let before = shown.bytes();
            for (key, receipt) in receipts {
                shown.apply(key, receipt);
            }
            let after = shown.bytes();
            drop(shown);
            if after != before {
                self.has_grown(room, &known, after);
            }
        }
    }

    pub(super) fn unchanged(&self, room: RoomNid, since: Position) -> bool {
        lock(&self.latest).is_unchanged(&room, since)
    }
}

impl Memory for Receipts {
    fn apply(&self, entry: &LogEntry) {
        for (at, touch) in &entry.touches {
            let Touch::Receipt { room, .. } = *touch else { continue };
            let queued = lock(&self.queued).remove(at);
            match queued {
                Some(receipts) => self.committed(room, receipts),
                // Another process has them.
                None => self.rooms.remove(&room),
            }
            lock(&self.latest).changed(room, *at);
        }
    }

    /// Evicts the rooms. A receipt that waits here for one of these positions belongs to a write that was never stored.
    fn follow(&self, entry: &LogEntry) {
        for (at, touch) in &entry.touches {
            let Touch::Receipt { room, .. } = *touch else { continue };
            self.rooms.remove(&room);
            lock(&self.latest).changed(room, *at);
        }
    }

    fn forget(&self, upto: Position) {
        self.rooms.clear();
        lock(&self.latest).restart(upto);
    }

    fn abandoned(&self, touches: &[(Position, Touch)]) {
        for (at, touch) in touches {
            if matches!(touch, Touch::Receipt { .. }) {
                lock(&self.queued).remove(at);
            }
        }
    }
}
