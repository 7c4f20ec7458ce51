//! The work that waits for a destination, in the order of its positions: events, and changes of devices.
//!
//! Work stays in its queue until it is delivered, so that the first one says up to where everything was.

use std::collections::VecDeque;

use super::{effect::Part, time::Moment};
use crate::ids::{EventNid, Position, RoomNid, UserNid};

/// Work for one destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// The number of the entry in its shard: larger is later. A position may have several.
    pub serial: u64,
    pub pos: Position,
    pub work: Work,
    /// The moment from which it waits.
    pub since: Moment,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Event { room: RoomNid, event: EventNid },
    Devices { user: UserNid },
}

impl Entry {
    pub fn part(&self) -> Part {
        match self.work {
            Work::Event { event, .. } => Part::Event { event, pos: self.pos },
            Work::Devices { user } => Part::Devices { user, pos: self.pos },
        }
    }
}

/// Work in the order of positions. Changes of devices go before events, so they have a queue of their own.
#[derive(Default, Debug)]
pub(super) struct Queue {
    pub devices: VecDeque<Entry>,
    pub events: VecDeque<Entry>,
}

impl Queue {
    pub fn push(&mut self, entry: Entry) {
        match entry.work {
            Work::Event { .. } => self.events.push_back(entry),
            Work::Devices { .. } => self.devices.push_back(entry),
        }
    }

    pub fn len(&self) -> usize {
        self.devices.len() + self.events.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position of the first entry.
    pub fn first_pos(&self) -> Option<Position> {
        self.fronts().map(|entry| entry.pos).min()
    }

    /// The first entry after `pos`.
    pub fn first_after(&self, pos: Position) -> Option<&Entry> {
        let after = |queue: &VecDeque<Entry>| queue.partition_point(|entry| entry.pos <= pos);
        let found = [self.devices.get(after(&self.devices)), self.events.get(after(&self.events))];
        found.into_iter().flatten().min_by_key(|entry| entry.pos)
    }

    /// The moment from which the oldest entry waits.
    pub fn oldest_since(&self) -> Option<Moment> {
        self.fronts().map(|entry| entry.since).min()
    }

    /// Removes entries up to these numbers.
    pub fn remove(&mut self, devices_upto: Option<u64>, events_upto: Option<u64>) {
        for (queue, upto) in [(&mut self.devices, devices_upto), (&mut self.events, events_upto)] {
            while queue.front().is_some_and(|entry| Some(entry.serial) <= upto) {
                queue.pop_front();
            }
        }
    }

    /// Removes entries up to this position.
    pub fn remove_before(&mut self, upto: Position) {
        for queue in [&mut self.devices, &mut self.events] {
            while queue.front().is_some_and(|entry| entry.pos <= upto) {
                queue.pop_front();
            }
        }
    }

    /// Removes everything, and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn fronts(&self) -> impl Iterator<Item = &Entry> {
        self.devices.front().into_iter().chain(self.events.front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(serial: u64, pos: i64, is_event: bool) -> Entry {
        let work = if is_event {
            Work::Event { room: RoomNid(1), event: EventNid(pos) }
        } else {
            Work::Devices { user: UserNid(pos) }
        };
        Entry { serial, pos: Position(pos), work, since: Moment(pos) }
    }

    #[test]
    fn work_is_found_and_removed_by_position_and_by_number() {
        let mut queue = Queue::default();
        assert_eq!((queue.first_pos(), queue.first_after(Position(0)), queue.oldest_since()), (None, None, None));
        for (serial, pos, is_event) in [(1, 10, true), (2, 12, false), (3, 12, false), (4, 12, true), (5, 15, true)] {
            queue.push(entry(serial, pos, is_event));
        }
        assert_eq!((queue.len(), queue.first_pos(), queue.oldest_since()), (5, Some(Position(10)), Some(Moment(10))));
        let first_after = |queue: &Queue, pos| queue.first_after(Position(pos)).map(|entry| entry.serial);
        assert_eq!([9, 10, 12, 15].map(|pos| first_after(&queue, pos)), [Some(1), Some(2), Some(5), None]);

        // One of two changes at one position is delivered.
        queue.remove(Some(2), None);
        assert_eq!((queue.len(), queue.first_pos()), (4, Some(Position(10))));
        queue.remove(None, Some(1));
        assert_eq!((queue.len(), queue.first_pos()), (3, Some(Position(12))));
        queue.remove_before(Position(12));
        assert_eq!((queue.len(), queue.first_pos()), (1, Some(Position(15))));
        queue.clear();
        assert!(queue.is_empty());
    }
}
