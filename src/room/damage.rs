//! Damaged rooms: the damage of one room stops at that room.
//!
//! Code that works on several rooms skips a damaged one ([`Rooms::contain`]), so that the others do not fail with it.
//! The room is reported to the operator, and retried a little later. A database that does not answer is not damage.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use super::Rooms;
use crate::{
    account::millis,
    report::Report,
    store::{Error, RoomNid, ids::lock},
};

/// The pause before a room that failed to load is retried. Loading may read much, and everyone in the room asks for it.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The interval between reports of the same room. Every request from its members fails in the same way.
const REPORT_EVERY: Duration = Duration::from_secs(10 * 60);

/// The number of damaged rooms that are remembered. Above it all are forgotten, which costs loads and lines in the log.
const REMEMBERED: usize = 10_000;

/// The rooms that could not be read lately.
#[derive(Debug, Default)]
pub(super) struct Damage {
    rooms: Mutex<HashMap<RoomNid, DamagedRoom>>,
}

#[derive(Debug)]
struct DamagedRoom {
    /// The time and the error of a failed load. `None`: the room was loaded, but something else could not be read.
    not_loaded: Option<(i64, Error)>,
    reported_at: Option<i64>,
}

impl Damage {
    fn room<T>(&self, room: RoomNid, update: impl FnOnce(&mut DamagedRoom) -> T) -> T {
        let mut rooms = lock(&self.rooms);
        if rooms.len() >= REMEMBERED && !rooms.contains_key(&room) {
            rooms.clear();
        }
        update(rooms.entry(room).or_insert(DamagedRoom { not_loaded: None, reported_at: None }))
    }

    /// The error with which the room failed to load a moment ago.
    pub(super) fn lately(&self, room: RoomNid, now_ms: i64) -> Option<Error> {
        let rooms = lock(&self.rooms);
        let (at, error) = rooms.get(&room)?.not_loaded.as_ref()?;
        (now_ms - at < millis(RETRY_AFTER)).then(|| error.clone())
    }

    /// Notes that the room failed to load. Errors other than damage are not remembered.
    pub(super) fn not_loaded(&self, room: RoomNid, error: &Error, now_ms: i64) {
        if error.is_damage() {
            self.room(room, |damaged| damaged.not_loaded = Some((now_ms, error.clone())));
        }
    }

    /// Notes that the room was loaded.
    pub(super) fn loaded(&self, room: RoomNid) {
        if let Some(damaged) = lock(&self.rooms).get_mut(&room) {
            damaged.not_loaded = None;
        }
    }

    fn must_report(&self, room: RoomNid, now_ms: i64) -> bool {
        self.room(room, |damaged| {
            let is_due = damaged.reported_at.is_none_or(|at| now_ms - at >= millis(REPORT_EVERY));
            if is_due {
                damaged.reported_at = Some(now_ms);
            }
            is_due
        })
    }
}

impl Rooms {
    /// Reports damage of one room and turns it into `None`, so that the caller skips the room and goes on.
    ///
    /// # Errors
    /// All errors other than damage, such as a database that does not answer.
    pub fn contain<T>(&self, room: RoomNid, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_damage() => {
                self.report_damage(room, &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn report_damage(&self, room: RoomNid, error: &Error) {
        metrics::counter!("sabha_damaged_room_reads_total").increment(1);
        if self.damage.must_report(room, self.clock.now_ms()) {
            tracing::error!(room_nid = room.0, error = %Report(error), "a room is damaged in the database and was left out; restore it from a backup");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomNid = RoomNid(1);

    #[test]
    fn a_room_that_cannot_be_loaded_is_tried_again_a_little_later() {
        let damage = Damage::default();
        let error = Error::damaged("room", "test");
        damage.not_loaded(ROOM, &Error::Stopping, 1_000);
        assert!(damage.lately(ROOM, 1_000).is_none(), "that was no damage");
        damage.not_loaded(ROOM, &error, 1_000);
        assert!(damage.lately(ROOM, 10_999).is_some());
        assert!(damage.lately(ROOM, 11_000).is_none());
        damage.not_loaded(ROOM, &error, 20_000);
        damage.loaded(ROOM);
        assert!(damage.lately(ROOM, 20_000).is_none());
    }

    #[test]
    fn a_room_is_reported_now_and_then() {
        let damage = Damage::default();
        assert!(damage.must_report(ROOM, 1_000));
        assert!(!damage.must_report(ROOM, 600_999));
        assert!(damage.must_report(RoomNid(2), 600_999));
        assert!(damage.must_report(ROOM, 601_000));
    }
}
