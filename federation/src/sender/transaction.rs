//! Transactions: the parts that fit, as the bytes of a request.
//!
//! Stored items and changes of devices come before events, so that keys for encrypted messages do not wait behind a backlog.
//! EDUs that are in memory alone come last. The ID is the hash of the body, which has the time: the same ID is the same
//! bytes, and the same EDU sent twice is not taken for a repetition.

use std::{fmt::Write as _, sync::Arc};

use ruma::{
    OwnedTransactionId, ServerName,
    serde::{Base64, base64::UrlSafe},
};
use sha2::{Digest as _, Sha256};

use super::{
    EffectNumber,
    effect::{Part, Wanted, WantedItems},
    ephemeral::Ephemeral,
    input::{ItemKind, Loaded},
    limits::Grant,
    queue::{Entry, Queue, Work},
    time::Now,
};
use crate::ids::{EventNid, Position, RoomNid, UserNid};

/// Maximum number of PDUs of a transaction. Server-server API, [Transactions].
///
/// [Transactions]: https://spec.matrix.org/v1.19/server-server-api/#transactions
pub const MAX_PDUS: usize = 50;

/// Maximum number of EDUs of a transaction, by the specification.
pub const MAX_EDUS: usize = 100;

/// Maximum number of parts of a transaction.
pub(super) const MAX_PARTS: usize = MAX_PDUS + MAX_EDUS;

/// Maximum size of a transaction. A slow destination takes a quarter of a mebibyte within a few seconds.
pub const MAX_TRANSACTION_BYTES: usize = 256 * 1024;

/// Maximum size of a part: that of an event.
pub const MAX_PART_BYTES: usize = 65_536;

/// The least size that a transaction may have: one part with its envelope, in which the server's name has at most 255 bytes.
pub(super) const LEAST_BYTES: usize = MAX_PART_BYTES + 1_024;

/// A transaction as it is sent, and sent again.
#[derive(PartialEq, Eq, Debug)]
pub struct Transaction {
    id: OwnedTransactionId,
    body: Arc<str>,
    pub(super) contents: Contents,
}

/// The parts of a transaction, and the work that is done once it is accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Contents {
    pub source: Source,
    /// The number of parts. EDUs that are in memory alone are none.
    pub parts: usize,
    /// The last part.
    pub last: Option<Part>,
    pub edus: usize,
    pub items_upto: Option<i64>,
    /// The serial number of the last change of devices.
    pub devices_upto: Option<u64>,
    pub events_upto: Option<u64>,
    /// Everything up to here is then delivered.
    pub done_after: Position,
}

/// The queue that parts come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Live,
    /// The page of what the destination has missed.
    Page,
    /// No queue: there are only items.
    Items,
}

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
        let parts = body.parts.len();
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
            last: body.parts.last().copied(),
            edus: body.edus.len(),
            items_upto,
            devices_upto: devices.checked_sub(1).and_then(|last| self.devices.get(last)).map(|entry| entry.serial),
            events_upto: events.checked_sub(1).and_then(|last| self.events.get(last)).map(|entry| entry.serial),
            done_after: next.map_or(self.upto, |next| Position(next.0 - 1)),
        };
        let too_large = std::mem::take(&mut body.too_large);
        (Transaction::new(&body.into_json(), contents), too_large)
    }
}

impl Contents {
    /// Returns whether nothing follows from the transaction: no part of it and no work is in it.
    pub fn is_nothing(&self) -> bool {
        self.edus == 0 && self.items_upto.is_none() && self.devices_upto.is_none() && self.events_upto.is_none()
    }

    /// Returns whether an empty transaction would be sent.
    pub fn is_empty(&self) -> bool {
        self.parts == 0 && self.edus == 0
    }
}

impl Transaction {
    fn new(body: &str, contents: Contents) -> Self {
        let hash = Sha256::digest(body.as_bytes());
        let id = Base64::<UrlSafe, _>::new(hash.as_slice().to_vec()).encode();
        Self { id: id.into(), body: body.into(), contents }
    }

    /// An empty transaction, to learn whether the destination is there, or to tell it that we are.
    pub(super) fn empty(origin: &ServerName, now: Now) -> Self {
        let contents = Contents {
            source: Source::Items,
            parts: 0,
            last: None,
            edus: 0,
            items_upto: None,
            devices_upto: None,
            events_upto: None,
            done_after: Position::BEFORE_ALL,
        };
        Self::new(&Body::new(origin, now, LEAST_BYTES, 0).into_json(), contents)
    }

