//! Transactions: their bounds, and their parts as the bytes of a request.
//!
//! The ID is the hash of the body, which has the time: the same ID is the same bytes, and the same EDU sent twice is not taken
//! for a repetition.

use std::sync::Arc;

use ruma::{
    OwnedTransactionId, ServerName,
    serde::{Base64, base64::UrlSafe},
};
use sha2::{Digest as _, Sha256};

use super::{body::Body, effect::Part, time::Now};
use crate::ids::Position;

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
    pub(super) fn new(body: &str, contents: Contents) -> Self {
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
