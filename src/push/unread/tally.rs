//! Counting, as plain data: the events a user was notified of, and those of them that they have read.
//!
//! Promise: a tally that takes events one after the other, with receipts and redactions in between, gives the same
//! counts as one that is made from all of them at once.

mod encoding;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::MAX_EVENTS;
use crate::store::{EventNid, Position};

/// The thread of an event; `None` is the main timeline.
pub(super) type Thread = Option<Arc<str>>;

/// The numbers for a badge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub notifications: u64,
    /// The number of highlighted ones among the notifications.
    pub highlights: u64,
}

impl Counts {
    fn add(&mut self, highlight: bool) {
        self.notifications += 1;
        self.highlights += u64::from(highlight);
    }
}

/// The unread counts of a user in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// The counts of the main timeline.
    pub main: Counts,
    /// The counts of the threads that have unread events.
    pub threads: BTreeMap<Arc<str>, Counts>,
    /// The last position at which the counts may have changed.
    pub changed_at: Option<Position>,
}

impl Unread {
    /// The counts of the whole room.
    pub fn total(&self) -> Counts {
        self.threads.values().fold(self.main, |sum, thread| Counts {
            notifications: sum.notifications + thread.notifications,
            highlights: sum.highlights + thread.highlights,
        })
    }
}

/// An unread event that the user was notified of.
#[derive(Debug, Clone)]
struct Item {
    pos: Position,
    event: EventNid,
    thread: Thread,
    highlight: bool,
}

/// The unread notifications of one user in one room, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    items: Vec<Item>,
    changed_at: Option<Position>,
}

impl Tally {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Adds an event that notifies the user. It must be newer than all events before.
    pub(super) fn notified(&mut self, pos: Position, event: EventNid, thread: Thread, highlight: bool) {
        self.items.push(Item { pos, event, thread, highlight });
        if self.items.len() > MAX_EVENTS {
            self.items.remove(0);
        }
        self.changed_at = Some(pos);
    }

    /// Records an event that the user has sent. It marks the earlier events in its thread as read.
    pub(super) fn sent(&mut self, pos: Position, thread: &Thread) {
        self.items.retain(|item| item.thread != *thread);
        self.changed_at = Some(pos);
    }

    /// Removes an event that was redacted at `pos`. Nobody needs to read it any more.
    pub(super) fn redacted(&mut self, pos: Position, event: EventNid) {
        self.items.retain(|item| item.event != event);
        self.changed_at = Some(pos);
    }

    /// Records that everything was counted anew at `pos`, for other reasons than new events.
    pub(super) fn changed(&mut self, pos: Position) {
        self.changed_at = Some(pos);
    }

    /// Returns whether both give the same counts.
    pub(super) fn counts_as(&self, other: &Self) -> bool {
        let counted = |item: &Item| (item.event, item.highlight);
        self.items.iter().map(counted).eq(other.items.iter().map(counted))
    }

    /// Removes read events for good, because receipts only move forwards. `up_to` returns how far the user has read a
    /// thread, `main`, or everything (empty).
    pub(super) fn read(&mut self, up_to: impl Fn(&str) -> Position) {
        if self.items.is_empty() {
            return;
        }
        let everything = up_to("");
        // Most events are in the main timeline, which is not looked up for each of them.
        let main = everything.max(up_to("main"));
        let mut threads: HashMap<Arc<str>, Position> = HashMap::new();
        self.items.retain(|item| {
            let read = match &item.thread {
                None => main,
                Some(_) if item.pos <= everything => return false,
                Some(thread) => match threads.get(thread) {
                    Some(read) => *read,
                    None => *threads.entry(Arc::clone(thread)).or_insert_with(|| up_to(thread)),
                },
            };
            item.pos > read
        });
    }

    /// The unread counts of the events up to `upto`.
    pub(super) fn unread(&self, upto: Position) -> Unread {
        let mut unread = Unread { changed_at: self.changed_at, ..Unread::default() };
        for item in self.items.iter().take_while(|item| item.pos <= upto) {
            match &item.thread {
                None => unread.main.add(item.highlight),
                Some(thread) => unread.threads.entry(Arc::clone(thread)).or_default().add(item.highlight),
            }
        }
        unread
    }
}

#[cfg(test)]
mod tests;