    /// The transaction ID: the hash of the body.
    pub fn id(&self) -> &OwnedTransactionId {
        &self.id
    }

    /// The body of the request as JSON.
    pub fn body(&self) -> &Arc<str> {
        &self.body
    }
}

/// The body of a transaction that is being put together.
struct Body {
    /// The members before the PDUs.
    start: String,
    pdus: Vec<Arc<str>>,
    edus: Vec<Arc<str>>,
    bytes: usize,
    most_bytes: usize,
    most_parts: usize,
    parts: Vec<Part>,
    too_large: Vec<Part>,
}

const BETWEEN: &str = r#"],"edus":["#;
const END: &str = "]}";

impl Body {
    fn new(origin: &ServerName, now: Now, most_bytes: usize, most_parts: usize) -> Self {
        // A server name has no character that JSON escapes.
        let start = format!(r#"{{"origin":"{origin}","origin_server_ts":{},"pdus":["#, now.unix_ms);
        let bytes = start.len() + BETWEEN.len() + END.len();
        Self { start, pdus: vec![], edus: vec![], bytes, most_bytes, most_parts, parts: vec![], too_large: vec![] }
    }

    /// Adds a part if it fits. Returns false if it has to wait for the next transaction. A part that is too large for any is
    /// left out, and one of nothing is done.
    fn part(&mut self, part: Part, pdus: Vec<Arc<str>>, edus: Vec<Arc<str>>, most_bytes: usize) -> bool {
        let bytes = added(&pdus) + added(&edus);
        if pdus.is_empty() && edus.is_empty() {
            return true;
        }
        if pdus.iter().chain(&edus).any(|json| json.len() > MAX_PART_BYTES) {
            self.too_large.push(part);
            return true;
        }
        let most_bytes = if self.parts.is_empty() { self.most_bytes } else { most_bytes };
        let fits = self.parts.len() < self.most_parts
            && self.pdus.len() + pdus.len() <= MAX_PDUS
            && self.edus.len() + edus.len() <= MAX_EDUS
            && self.bytes + bytes <= most_bytes;
        if fits {
            self.bytes += bytes;
            self.pdus.extend(pdus);
            self.edus.extend(edus);
            self.parts.push(part);
        }
        fits
    }

    /// Adds an EDU that is in memory alone, if it fits.
    fn edu(&mut self, json: &Arc<str>) -> bool {
        let fits = self.edus.len() < MAX_EDUS && self.bytes + json.len() < self.most_bytes;
        if fits {
            self.bytes += json.len() + 1;
            self.edus.push(Arc::clone(json));
        }
        fits
    }

    fn into_json(self) -> String {
        let mut json = String::with_capacity(self.bytes);
        json.push_str(&self.start);
        join(&mut json, &self.pdus);
        json.push_str(BETWEEN);
        join(&mut json, &self.edus);
        json.push_str(END);
        json
    }
}

/// The bytes of these and their commas.
fn added(parts: &[Arc<str>]) -> usize {
    parts.iter().map(|json| json.len() + 1).sum()
}

fn join(json: &mut String, parts: &[Arc<str>]) {
    for (index, part) in parts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing into a string does not fail.
        let _ = write!(json, "{comma}{part}");
    }
}

/// The EDUs of one change of devices that fit into a transaction, the last ones. Where one is missing, the chain of `prev_id`
/// is broken, so the destination fetches the list of devices.
fn last_that_fit(mut edus: Vec<Arc<str>>) -> Vec<Arc<str>> {
    edus.retain(|json| json.len() < MAX_PART_BYTES);
    let mut bytes = 0;
    let fit = edus.iter().rev().take(MAX_EDUS).take_while(|json| {
        bytes += json.len() + 1;
        bytes <= MAX_PART_BYTES
    });
    let cut = edus.len() - fit.count();
    edus.drain(..cut);
    edus
}

fn room_of(entry: &Entry) -> Option<RoomNid> {
    match entry.work {
        Work::Event { room, .. } => Some(room),
        Work::Devices { .. } => None,
    }
}
