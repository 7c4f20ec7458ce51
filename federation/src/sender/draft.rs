//! Drafts: the work that goes into the next transaction, and as much of it as fits.
//!
//! Stored items and changes of devices come before events, so that keys for encrypted messages do not wait behind a backlog.
//! EDUs that are in memory alone come last.

use ruma::ServerName;

use super::{
    EffectNumber,
    body::{Body, last_that_fit},
    effect::{Part, Wanted, WantedItems},
    ephemeral::Ephemeral,
    input::{ItemKind, Loaded},
    limits::Grant,
    queue::{Entry, Queue, Work},
    time::Now,
    transaction::{Contents, LEAST_BYTES, MAX_EDUS, MAX_PDUS, MAX_TRANSACTION_BYTES, Source, Transaction},
};
use crate::ids::{EventNid, Position, RoomNid, UserNid};

/// A transaction whose parts are being read.
#[derive(Debug)]
pub(super) struct Loading {
    pub number: EffectNumber,
    pub grant: Grant,
    pub draft: Draft,
}

/// The parts that the next transaction may have.
#[derive(Debug)]
pub(super) struct Draft {
    source: Source,
    most_parts: usize,
    items: Option<DraftItems>,
    devices: Vec<Entry>,
    events: Vec<Entry>,
    /// The position of the work that comes after these.
    devices_next: Option<Position>,
    events_next: Option<Position>,
    /// Everything up to here is in the queue or delivered.
    upto: Position,
}

/// The stored items of a destination.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct DraftItems {
    /// Everything up to here is delivered.
    pub done: i64,
    pub newest: i64,
}

impl DraftItems {
    pub fn is_waiting(&self) -> bool {
        self.done < self.newest
    }
}

impl Draft {
    /// Takes a look at the first work of a queue, which has everything up to `upto`.
    pub fn new(
        source: Source,
        items: DraftItems,
        queue: Option<(&Queue, Position)>,
        by_room: bool,
        most_parts: usize,
    ) -> Self {
        let items = items.is_waiting().then_some(items);
        let mut draft = Self {
            source,
            most_parts,
            items,
            devices: vec![],
            events: vec![],
            devices_next: None,
            events_next: None,
            // Without a queue nothing is done.
            upto: Position::BEFORE_ALL,
        };
        let Some((queue, upto)) = queue else { return draft };
        draft.upto = upto;
        draft.devices.extend(queue.devices.iter().take(most_parts.min(MAX_EDUS)));
        draft.devices_next = queue.devices.get(draft.devices.len()).map(|entry| entry.pos);
        let first = queue.events.front().and_then(room_of);
        let events = queue.events.iter().take(most_parts.min(MAX_PDUS));
        draft.events.extend(events.take_while(|entry| !by_room || room_of(entry) == first));
        draft.events_next = queue.events.get(draft.events.len()).map(|entry| entry.pos);
        draft
    }

    /// Returns whether there is no work.
    pub fn is_empty(&self) -> bool {
        self.items.is_none() && self.devices.is_empty() && self.events.is_empty()
    }

    /// The memory that the transaction may need.
    pub fn most_bytes(&self) -> usize {
        let items = self.items.map_or(0, |items| usize::try_from(items.newest - items.done).unwrap_or(usize::MAX));
        let parts = items.saturating_add(self.devices.len() + self.events.len());
        parts.max(1).saturating_mul(LEAST_BYTES).min(MAX_TRANSACTION_BYTES)
    }

    pub fn wanted(&self, most_bytes: usize) -> Wanted {
        let most = self.most_parts.min(MAX_EDUS);
        let user = |entry: &Entry| match entry.work {
            Work::Devices { user } => Some((user, entry.pos)),
            Work::Event { .. } => None,
        };
        let event = |entry: &Entry| match entry.work {
            Work::Event { event, .. } => Some(event),
            Work::Devices { .. } => None,
        };
        let devices: Vec<(UserNid, Position)> = self.devices.iter().filter_map(user).collect();
        let events: Vec<EventNid> = self.events.iter().filter_map(event).collect();
        Wanted { items: self.items.map(|items| WantedItems { after: items.done, most }), devices, events, most_bytes }
    }

    /// Puts together what was read and fits. Returns the parts that are too large too: they are skipped.
    pub fn assemble(
        &self,
        loaded: Loaded,
        ephemeral: Option<&mut Ephemeral>,
        most_bytes: usize,
        origin: &ServerName,
        now: Now,
    ) -> (Transaction, Vec<Part>) {
        let mut body = Body::new(origin, now, most_bytes, self.most_parts);
        // Items and changes of devices leave half for events.
        let early_bytes = if self.events.is_empty() { most_bytes } else { most_bytes / 2 };
        let mut items_upto = None;
        if let Some(items) = self.items {
            if loaded.items.is_empty() {
                // The newest were deleted, because they were too old.
                items_upto = Some(items.newest);
            }
            for item in loaded.items {
                let part = Part::Item { seq: item.seq };
                let taken = match item.kind {
                    ItemKind::Edu => body.part(part, [].into(), [item.json].into(), early_bytes),
                    ItemKind::Pdu => body.part(part, [item.json].into(), [].into(), early_bytes),
                };
                if !taken {
                    break;
                }
                items_upto = Some(item.seq);
            }
        }
        let mut devices = 0;
        for (entry, edus) in self.devices.iter().zip(loaded.devices) {
            if !body.part(entry.part(), [].into(), last_that_fit(edus), early_bytes) {
                break;
            }
            devices += 1;
        }
        let mut events = 0;
        for (entry, event) in self.events.iter().zip(loaded.events) {
            if !body.part(entry.part(), event.into_iter().collect(), [].into(), most_bytes) {
                break;
            }
            events += 1;
        }
        let parts = body.parts().len();
        if let Some(ephemeral) = ephemeral {
            ephemeral.take(now.moment, |json| body.edu(json));
        }
        let next = [
            self.devices.get(devices).map_or(self.devices_next, |entry| Some(entry.pos)),
            self.events.get(events).map_or(self.events_next, |entry| Some(entry.pos)),
        ];
        let next = next.into_iter().flatten().min();
        let contents = Contents {
            source: self.source,
            parts,
            last: body.parts().last().copied(),
            edus: body.edus(),
            items_upto,
            devices_upto: devices.checked_sub(1).and_then(|last| self.devices.get(last)).map(|entry| entry.serial),
            events_upto: events.checked_sub(1).and_then(|last| self.events.get(last)).map(|entry| entry.serial),
            done_after: next.map_or(self.upto, |next| Position(next.0 - 1)),
        };
        let too_large = body.take_too_large();
        (Transaction::new(&body.into_json(), contents), too_large)
    }
}

fn room_of(entry: &Entry) -> Option<RoomNid> {
    match entry.work {
        Work::Event { room, .. } => Some(room),
        Work::Devices { .. } => None,
    }
}
